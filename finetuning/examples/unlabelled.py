"""Drops, counts and reports examples without a label in the training and validation sets."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from finetuning.examples.preflight import Preflight

logger = logging.getLogger(__name__)


class Labelled(Protocol):
    """An example; its label is None where it is not known."""

    @property
    def label(self) -> Any:
        """The label."""


Example = TypeVar("Example", bound=Labelled)


def drop_unlabelled(splits: Mapping[str, Sequence[Example]]) -> dict[str, list[Example]]:
    """The splits without examples whose label is None, except in test sets, and in sets that have no label at all."""
    kept = {}
    for split, examples in splits.items():
        labelled = [example for example in examples if example.label is not None]
        kept[split] = list(examples) if split.startswith("test") or not labelled else labelled
    return kept


def note_unlabelled(
    preflight: Preflight, before: Mapping[str, Sequence[Any]], after: Mapping[str, Sequence[Any]]
) -> None:
    """Count what `drop_unlabelled` left out of each split, with a warning if it left out any."""
    for split, warning in _warnings(before, after).items():
        preflight.note(f"{split}_unlabelled", len(before[split]) - len(after[split]), warning)


def labelled_only(splits: Mapping[str, Sequence[Example]], where: str) -> dict[str, list[Example]]:
    """`drop_unlabelled` with its warnings in the log, for callers without a preflight; they begin with `where`."""
    kept = drop_unlabelled(splits)
    for warning in _warnings(splits, kept).values():
        logger.warning("%s: %s", where, warning)
    return kept


def _warnings(before: Mapping[str, Sequence[Any]], after: Mapping[str, Sequence[Any]]) -> dict[str, str]:
    return {
        split: f"{len(examples) - len(after[split])} of {len(examples)} examples of {split} have no label (an empty "
        "cell, null, NaN, or -1 where it is not a class) and are left out"
        for split, examples in before.items()
        if len(after[split]) < len(examples)
    }
