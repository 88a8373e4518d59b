"""The preflight: checks of the examples before training, and warnings about misleading scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Preflight:
    """The outcome of the checks: figures for all_results.json, and warnings and notes to print."""

    figures: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)  # what may make a score misleading: --strict refuses it
    notes: list[str] = field(default_factory=list)  # for information only

    def note(self, name: str, value: float | int, warning: str | None = None) -> None:
        """Keep a figure; if it is not zero, add its warning as well."""
        self.figures[f"preflight_{name}"] = value
        if warning and value:
            self.warnings.append(warning)

    def refuse_if(self, *, strict: bool) -> None:
        """ValueError with the warnings where --strict forbids them."""
        if strict and self.warnings:
            raise ValueError(f"--strict, and the preflight warns: {'; '.join(self.warnings)}")

    def lines(self) -> list[str]:
        """The warnings, the notes, then the figures that are not zero."""
        shown = [
            f"{name.removeprefix('preflight_').replace('_', ' ')} "
            + (f"{value:.1%}" if name.endswith("_share") else f"{value:,}")
            for name, value in self.figures.items()
            if value
        ]
        return [
            *(f"warning: {warning}" for warning in self.warnings),
            *(f"note: {note}" for note in self.notes),
            "preflight: " + (", ".join(shown) or "nothing found"),
        ]


def note_row_limit(preflight: Preflight, asked: int, limit: int) -> None:
    """Note that rows are shorter than --max_seq_length, because the model has no more positions."""
    if limit < asked:
        preflight.note("max_seq_length", limit)
        preflight.notes.append(f"--max_seq_length {asked} is lowered to {limit}, the positions of the model")


def shared_groups(first: Iterable[str], second: Iterable[str]) -> int:
    """The number of different texts that occur in both."""
    return len(set(first) & set(second))


def repeated_groups(texts: Iterable[str]) -> int:
    """The number of different texts that occur more than once."""
    return sum(count > 1 for count in Counter(texts).values())


def note_shared_texts(preflight: Preflight, texts: Mapping[str, Sequence[str]]) -> None:
    """Count texts that occur twice in a split, and texts of the training set that also occur in another split."""
    for name, split in texts.items():
        preflight.note(f"{name}_repeated_texts", repeated_groups(split))
        if name != "train" and "train" in texts:
            shared = shared_groups(texts["train"], split)
            preflight.note(
                f"train_{name}_shared_texts",
                shared,
                f"{shared} texts occur both in train and in {name}: their score is partly memory",
            )


def note_label_balance(preflight: Preflight, labels: Mapping[str, Sequence[str]]) -> None:
    """The share of the most frequent label of each split, which is what a constant answer scores."""
    for name, split in labels.items():
        if split:
            label, count = Counter(split).most_common(1)[0]
            share = count / len(split)
            preflight.note(f"{name}_majority_share", share)
            if share > 0.9:
                preflight.warnings.append(f"{share:.1%} of {name} has the label {label!r}: accuracy says little here")
