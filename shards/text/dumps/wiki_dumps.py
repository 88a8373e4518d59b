"""MediaWiki dumps: the pages of an XML export, in its order and in bounded memory, as wikitext."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from xml.parsers import expat

from runtime.files.foreign import reason_of
from runtime.files.schemas import shown
from shards.text.dumps.markup import WikiPage, require_package
from shards.text.plain_text import TextRules

READ_BYTES = 1 << 16
LONGEST_TOKEN = 1 << 20  # bytes of a tag: expat keeps it whole
LONGEST_FIELD = 1 << 16  # characters of all that is not a page's text
DEEPEST = 32
FILES, CATEGORIES, MEDIA = "6", "14", "-2"  # numbers of namespaces
# Links to files and categories: in every wiki, and earlier names that its list of namespaces does not have.
FILE_PREFIXES = frozenset(
    (
        *("file", "image", "media", "category", "bild", "datei", "fichier", "archivo", "imagen", "ficheiro"),
        *("imagem", "immagine", "bestand", "afbeelding", "plik", "grafika", "файл", "изображение", "категория"),
        *("файли", "ファイル", "画像", "カテゴリ", "文件", "檔案", "图像", "圖像", "分类", "分類"),
    )
)
REDIRECT = "#redirect"
FIELDS = frozenset(
    ("title", "ns", "revision/model", "revision/format", "revision/text", "redirect", "siteinfo/namespaces/namespace")
)
REMEDY = "fetch or write it again"


def wiki_pages(stream: io.BufferedReader, name: str, rules: TextRules) -> Iterator[str]:
    """Articles of a dump as `WikiPage`: pages of namespace 0, in their last revision there.

    Redirects, pages of other namespaces and those that are not wikitext are counted. Raises ValueError naming the place
    of damage, an end before the end, a document type (its entities could expand without bound) and a page that is too
    long.
    """
    require_package("mwparserfromhell", "wikitext", f"{name} is a MediaWiki dump: to take the text out of its wikitext")
    parser = DumpParser(name, rules)
    for text in characters(stream, name, rules):
        parser.feed(text)
        yield from parser.take()
    parser.feed("", last=True)
    yield from parser.take()


def characters(stream: io.BufferedReader, name: str, rules: TextRules) -> Iterator[str]:
    """A UTF-8 stream as text, part by part; bytes that are not UTF-8 as the rules decide."""
    decoder = codecs.getincrementaldecoder("utf-8")("strict" if rules.on_bad_text == "stop" else "replace")
    offset, data = 0, b"\0"
    while data:
        data = stream.read(READ_BYTES)
        before = len(decoder.getstate()[0])
        try:
            text = decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            place = offset - before + error.start
            raise ValueError(f"{name}: byte {place} is not UTF-8 ({error.reason}): {rules.utf8_remedy}") from error
        if rules.on_bad_text == "replace" and (replaced := text.count("\ufffd") - data.count(b"\xef\xbf\xbd")) > 0:
            rules.changed["invalid_utf8_replaced"] += 1
            rules.replaced_characters += replaced
        offset += len(data)
        yield text


class DumpParser:
    """Feeds an XML export to expat and collects its articles."""

    def __init__(self, name: str, rules: TextRules) -> None:
        self.name, self.rules = name, rules
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.CharacterDataHandler = self.add
        self.parser.StartDoctypeDeclHandler = self.refuse_doctype
        self.path: list[str] = []
        self.fields: dict[str, str] = {}
        self.parts: list[str] | None = None  # of the field that is open
        self.size = 0
        self.fed = 0
        self.namespace = ""
        self.left_out = FILE_PREFIXES
        self.pages: list[WikiPage] = []

    def feed(self, text: str, *, last: bool = False) -> None:
        """Parse a part of the dump; ValueError where it is not what an export holds."""
        self.fed += len(text.encode())
        try:
            self.parser.Parse(text, last)
        except expat.ExpatError as error:
            place = f"{self.name}: line {error.lineno}"
            raise ValueError(f"{place} is damaged XML, or its end is missing ({reason_of(error)}): {REMEDY}") from error
        if self.fed - self.parser.CurrentByteIndex > LONGEST_TOKEN and not last:
            raise ValueError(
                f"{self.name}: line {self.parser.CurrentLineNumber} has a tag of more than {LONGEST_TOKEN:,} bytes, "
                f"as no dump has: {REMEDY}"
            )

    def take(self) -> list[WikiPage]:
        """The articles since the last call."""
        pages, self.pages = self.pages, []
        return pages

    def refuse_doctype(self, *declared: object) -> None:
        """ValueError: MediaWiki writes no document type, whose entities can expand without bound."""
        raise ValueError(f"{self.name} declares a document type, as no MediaWiki dump does: leave it out")

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """A tag is opened."""
        if not self.path and tag != "mediawiki":
            raise ValueError(
                f"{self.name} is XML of <{shown(tag)}>, not a MediaWiki dump: take the text out of it first"
            )
        if len(self.path) >= DEEPEST:
            raise ValueError(f"{self.name}: tags are more than {DEEPEST} deep in each other, as in no dump: {REMEDY}")
        self.path.append(tag)
        if tag == "page":
            self.fields = {}
        elif tag == "namespace":
            self.namespace = attributes.get("key", "")
        elif tag == "redirect":
            self.fields["redirect"] = "yes"
        if self.place() in FIELDS:
            self.parts, self.size = [], 0

    def place(self) -> str:
        """Where the parser is: below a page, or below the root."""
        return "/".join(self.path[2:] if self.path[1:2] == ["page"] else self.path[1:])

    def add(self, text: str) -> None:
        """Characters inside a tag."""
        if self.parts is None:
            return
        self.size += len(text)
        if self.place() != "revision/text":
            if self.size > LONGEST_FIELD:
                field = self.path[-1]
                raise ValueError(f"{self.name}: the {field} of a page has over {LONGEST_FIELD:,} characters: {REMEDY}")
        elif self.size > self.rules.max_document_bytes:
            title, most = shown(self.fields.get("title", "?")), f"{self.rules.max_document_bytes:,} characters"
            raise ValueError(f"{self.name}: the page {title} is longer than {most}: {self.rules.size_remedy}")
        self.parts.append(text)

    def end(self, tag: str) -> None:
        """A tag is closed."""
        place = self.place()
        if self.parts is not None and place in FIELDS:
            text, self.parts = "".join(self.parts), None
            if tag == "namespace":
                if self.namespace in (FILES, CATEGORIES, MEDIA) and text.strip():
                    self.left_out |= {text.strip().lower()}
            elif tag != "redirect":
                self.fields[tag] = text
        self.path.pop()
        if tag == "page" and len(self.path) == 1:
            self.finish_page()

    def finish_page(self) -> None:
        """Keep a page, or count why it is none of the corpus."""
        text, changed = self.fields.get("text", ""), self.rules.changed
        if self.fields.get("ns", "0").strip() != "0":
            changed["pages_of_other_namespaces"] += 1
        elif "redirect" in self.fields or text[:40].lstrip().lower().startswith(REDIRECT):
            changed["redirects"] += 1
        elif self.fields.get("model", "wikitext").strip() != "wikitext":
            changed["pages_not_wikitext"] += 1
        else:
            self.pages.append(WikiPage(text, self.fields.get("title", "").strip(), self.left_out))
        self.fields = {}
