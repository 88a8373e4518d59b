"""Markup: the text that a reader of the page sees, and pages that no parser should be given."""

from __future__ import annotations

import pickle
import random
import time
from collections import Counter

import pytest

from shards.text.dumps.markup import HtmlPage, WikiPage, is_deep, plain_text, unclosed

ARTICLE = """{{Short description|A town}}
{{Infobox settlement
| name = Springfield {{nobold|x}}
| image = [[File:x.jpg|thumb|A [[caption]]]]
}}
'''Springfield''' ({{IPA|x}}; {{la|Fons}}) is a [[town (place)|town]] in [[Oregon]].<ref>{{cite|x}} [[note]]</ref>
It is  ''old''<ref name="a" />.
[[File:Map.png|thumb|right|A map of [[Springfield]] with a ''long'' caption]]
== History ==
Founded in 1849&nbsp;by [[Elias Briggs]]{{sfn|Smith|2000}} &ndash; it grew.<br />A new line.
{| class="wikitable"
! Year !! Population
|-
| 1850 || 100 {{small|x}}
|}
* first [[:Category:Towns|item]]
* second [http://example.org an external link], http://example.org/bare and [http://example.org]
<!-- a comment -->
<gallery>
File:A.jpg|caption
</gallery>
<math>x^2</math><nowiki>[[not a link]]</nowiki>
=== Empty ===
== Also empty ==
{{reflist}}
[[Category:Towns]] [[category:Other]]
[[de:Springfield]] [[zh-yue:春田]]
__NOTOC__
"""
TEXT = """Springfield

Springfield is a town in Oregon.
It is old.

History

Founded in 1849\xa0by Elias Briggs – it grew.
A new line.

first item
second an external link, http://example.org/bare and

[[not a link]]"""


def test_the_text_of_a_wiki_page():
    pytest.importorskip("mwparserfromhell")
    page = WikiPage(ARTICLE, "Springfield", frozenset({"file", "category"}))
    assert page.plain() == TEXT
    again = pickle.loads(pickle.dumps(page))
    assert (again.plain(), again.page_title, again) == (TEXT, "Springfield", page)


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("{{a}}", ""),
        ("== One ==\n== Two ==\ntext", "T\n\nTwo\n\ntext"),
        ("a '''b''' ''c'' '''''d''''' it's", "T\n\na b c d it's"),
        ("a (born {{x}}) b ({{x}}; ) c（{{x}}，d） e（{{x}}） f()", "T\n\na (born ) b c（d） e f()"),
        ("x &lt; y &#x4e2d; &nosuch; &#xFFFFFFF;", "T\n\nx < y 中 &nosuch; &#xFFFFFFF;"),
        ("unclosed [[link and {{template", "T\n\nunclosed [[link and {{template"),
        ("[[Bild:a.jpg|mini|b]]c[[ file : d ]]", "T\n\nc"),
        ("[[en:Foo|shown]] [[Foo: A Story]]", "T\n\nshown Foo: A Story"),
        ("a<div>b</div>c", "T\n\na\nb\nc"),
    ],
)
def test_what_is_left_of_wikitext(markup, text):
    pytest.importorskip("mwparserfromhell")
    assert WikiPage(markup, "T", frozenset({"file", "bild"})).plain() == text


@pytest.mark.parametrize(
    "part", ["{{a|", "{{{", "[[", "<ref>", "<div>", "{|\n", "{{[[<ref>{|\n", "<b>", "<p>", "[http://a ", "<!--"]
)
def test_a_page_of_tags_that_are_never_closed_is_dropped_and_counted(part):
    pytest.importorskip("mwparserfromhell")
    dropped = Counter[str]()
    before = time.process_time()
    assert plain_text(WikiPage(part * 20_000), dropped) is None
    assert time.process_time() - before < 5
    assert dropped == {"malformed_markup": 1}


@pytest.mark.parametrize(
    ("error", "raised"), [(ValueError, False), (RecursionError, False), (MemoryError, True), (ImportError, True)]
)
def test_a_page_that_a_library_fails_on_is_dropped_but_not_for_want_of_memory_or_the_library(
    monkeypatch, error, raised
):
    def fail(self):
        raise error("of a library")

    monkeypatch.setattr(HtmlPage, "extracted", fail)
    dropped = Counter[str]()
    if raised:
        with pytest.raises(error):
            plain_text(HtmlPage("<p>"), dropped)
    else:
        assert plain_text(HtmlPage("<p>"), dropped) is None
        assert dropped == {"malformed_markup": 1}


def test_tags_that_are_closed_or_need_no_end_are_not_counted_as_open():
    assert unclosed(ARTICLE * 100) == 0
    assert unclosed("<br>" * 1_000 + "<ref name=x/>" * 1_000 + "</div>" * 1_000) == 0
    assert unclosed("{{a|}} {{{1|}}} {{#if:{{{a|}}}|{{b|c=|}}}}") == 0
    assert unclosed("{{a|{{b}}") == 1
    assert unclosed("[http://a [[b]]] [//c d] [e] <!-- f --> ]] }} |}") == 0
    assert unclosed("[http://a [//b [ftp://c <!-- d {| [[e") == 6
    assert unclosed("{{" * 100 + "}}" * 100) == 60  # deeper than is followed


@pytest.mark.slow
def test_random_wikitext_takes_seconds_at_most():
    """Of every mixture of marks: what passes the count of open ones must not keep a worker busy for minutes."""
    pytest.importorskip("mwparserfromhell")
    rng = random.Random(0)
    marks = [
        "{{",
        "}}",
        "[[",
        "]]",
        "{|",
        "|}",
        "<ref>",
        "</ref>",
        "<div>",
        "</div>",
        "''",
        "'''",
        "|",
        "\n",
        "a ",
        "==",
    ]
    marks += ["[http://a ", "]", "<!--", "-->", "<nowiki>", "&amp;", "\n|-\n", "\n* ", "{{{", "}}}", "<br>", "<ref"]
    for _ in range(60):
        some = rng.sample(marks, rng.randint(2, 8))
        page = WikiPage("".join(rng.choices(some, k=20_000)))
        before = time.process_time()
        plain = page.plain()
        assert time.process_time() - before < 20, some
        assert plain is None or isinstance(plain, str)


def test_the_text_of_a_html_page():
    pytest.importorskip("resiliparse")
    page = HtmlPage(
        "<html><head><title>T</title><style>p {}</style></head><body><nav><a href=/>Menu</a></nav><article>"
        "<h1>Head</h1><p>One &amp; <b>two</b>.<script>x()</script></p>"
        "<p>Last.</p></article><footer>(c)</footer></body></html>"
    )
    assert page.plain() == "Head\n\nOne & two.\n\nLast."
    assert HtmlPage("").plain() == ""
    assert HtmlPage("no markup at all").plain() == "no markup at all"


def test_html_that_is_nested_without_end_is_dropped_and_counted():
    pytest.importorskip("resiliparse")
    dropped = Counter[str]()
    for part in ("<div>", "<span><b>"):
        before = time.process_time()
        assert plain_text(HtmlPage(part * 100_000), dropped) is None
        assert time.process_time() - before < 5
    assert dropped == {"malformed_markup": 2}
    assert not is_deep("<p>text<br><div><li></div>" * 10_000)
