"""Sentences of tagged words, from rows with a list of words and a list of tags: JSON lines, parquet, `datasets`."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from finetuning.examples.label_cells import MINUS_ONE, read_label
from finetuning.recipes.texts.labelled_text import ID_COLUMNS, SPLIT_NAMES
from runtime.files.schemas import shown
from runtime.plurals import counted

logger = logging.getLogger(__name__)

TOKEN_COLUMNS = ("tokens", "words")
DOCUMENT_COLUMNS = ("document_id", "doc_id", "document")
TAG_COLUMNS = ("tags", "ner_tags", "pos_tags", "upos", "labels")
NO_TAG = (MINUS_ONE, "-100")  # what `datasets` and `transformers` write for a word without a tag


@dataclass(frozen=True)
class TaggedSentence:
    """Words with their tags (None: not known); `document` is what sentences of one document share."""

    id: str
    words: tuple[str, ...]
    tags: tuple[str | None, ...]
    document: str | None = None

    @property
    def label(self) -> tuple[str | None, ...] | None:
        """The tags; None where no word has one."""
        return self.tags if any(tag is not None for tag in self.tags) else None

    @property
    def text(self) -> str:
        """The words with blanks between them."""
        return " ".join(self.words)


Splits = dict[str, list[TaggedSentence]]


def sentences_from_rows(
    rows: Sequence[Mapping[str, Any]], source: str, tag_column: str | None = None
) -> list[TaggedSentence]:
    """Rows with a list of words and a list of tags, which may be missing -> sentences; ids default to row numbers.

    A column `document_id`, `doc_id` or `document` names the document of each row.

    Raises ValueError, naming `source` and the row, for missing columns, lists of different lengths, and for a value
    that is not a word or not a tag.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    words_in = next((name for name in TOKEN_COLUMNS if name in names), None)
    if words_in is None:
        raise ValueError(
            f"{source}: no column of words among {', '.join(map(str, names))}; call it {' or '.join(TOKEN_COLUMNS)}; "
            "a file with one word per line is named .conll (or .conllu)"
        )
    if tag_column is not None and tag_column not in names:
        raise ValueError(f"{source}: no column {tag_column!r}; the columns are {', '.join(map(str, names))}")
    known = [name for name in TAG_COLUMNS if name in names]
    tags_in = tag_column or next(iter(known), None)
    if tag_column is None and len(known) > 1:
        others = ", ".join(known[1:])
        logger.warning("%s: tags are read from %r; there are also %s (--tag_column)", source, tags_in, others)
    id_in = next((name for name in ID_COLUMNS if name in names), None)
    document_in = next((name for name in DOCUMENT_COLUMNS if name in names), None)
    sentences = []
    for number, row in enumerate(rows):
        where = f"{source}, row {number}"
        words = _list(row.get(words_in), words_in, where)
        for word in words:
            if not isinstance(word, str):
                raise ValueError(f"{where}: a word of {words_in!r} is {shown(word)}; every word must be text")
        given = None if tags_in is None else row.get(tags_in)
        tags = [None] * len(words) if given is None else _list(given, str(tags_in), where)
        if len(tags) != len(words):
            raise ValueError(
                f"{where}: {counted(len(words), 'word')} but {counted(len(tags), 'tag')}; give each word its tag"
            )
        name = number if id_in is None else row.get(id_in, number)
        document = None if document_in is None else _document(row.get(document_in), document_in, where)
        sentences.append(TaggedSentence(str(name), tuple(words), tuple(_tag(tag, where) for tag in tags), document))
    if len({sentence.document for sentence in sentences}) == 1:  # the only document groups nothing
        sentences = [replace(sentence, document=None) for sentence in sentences]
    return with_unique_ids(sentences, source)


def with_unique_ids(sentences: Sequence[TaggedSentence], source: str) -> list[TaggedSentence]:
    """The sentences; ValueError listing the ids that occur more than once."""
    twice = [name for name, count in Counter(sentence.id for sentence in sentences).items() if count > 1]
    if twice:
        raise ValueError(
            f"{source}: {counted(len(twice), 'id')} given more than once, the first: "
            f"{', '.join(twice[:5])}; make them unique"
        )
    return list(sentences)


def dataset_splits(rows: Mapping[str, Sequence[Any]], asked: str, tag_column: str | None = None) -> Splits:
    """Sentences of the splits train, validation and test of a data set, under any of their usual names."""
    named = {SPLIT_NAMES[split]: split for split in SPLIT_NAMES if split in rows}
    if not named:
        raise ValueError(f"{asked} has none of the splits train, validation, test: {sorted(rows)}")
    return {name: sentences_from_rows(rows[split], f"{asked} {split}", tag_column) for name, split in named.items()}


def has_tags(sentences: Sequence[TaggedSentence], split: str) -> bool:
    """Whether a split is tagged; ValueError for one that must be and is not, and for a test set of which a part is."""
    worded = [sentence for sentence in sentences if sentence.words]
    without = [sentence.id for sentence in worded if sentence.label is None]
    if not without:
        return bool(worded)
    if len(without) < len(worded) or not split.startswith("test"):
        raise ValueError(
            f"the {split} set has {len(without)} of {len(worded)} sentences without a tag, the first: {without[0]}; "
            "tag all (or remove those), or, in a test set, none; rows keep their tags in one of the columns "
            f"{', '.join(TAG_COLUMNS)}, or in that of --tag_column"
        )
    return False


def tag_names(sentences: Iterable[TaggedSentence]) -> list[str]:
    """Every tag that occurs, the most frequent first, those of equal frequency in alphabetical order."""
    counts = Counter(tag for sentence in sentences for tag in sentence.tags if tag is not None)
    return sorted(counts, key=lambda tag: (-counts[tag], tag))


def _list(value: Any, column: str, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{where}: {column!r} is {shown(value)}; a list is needed, one entry per word")
    return value


def _document(value: Any, column: str, where: str) -> str | None:
    if value is not None and (not isinstance(value, str | int) or isinstance(value, bool)):
        raise ValueError(f"{where}: {column!r} is {shown(value)}; name a document by text or a whole number")
    return None if value in (None, "") else f"id {value}"


def _tag(value: Any, where: str) -> str | None:
    name = read_label(value, where)
    return None if name in NO_TAG else name
