"""Labelled text, read from all common formats: tables, JSON, folders, tar archives, `datasets`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from finetuning.examples.label_cells import MINUS_ONE, class_of_number, is_integer, read_label
from finetuning.examples.record_files import OnBadText, file_format, read_records
from finetuning.recipes.texts.labelled_folders import is_archive, read_archive, read_folder
from runtime.files.schemas import listed, shown

ID_COLUMNS = ("id", "idx", "index", "guid", "example_id", "qid")
TEXT_COLUMNS = ("text", "sentence", "text_a", "sentence1", "question1", "premise", "question", "review", "content")
PAIR_COLUMNS = ("text_pair", "text_b", "sentence2", "question2", "hypothesis")
LABEL_COLUMNS = ("label", "labels", "gold_label", "score", "class", "category", "is_duplicate", "sentiment")
SPLIT_NAMES = {"train": "train", "dev": "validation", "val": "validation", "valid": "validation", "test": "test"}
SPLIT_NAMES |= {"validation": "validation", "training": "train"}


@dataclass(frozen=True)
class LabelledText:
    """One example: a text or a pair of texts; `label` is the name or number as in the file, None if unknown."""

    example_id: str
    text: str
    text_pair: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class Columns:
    """The names of the columns; None: the first of the usual names that the file has."""

    text: str | None = None
    text_pair: str | None = None
    label: str | None = None
    example_id: str | None = None


def read_examples(
    path: str | Path, *, columns: Columns = Columns(), on_bad_text: OnBadText = "stop"
) -> list[LabelledText]:
    """The examples of one split: a table, a JSON file, or a folder (or tar) with one folder of text files per label.

    Raises ValueError, naming the file, for anything unreadable, for missing columns, and for a file without examples.
    """
    where = Path(path)
    if where.is_dir() or is_archive(where):
        splits = read_splits(where, on_bad_text=on_bad_text, columns=columns)
        if len(splits) != 1:
            raise ValueError(
                f"{where}: holds the splits {', '.join(splits)}, and one is needed: name that split's file or folder "
                "(finetuning/classification.py trains on all of them with --data)"
            )
        return next(iter(splits.values()))
    records = read_records(where, on_bad_text=on_bad_text)
    return from_records(records, columns=columns, source=str(where))


def read_splits(
    path: str | Path, *, on_bad_text: OnBadText = "stop", columns: Columns = Columns()
) -> dict[str, list[LabelledText]]:
    """The splits of a folder or tar: SPLIT/LABEL/*.txt as in aclImdb, LABEL/*.txt, or SPLIT.csv.

    Splits are train, validation and test. A folder of labels without splits counts as train; a label folder named
    `unsup` holds no label and is left out.
    """
    where = Path(path)
    if not where.exists():
        raise ValueError(f"{where}: no such folder or archive; check the path")
    if where.is_dir():
        tables = tables_in(where)
        if tables:
            return {
                name: read_examples(file, columns=columns, on_bad_text=on_bad_text) for name, file in tables.items()
            }
        texts = read_folder(where, on_bad_text=on_bad_text)
    elif is_archive(where):
        texts = read_archive(where, on_bad_text=on_bad_text)
    else:
        raise ValueError(f"{where}: neither a folder nor a tar archive; give one, or name files with --train_file")
    labelled = sorted(item for item in texts if item[0][-2].lower() not in SPLIT_NAMES)
    depth = max((len(parts) for parts, _ in labelled), default=0)
    splits: dict[str, list[LabelledText]] = {}
    for parts, text in labelled:
        if len(parts) < depth:  # a README.txt or a list of addresses next to the label folders
            continue
        split = next((SPLIT_NAMES[part.lower()] for part in parts[:-2] if part.lower() in SPLIT_NAMES), "train")
        label = read_label(parts[-2], str(where)) or parts[-2]
        example = LabelledText("/".join(parts).removesuffix(".txt"), text, label=label)
        splits.setdefault(split, []).append(example)
    if not splits:
        raise ValueError(
            f"{where}: no SPLIT/LABEL/*.txt, no LABEL/*.txt and no table of a split in it (such as train.csv or "
            "train.json); arrange the texts in one of these layouts"
        )
    return splits


def tables_in(directory: Path) -> dict[str, Path]:
    """The tables of a folder that are named after splits, by split."""
    return {name: file for file in sorted(directory.iterdir()) if (name := split_of(file)) and file_format(file)}


def has_no_columns(path: str | Path) -> bool:
    """Whether the examples there are text files, one per example: an archive, or a folder without tables."""
    where = Path(path)
    return is_archive(where) or (where.is_dir() and not tables_in(where))


def split_of(file: Path) -> str | None:
    """train, validation or test if the file's stem says so, else None."""
    return SPLIT_NAMES.get(file.name.split(".")[0].lower())


def from_records(
    records: Sequence[Mapping[str, Any]],
    *,
    columns: Columns = Columns(),
    source: str,
    labels: Sequence[str] | None = None,
    minus_one_is_unknown: bool = False,
) -> list[LabelledText]:
    """Rows -> examples. `labels` gives the names of integer labels; null, "", NaN, or -1 in every row: label unknown.

    With `minus_one_is_unknown`, -1 among other labels is unknown too. Without an id column the row number is the id.
    Raises ValueError for a missing column, a text that is not a string, several labels in one cell, and a number that
    is not in `labels`.
    """
    names = list(dict.fromkeys(name for record in records for name in record))  # not every JSON row has all of them
    text = _column(names, columns.text, TEXT_COLUMNS, source, "text")
    pair = _column(names, columns.text_pair, PAIR_COLUMNS, source, None if columns.text_pair is None else "text pair")
    label = _column(names, columns.label, LABEL_COLUMNS, source, None if columns.label is None else "label")
    key = _column(names, columns.example_id, ID_COLUMNS, source, None if columns.example_id is None else "id")
    if pair == text:
        pair = None
    given_labels = [
        None if label is None else read_label(record.get(label), f"{source}, row {number}")
        for number, record in enumerate(records)
    ]
    # Test sets that hide their labels write -1 everywhere; among other labels -1 is a class, unless it cannot be one.
    hidden = minus_one_is_unknown or all(label_given in (None, MINUS_ONE) for label_given in given_labels)
    examples = []
    for number, (record, name) in enumerate(zip(records, given_labels, strict=True)):
        where = f"{source}, row {number}"
        if hidden and name == MINUS_ONE:
            name = None
        examples.append(
            LabelledText(
                example_id=str(number if key is None else record.get(key, number)),
                text=_text(record.get(str(text)), where),
                text_pair=None if pair is None else _text(record.get(pair), where),
                label=name if labels is None else class_of_number(name, labels, where),
            )
        )
    return examples


def label_names(examples: Iterable[LabelledText]) -> list[str]:
    """Every label that occurs, numbers in numeric order, then names in alphabetical order; its index is its class."""
    labels = {example.label for example in examples if example.label is not None}
    return sorted(labels, key=lambda name: (not is_integer(name), int(name) if is_integer(name) else 0, name))


def hold_out(examples: Sequence[LabelledText], fraction: float) -> tuple[list[LabelledText], list[LabelledText]]:
    """(rest, held out): a share chosen by a hash of the text, so that copies fall on the same side.

    Of pairs by a hash of the text that they may share, see `shared_text`. A label of which no example would be left
    keeps them all, since nothing could be learnt about it.
    """
    key = shared_text(examples)
    keys = [key(example) for example in examples]
    chosen = {text for text in keys if _share(text) < fraction}
    left = {example.label for text, example in zip(keys, examples, strict=True) if text not in chosen}
    if left:
        chosen -= {text for text, example in zip(keys, examples, strict=True) if example.label not in left}
    rest = [example for text, example in zip(keys, examples, strict=True) if text not in chosen]
    held = [example for text, example in zip(keys, examples, strict=True) if text in chosen]
    if not rest or not held:
        raise ValueError(
            f"a fraction of {fraction} of {len(examples)} examples leaves one side empty: give a validation set, "
            "another --validation_fraction, or several examples of each label"
        )
    return rest, held


def _share(text: str) -> float:
    """A number from 0 up to 1 that the text decides."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def content(example: LabelledText) -> str:
    """The text, or both texts of a pair, exactly as they are."""
    return example.text if example.text_pair is None else f"{example.text}\x00{example.text_pair}"


def is_blank(example: LabelledText) -> bool:
    """Whether the text, or one of a pair, is empty, white space, or NaN as pandas writes an empty cell."""
    texts = (example.text, "-" if example.text_pair is None else example.text_pair)
    return any(text.strip().lower() in ("", "nan") for text in texts)


def content_key(example: LabelledText) -> str:
    """The key by which copies are recognised: the text and the pair, ignoring blanks and case."""
    return "\x00".join(" ".join(part.split()).casefold() for part in (example.text, example.text_pair or ""))


def shared_text(examples: Iterable[LabelledText]) -> Callable[[LabelledText], str]:
    """The key of what examples have in common: their text; of pairs the text that is longer on average.

    That is the premise of several hypotheses, or the passage of several questions. Blanks and case are ignored.
    """
    pairs = [example for example in examples if example.text_pair is not None]
    by_second = sum(len(example.text_pair or "") - len(example.text) for example in pairs) > 0

    def key(example: LabelledText) -> str:
        if example.text_pair is None:
            return content_key(example)
        return " ".join((example.text_pair if by_second else example.text).split()).casefold()

    return key


def with_prefix(examples: Iterable[LabelledText], prefix: str) -> list[LabelledText]:
    """The same examples with `prefix` in front of their ids (two files that both count from 0)."""
    return [replace(example, example_id=f"{prefix}{example.example_id}") for example in examples]


def _column(
    names: Sequence[str], asked: str | None, usual: Sequence[str], source: str, needed: str | None
) -> str | None:
    if asked is not None:
        if asked not in names:
            raise ValueError(f"{source}: no column {asked!r}; the columns are {listed(names)}")
        return asked
    column = next((name for name in usual if name in names), None)
    if column is None and needed is not None:
        raise ValueError(
            f"{source}: no {needed} column among {listed(names)}; "
            f"name it with --{needed.replace(' ', '_')}_column, or give the file a header line"
        )
    return column


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where}: the text is {shown(value)}; a string is needed")
    return value
