"""Files of tagged sentences: CoNLL-U, the columns of CoNLL-2003, and rows with a list of words and a list of tags."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from finetuning.examples.record_files import FORMATS, OnBadText, file_format, numbered_lines, read_records
from finetuning.recipes.tokens.sentences import TaggedSentence, sentences_from_rows, with_unique_ids
from runtime.plurals import counted
from shards.text.sources import name_suffix

CONLLU = ".conllu"
COLUMN_FORMATS = (".conll", ".bio", ".iob", ".iob2", ".txt")
CONLLU_COLUMNS = {"upos": 3, "xpos": 4}
CONLLU_WIDTH = 10
NOT_A_WORD = re.compile(r"\d+-\d+|\d+\.\d+")  # a range of words written as one, an empty node
COMMENT = re.compile(r"#\s*(newdoc(?:\s+id)?|sent_id)\s*(?:=\s*(.*))?$")
UNSPECIFIED = "_"
NEW_DOCUMENT = "-DOCSTART-"
NUMBERED = "number "
UNNAMED = "sentence "  # with its number: the id of a sentence without one, where others have ids


def is_tagged_file(path: str | Path) -> bool:
    """Whether the name is that of a format that this module reads, compressed or not."""
    return has_columns(path) or file_format(path) is not None


def has_columns(path: str | Path) -> bool:
    """Whether the name is that of a file with one word per line."""
    return name_suffix(Path(path).name) in (CONLLU, *COLUMN_FORMATS)


def read_tagged(
    path: str | Path, *, tag_column: str | None = None, on_bad_text: OnBadText = "stop"
) -> list[TaggedSentence]:
    """The sentences of a file, in its order; sentences without words are among them.

    `tag_column` is upos (the default) or xpos in CoNLL-U, in rows the column of the tags; a file with one word per line
    has its tag in the last column. Raises ValueError, naming file and line or row, for anything that the format
    does not allow, for ids that occur twice, and for a file without sentences.
    """
    where, suffix = Path(path), name_suffix(Path(path).name)
    reader = _Reader(where, on_bad_text)
    if suffix == CONLLU:
        sentences = reader.conllu(tag_column or "upos")
    elif suffix in COLUMN_FORMATS:
        sentences = reader.columns()
    elif file_format(where) is not None:
        return sentences_from_rows(read_records(where, on_bad_text=on_bad_text), str(where), tag_column)
    else:
        raise ValueError(
            f"{where}: unknown format; name the file {', '.join((CONLLU, *COLUMN_FORMATS, *FORMATS))}, with .gz, .xz, "
            ".bz2 or .zst if packed"
        )
    if not sentences:
        raise ValueError(f"{where}: no sentence in it; give a file with at least one word")
    if not reader.has_ids:
        sentences = [replace(sentence, id=sentence.id.removeprefix(UNNAMED)) for sentence in sentences]
    return with_unique_ids(_in_documents(sentences), str(where))


@dataclass
class _Open:
    """The sentence that is being read."""

    id: str | None = None
    words: list[str] = field(default_factory=list)
    tags: list[str | None] = field(default_factory=list)


class _Reader:
    """Reads one file, line by line; documents are numbered as they begin, and named where the file names them."""

    def __init__(self, path: Path, on_bad_text: OnBadText) -> None:
        self.path = path
        self.lines = numbered_lines(path, on_bad_text=on_bad_text)
        self.sentences: list[TaggedSentence] = []
        self.now, self.document, self.num_documents, self.has_ids = _Open(), None, 0, False

    document: str | None

    def conllu(self, tag_column: str) -> list[TaggedSentence]:
        """CoNLL-U: ten columns separated by tabs; `#` begins a comment, and a blank line ends a sentence."""
        if tag_column not in CONLLU_COLUMNS:
            raise ValueError(
                f"--tag_column {tag_column}: the columns of tags of {self.path} are {' and '.join(CONLLU_COLUMNS)}"
            )
        for number, line in self._checked_lines():
            if not line.strip():
                self._end()
            elif line.startswith("#"):
                self._comment(line)
            else:
                self._conllu_word(number, line.split("\t"), CONLLU_COLUMNS[tag_column])
        self._end()
        return self.sentences

    def columns(self) -> list[TaggedSentence]:
        """The word in the first column, its tag in the last (a single column: no tags), tabs or blanks between them."""
        width, first = 0, 0
        for number, line in self._checked_lines():
            cells = line.split("\t") if "\t" in line else re.split(" +", line.strip(" "))
            if not line.strip():
                self._end()
            elif cells[0] == NEW_DOCUMENT:
                self._end()
                self._begin_document(None)
            elif width and len(cells) != width:
                raise ValueError(
                    f"{self.path}: line {number} has {counted(len(cells), 'column')}, but line {first} has {width}: "
                    "correct the row, or remove it (this format has no comments)"
                )
            elif not width and len(cells) == CONLLU_WIDTH and cells[0].isdigit():
                raise ValueError(f"{self.path}: its rows are those of CoNLL-U: name it {CONLLU}")
            elif not cells[0] or not cells[-1]:
                raise ValueError(f"{self.path}: line {number} has no {'tag' if cells[0] else 'word'}: correct the row")
            else:
                width, first = len(cells), first or number
                self.now.words.append(cells[0])
                self.now.tags.append(cells[-1] if width > 1 else None)
        self._end()
        return self.sentences

    def _checked_lines(self) -> Iterator[tuple[int, str]]:
        for number, line in self.lines:
            if "\r" in line:
                raise ValueError(
                    f"{self.path}: line {number} has a carriage return within: end lines with a line feed "
                    "(tr '\\r' '\\n')"
                )
            yield number, line

    def _conllu_word(self, number: int, cells: list[str], column: int) -> None:
        if len(cells) != CONLLU_WIDTH:
            raise ValueError(
                f"{self.path}: line {number} has {counted(len(cells), 'column')}, {CONLLU_WIDTH} separated by tabs are "
                "needed: correct the row"
            )
        if NOT_A_WORD.fullmatch(cells[0]):
            return
        expected = len(self.now.words) + 1
        if cells[0] != str(expected):
            raise ValueError(
                f"{self.path}: line {number} is word {cells[0]!r} where word {expected} of its sentence is expected: "
                "is a line missing, or the blank line between two sentences?"
            )
        if not cells[1] or not cells[column]:
            raise ValueError(f"{self.path}: line {number} has no {'tag' if cells[1] else 'word'}: write _ for none")
        self.now.words.append(cells[1])
        self.now.tags.append(None if cells[column] == UNSPECIFIED else cells[column])

    def _comment(self, line: str) -> None:
        comment = COMMENT.match(line.strip())
        if comment is None:
            return
        value = (comment[2] or "").strip() or None
        if comment[1] == "sent_id":
            self.now.id = value
        else:
            self._begin_document(value)

    def _begin_document(self, name: str | None) -> None:
        self.num_documents += 1
        self.document = f"id {name}" if name else f"{NUMBERED}{self.num_documents}"

    def _end(self) -> None:
        if self.now.words or self.now.id is not None:
            self.has_ids |= self.now.id is not None
            name = f"{UNNAMED}{len(self.sentences)}" if self.now.id is None else self.now.id
            self.sentences.append(TaggedSentence(name, tuple(self.now.words), tuple(self.now.tags), self.document))
        self.now = _Open()


def _in_documents(sentences: list[TaggedSentence]) -> list[TaggedSentence]:
    """Name unnamed documents by a hash of their text: their numbers are the same in every file.

    The only document of a file groups nothing: its sentences count by themselves.
    """
    if len({sentence.document for sentence in sentences}) == 1:
        return [replace(sentence, document=None) for sentence in sentences]
    words: dict[str, list[str]] = {}
    for sentence in sentences:
        if sentence.document is not None and sentence.document.startswith(NUMBERED):
            words.setdefault(sentence.document, []).append(sentence.text)
    names = {name: hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16] for name, texts in words.items()}
    return [replace(sentence, document=names.get(str(sentence.document), sentence.document)) for sentence in sentences]
