"""Parsing of label cells: a class's name, a number or nothing, as written by people or pandas."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from runtime.files.schemas import listed, shown

MINUS_ONE = "-1"  # what `datasets` writes for an unknown label
NOTHING = frozenset({"", "nan", "<na>"})  # pandas writes the last two
DOUBTFUL = frozenset({"-", "?", "none", "null", "na", "n/a", "#n/a"})
EDGES = re.compile(r"^[\s\ufeff\u200b\u2060]+|[\s\ufeff\u200b\u2060]+$")  # blanks of any kind, zero-width ones included
LONGEST_NUMBER = 100  # characters
WHOLE_NUMBER = re.compile(r"(-?[0-9]+)\.0+")


def read_label(value: Any, where: str) -> str | None:
    """The label without blanks around it; None for null, an empty cell and NaN.

    A whole number is the same class however it is written (1, 1.0 and true): pandas writes 1.0 where a cell of the
    column is empty. Raises ValueError, naming `where`, for several labels or an infinite one.
    """
    if isinstance(value, (list, dict)):
        raise ValueError(f"{where}: the label is {shown(value)}; one name or number is needed, not several")
    if isinstance(value, float) and math.isinf(value):
        raise ValueError(f"{where}: the label is {shown(value)}; a name or a finite number is needed")
    if value is None:
        return None
    name = EDGES.sub("", str(int(value)) if isinstance(value, bool) else str(value))
    whole = WHOLE_NUMBER.fullmatch(name)
    if whole:
        return whole[1]
    return None if name.lower() in NOTHING else name


def class_of_number(label: str | None, names: Sequence[str], where: str) -> str | None:
    """The name of the class whose number the label is; a name stays as it is.

    Raises ValueError, naming `where` and the classes, for a number that no class has.
    """
    if label is None or label in names or not is_integer(label):
        return label
    if not 0 <= int(label) < len(names):
        raise ValueError(
            f"{where}: the label is {shown(int(label))}, but {numbered(names)}; correct the label, or count from 0"
        )
    return names[int(label)]


def numbered(names: Sequence[str]) -> str:
    """The sentence that lists classes by number."""
    return f"the classes are {listed(f'{number} ({name})' for number, name in enumerate(names))}"


def is_integer(label: str) -> bool:
    """Whether a label is a whole number, of either sign, and of a length that numbers have."""
    return len(label) <= LONGEST_NUMBER and label.removeprefix("-").isdecimal()


def doubtful_labels(labels: Iterable[str]) -> dict[str, str]:
    """Label -> why it may not be a class; empty if none is doubtful.

    Doubtful are a word or sign that often means "unknown", -1 next to class numbers that count from 0, and names that
    differ only in case.
    """
    known = set(labels)
    empty = "if so, empty these cells or remove the rows"
    doubts = {label: f"often means an unknown label: {empty}" for label in known if label.lower() in DOUBTFUL}
    if {MINUS_ONE, "0"} <= known:
        doubts[MINUS_ONE] = f"in `datasets` it means an unknown label: {empty}"
    folded: dict[str, str] = {}
    for label in sorted(known):
        other = folded.setdefault(label.casefold(), label)
        if other != label:
            doubts[label] = f"differs from {other!r} only in case: if both mean one class, write them the same way"
    return dict(sorted(doubts.items()))
