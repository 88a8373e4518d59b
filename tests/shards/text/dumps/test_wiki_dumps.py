"""Wiki dumps: the articles and nothing else, in bounded memory, and no entity that expands."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tracemalloc

import pytest

from shards.text.dumps.markup import WikiPage
from shards.text.dumps.wiki_dumps import READ_BYTES
from shards.text.plain_text import TextRules
from shards.text.readers import DocumentReader
from shards.text.sources import find_sources

pytest.importorskip("mwparserfromhell")

HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="nds">
  <siteinfo>
    <sitename>Wikipedia</sitename>
    <namespaces>
      <namespace key="-2" case="first-letter">Medium</namespace>
      <namespace key="0" case="first-letter" />
      <namespace key="6" case="first-letter">Bild&amp;Ton</namespace>
      <namespace key="14" case="first-letter">Kategorie</namespace>
    </namespaces>
  </siteinfo>
"""


def page(title: str, text: str, *, ns: int | None = 0, inside: str = "", model: str = "wikitext") -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    number = "" if ns is None else f"<ns>{ns}</ns>"
    return (
        f"  <page><title>{title}</title>{number}<id>7</id>{inside}<revision><id>9</id><contributor><username>text"
        f"</username></contributor><comment>text</comment><model>{model}</model><format>text/x-wiki</format>"
        f'<text bytes="9" sha1="x" xml:space="preserve">{text}</text></revision></page>\n'
    )


def dump(*pages: str) -> bytes:
    return (HEAD + "".join(pages) + "</mediawiki>\n").encode()


def read(path, reader=None, **rules):
    reader = reader or DocumentReader(TextRules(**rules))
    return [text for source in find_sources([str(path)]) for text in reader.read(source)]


PAGES = (
    page("First", "'''One''' & <b>two</b>."),
    page("Talk:First", "chatter", ns=1),
    page("Old name", "#WEITERLEITUNG [[First]]", inside='<redirect title="First" />'),
    page("Older name", "#redirect [[First]]"),
    page("Module", "return {}", model="Scribunto"),
    page("第二", "中文 [[Bild&Ton:x.jpg|thumb|a picture]][[Kategorie:Alle]]", ns=None),
)


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("d.xml", bytes),
        ("d.xml.gz", gzip.compress),
        ("d-pages-articles-multistream.xml.bz2", lambda data: b"".join(bz2.compress(part) for part in parts(data))),
        ("d-pages-articles1.xml-p1p41242.bz2", bz2.compress),
        ("d.txt.xz", lzma.compress),
    ],
)
def test_articles_are_read_and_all_else_is_counted(tmp_path, name, pack):
    (tmp_path / name).write_bytes(pack(dump(*PAGES)))
    reader = DocumentReader()
    first, second = read(tmp_path, reader)
    assert isinstance(first, WikiPage)
    assert first == "'''One''' & <b>two</b>."
    assert first.plain() == "First\n\nOne & two."
    assert second.plain() == "第二\n\n中文"
    assert reader.changed == {"pages_of_other_namespaces": 1, "redirects": 2, "pages_not_wikitext": 1}


def parts(data: bytes) -> list[bytes]:
    return [data[start : start + 700] for start in range(0, len(data), 700)]


def test_of_several_revisions_the_last_counts(tmp_path):
    history = page("A", "old").replace("</page>", page("", "new").split("</id>", 1)[1])
    (tmp_path / "a.xml").write_bytes(dump(history))
    assert read(tmp_path / "a.xml") == ["new"]


def test_a_page_of_many_megabytes_is_read_in_its_size_and_refused_above_the_limit(tmp_path):
    long = page("Long", "Words and words. " * 80_000)
    (tmp_path / "a.xml.bz2").write_bytes(bz2.compress(dump(page("A", "short"), long, page("Z", "end"))))
    tracemalloc.start()
    texts = read(tmp_path / "a.xml.bz2")
    held = sum(map(len, texts))
    assert tracemalloc.get_traced_memory()[1] < 4 * held
    tracemalloc.stop()
    assert [len(text) for text in texts] == [5, 1_360_000, 3]
    with pytest.raises(ValueError, match=r"a\.xml\.bz2: the page 'Long' is longer than 1,000,000 .* --max_document_mb"):
        read(tmp_path / "a.xml.bz2", max_document_bytes=1_000_000)


BOMB = '<!DOCTYPE mediawiki [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>\n'


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (BOMB.encode() + dump(page("A", "x")), "declares a document type"),
        (b'<?xml version="1.0"?>\n' + BOMB.encode() + dump(page("A", "x")), "declares a document type"),
        (dump(page("A", "x")).replace(b">x<", b">&undefined;<"), "line 11 is damaged XML"),
        (dump(page("A", "x"))[:-20], "damaged XML, or its end is missing"),
        (dump(page("A", "x")) + b"more", "damaged XML"),
        (dump(page("A", "x")).replace(b"</text>", b"</txt>"), "line 11 is damaged XML"),
        (dump("<page>" * 100), "more than 32 deep"),
        (dump(f'<page {"a" * 3_000_000}="1"/>'), "has a tag of more than"),
        (dump(page("t" * 100_000, "x")), "the title of a page has over"),
    ],
)
def test_what_no_dump_holds_is_refused_by_name(tmp_path, data, message):
    (tmp_path / "a.xml").write_bytes(data)
    with pytest.raises(ValueError, match=rf"a\.xml.* {message}"):
        read(tmp_path / "a.xml")


@pytest.mark.parametrize("before", [0, READ_BYTES - 500])
def test_bytes_that_are_not_utf8_stop_with_their_place_or_are_replaced_and_counted(tmp_path, before):
    data = dump(page("A", "x" * before), page("B", "cafX")).replace(b"cafX", b"caf\xe9")
    (tmp_path / "a.xml").write_bytes(data)
    with pytest.raises(ValueError, match=rf"byte {data.index(b'caf') + 3} is not UTF-8"):
        read(tmp_path / "a.xml")
    reader = DocumentReader(TextRules(on_bad_text="replace"))
    assert read(tmp_path / "a.xml", reader)[1] == "caf\ufffd"
    assert reader.changed["invalid_utf8_replaced"] == 1


def test_a_character_that_a_read_cuts_is_whole(tmp_path):
    for shift in range(4):
        text = "x" * shift + "中" * READ_BYTES
        (tmp_path / "a.xml").write_bytes(dump(page("A", text)))
        assert read(tmp_path / "a.xml") == [text]


def test_without_the_package_for_it_a_dump_is_refused_with_its_name(tmp_path, monkeypatch):
    (tmp_path / "a.xml").write_bytes(dump(*PAGES))
    monkeypatch.setattr("shards.text.dumps.markup.find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=r"needs the package mwparserfromhell: pip install mwparserfromhell .*'wikitext'"
    ):
        read(tmp_path / "a.xml")
