"""Documents in a markup: read as they were published; a worker process takes their text out, the slow part."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import Any

# The time that the libraries take for a tag or template that is never closed grows with all that follows it.
MOST_UNCLOSED_CHARACTERS = 20_000_000  # times open: some seconds
DEEPEST_TEMPLATE = 40  # what mwparserfromhell follows
DEEPEST_ELEMENT = 2_000  # of HTML
WIKI_MARK = re.compile(
    r"(?P<open>\{\{+|\[\[|\{\||<!--|\[(?=\w*:?//))|(?P<close>\}\}+|\]\]?|\|\}(?!\})|-->)"
    r"|<(?P<end>/?)(?P<tag>[a-zA-Z]\w*)[^<>]*?(?P<empty>/?)>"
)
OPENED_BY = {mark: mark for mark in ("{|", "[[", "[", "<!--")} | {"|}": "{|", "]]": "[[", "]": "[", "-->": "<!--"}
HTML_TAG = re.compile(r"<(/?)([a-zA-Z][^\s/>]*)")
NEVER_CLOSED = frozenset(
    ("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr")
)
OFTEN_OPEN = NEVER_CLOSED | frozenset(
    ("p", "li", "dt", "dd", "td", "th", "tr", "option", "thead", "tbody", "tfoot", "colgroup", "optgroup")
)

LEFT_OUT_TAGS = frozenset(
    (
        *("ce", "chem", "gallery", "graph", "hiero", "imagemap", "includeonly", "indicator", "mapframe"),
        *("maplink", "math", "ref", "references", "score", "section", "source", "style", "syntaxhighlight"),
        *("table", "templatedata", "templatestyles", "timeline"),
    )
)
BLOCK_TAGS = frozenset(["blockquote", "br", "center", "dd", "div", "dt", "hr", "li", "ol", "p", "poem", "pre", "ul"])
MAGIC_WORD = re.compile(r"__[A-Z]{3,}__")
QUOTES = re.compile("'{2,5}")  # of bold and italics
SPACES = re.compile("[ \t]{2,}")
EMPTY_BRACKETS = re.compile(r" \([\s,;:]*\)| ?（[\s,;:，；、]*）")  # around what only templates said; not of f()
BRACKET_START = re.compile(r"([(（])[\s,;，；、]+")
LANGUAGE_PREFIX = re.compile(r"[a-z]{2,3}(-[a-z]+)*")
HEADING = "\0"  # marks a line as a heading while a page is put together


class Markup(str, ABC):
    """A document in a markup; its characters are the markup, `plain` is its text."""

    def plain(self) -> str | None:
        """The text; None where the markup is malformed beyond repair."""
        try:
            return self.extracted()
        except (MemoryError, ImportError):
            raise
        except Exception:  # whatever a library raises on what people write
            return None

    @abstractmethod
    def extracted(self) -> str | None:
        """As `plain`; raises whatever the library raises."""


class HtmlPage(Markup):
    """An HTML page; its text is the main content, by resiliparse."""

    def extracted(self) -> str | None:
        """The main content: without menus, forms, scripts and what else stands around it."""
        from resiliparse.extract.html2text import extract_plain_text

        if is_deep(self):
            return None
        return str(extract_plain_text(str(self), main_content=True, list_bullets=False, alt_texts=False))


class WikiPage(Markup):
    """A page of a wiki, in wikitext; `left_out` are the lower-case prefixes of links to files and categories."""

    def __new__(cls, text: str, title: str = "", left_out: frozenset[str] = frozenset()) -> WikiPage:
        page = super().__new__(cls, text)
        page.page_title, page.left_out = title, left_out
        return page

    page_title: str
    left_out: frozenset[str]

    def extracted(self) -> str | None:
        """The title, and the text by mwparserfromhell: "" where nothing but the title is left."""
        import mwparserfromhell

        if unclosed(self) * len(self) > MOST_UNCLOSED_CHARACTERS:
            return None
        code = mwparserfromhell.parse(str(self).replace(HEADING, ""), skip_style_tags=True)
        text = wiki_lines("".join(wiki_text(code, self.left_out)))
        return f"{self.page_title}\n\n{text}" if text else ""


def plain_text(document: str, dropped: Counter[str]) -> str | None:
    """A document's text, or None and a count in `dropped` where its markup is malformed."""
    if not isinstance(document, Markup):
        return document
    text = document.plain()
    dropped["malformed_markup"] += text is None
    return text


def require_package(module: str, extra: str, why: str) -> None:
    """ValueError, with the remedy, where a package is not installed that only some inputs or options need."""
    if find_spec(module) is None:
        package = module.replace("_", "-")
        raise ValueError(f"{why} needs the package {package}: pip install {package} (the extra {extra!r} names it)")


def is_deep(html: str) -> bool:
    """Whether more elements are open inside each other than any page has; those that need no end tag do not count."""
    if html.count("<") < DEEPEST_ELEMENT:
        return False
    depth = 0
    for end, tag in HTML_TAG.findall(html):
        if tag.lower() not in OFTEN_OPEN:
            depth = max(0, depth - 1) if end else depth + 1
            if depth > DEEPEST_ELEMENT:
                return True
    return False


def unclosed(text: str) -> int:
    """How many templates, links, tables, comments and tags of a page are never closed, or too deep to be read."""
    depth, deepest = Counter[str](), Counter[str]()
    for match in WIKI_MARK.finditer(text):
        tag = match["tag"]
        if tag:
            kind, step = tag.lower(), -1 if match["end"] else 1
            if match["empty"] or (kind in OFTEN_OPEN and kind != "p"):
                continue
        else:
            mark = match["open"] or match["close"]
            kind = OPENED_BY.get(mark, "{{")
            if mark == "]]" and not depth["[["]:
                kind = "["
            step = len(mark) // 2 if kind == "{{" else 1
            step = step if match["open"] else -step
        depth[kind] = max(0, depth[kind] + step)
        deepest[kind] = max(deepest[kind], depth[kind])
    return depth.total() + sum(max(0, most - DEEPEST_TEMPLATE) for most in deepest.values())


def wiki_text(code: Any, left_out: frozenset[str]) -> Iterator[str]:
    """The text of parsed wikitext: without templates, tables, references, files, categories and comments."""
    from mwparserfromhell import nodes

    for node in code.nodes:
        if isinstance(node, nodes.Text):
            yield QUOTES.sub("", node.value)
        elif isinstance(node, nodes.Wikilink):
            yield from link_text(node, left_out)
        elif isinstance(node, nodes.Tag):
            yield from tag_text(node, left_out)
        elif isinstance(node, nodes.Heading):
            yield f"\n{HEADING}{''.join(wiki_text(node.title, left_out)).strip()}\n"
        elif isinstance(node, nodes.HTMLEntity):
            yield entity_text(node)
        elif isinstance(node, nodes.ExternalLink) and node.brackets and node.title is not None:
            yield from wiki_text(node.title, left_out)
        elif isinstance(node, nodes.ExternalLink) and not node.brackets:
            yield str(node.url)


def link_text(link: Any, left_out: frozenset[str]) -> Iterator[str]:
    """What a reader sees of a link; nothing of files, categories and the same page in other languages."""
    title = str(link.title).strip()
    prefix, colon, _ = title.partition(":")
    if colon and prefix.strip().lower().replace("_", " ") in left_out:
        return
    if link.text is not None:
        yield from wiki_text(link.text, left_out)
    elif not (colon and LANGUAGE_PREFIX.fullmatch(prefix)):
        yield title.removeprefix(":")


def tag_text(tag: Any, left_out: frozenset[str]) -> Iterator[str]:
    """The text in a tag, on lines of its own if it is a block."""
    name = str(tag.tag).strip().lower()
    if name in LEFT_OUT_TAGS:
        return
    edge = "\n" if name in BLOCK_TAGS and not tag.wiki_markup else ""
    yield edge
    if tag.contents is not None and name not in ("br", "hr"):
        yield str(tag.contents) if name == "nowiki" else "".join(wiki_text(tag.contents, left_out))
        yield edge


def entity_text(entity: Any) -> str:
    """The character of an entity, or the entity itself where there is none."""
    try:
        return str(entity.normalize())
    except (ValueError, OverflowError):
        return str(entity)


def wiki_lines(text: str) -> str:
    """The lines of a page: headings only where text follows, no traces of templates, at most one blank line."""
    text = SPACES.sub(" ", BRACKET_START.sub(r"\1", EMPTY_BRACKETS.sub("", MAGIC_WORD.sub("", text))))
    lines: list[str] = []
    headings: list[str] = []
    for line in (part.strip() for part in text.split("\n")):
        if line.startswith(HEADING):
            headings = [line[1:].replace(HEADING, "")]
        elif line:
            lines.extend(part for heading in headings for part in ("", heading, ""))
            lines.append(line)
            headings = []
        elif lines and lines[-1] and not headings:
            lines.append("")
    return "\n".join(without_blanks(lines)).strip()


def without_blanks(lines: Iterable[str]) -> Iterator[str]:
    """Lines without a blank one after another blank one."""
    before = ""
    for line in lines:
        if line or before:
            yield line
        before = line
