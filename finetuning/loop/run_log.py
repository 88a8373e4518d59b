"""The log of a fine-tuning run: journal, trackers, progress bar and printed lines."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field
from tqdm import tqdm

from runtime.files.json_lines import as_line, cut_back, sound_lines
from runtime.files.schemas import Count, Figure, Number, Schema
from runtime.trackers import Reporter, build_reporters

JOURNAL_NAME = "journal.jsonl"
ABOUT_THE_FILE = ("schema_version", "fingerprint")
ABOUT_TRAINING = ("epoch", "stopped_early", "updates", "not_finite_updates", "train_seconds", "seed", "from_scratch")

Item = TypeVar("Item")


class RunLog:
    """Writes on the main rank; on the others, and without a directory, it does nothing."""

    def __init__(
        self,
        directory: Path | None,
        *,
        is_main: bool,
        total_updates: int,
        updates: int = 0,
        closed: int = 0,
        report_to: str = "none",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.file, self.bar = None, None
        self.reporters: list[Reporter] = []
        if directory is None or not is_main:
            return
        directory.mkdir(parents=True, exist_ok=True)
        gap = drop_lines_after(directory / JOURNAL_NAME, updates, closed)
        self.file = (directory / JOURNAL_NAME).open("a", encoding="utf-8")
        self.reporters = build_reporters(report_to, directory, options or {}, first_step=updates + 1)
        self.bar = tqdm(
            total=total_updates, initial=updates, unit="update", disable=not sys.stderr.isatty() and not _forced()
        )
        if gap:
            self.say(f"warning: {gap}")

    def update(self, update: int, values: Mapping[str, float], epoch_means: Mapping[str, float] | None = None) -> None:
        """One finished update: loss, measures, learning rate; and the measures' means since the epoch began."""
        self._line({"update": update, **values})
        for reporter in self.reporters:
            reporter.log(
                {f"train/{name}": value for name, value in values.items()}
                | {f"train_epoch_mean/{name}": value for name, value in (epoch_means or {}).items()},
                update,
            )
        if self.bar is not None:
            self.bar.update()
            self.bar.set_postfix(loss=f"{values.get('loss', float('nan')):.3f}", refresh=False)

    def validation(self, update: int, epoch: float, scores: Mapping[str, float]) -> None:
        """One validation, after `update` updates."""
        self._line({"update": update, "epoch": epoch, **{f"eval_{name}": value for name, value in scores.items()}})
        for reporter in self.reporters:
            reporter.log({f"eval/{name}": value for name, value in scores.items()}, update)

    def watch(self, batches: Iterable[Item], what: str) -> Iterable[Item]:
        """The batches of an evaluation, with a second progress bar while it lasts."""
        is_off = self.bar is None or self.bar.disable
        return tqdm(batches, desc=what, unit="batch", leave=False, disable=is_off)

    def say(self, text: str) -> None:
        """Print a line above the progress bar."""
        if self.file is not None:
            tqdm.write(text)

    def flush(self) -> None:
        """Force the journal to the disk."""
        if self.file is not None:
            self.file.flush()
            os.fsync(self.file.fileno())

    def close(self) -> None:
        """Close files and bar."""
        for part in (self.file, *self.reporters, self.bar):
            if part is not None:
                part.close()

    def _line(self, values: Mapping[str, Any]) -> None:
        if self.file is not None:
            self.file.write(as_line(values))


class JournalLine(Schema):
    """A line of journal.jsonl: of an update, or with `epoch` of a validation; its figures are null where not finite."""

    __pydantic_extra__: dict[str, Figure] = Field(init=False)
    update: Count
    epoch: Number | None = None


def drop_lines_after(journal: Path, updates: int, closed: int) -> str | None:
    """Remove lines of updates, and of validations after `closed`, that a resumed run makes again; and damaged lines.

    Returns a warning about updates up to `updates` whose lines are missing; None when all have one.
    """
    return cut_back(
        journal,
        JournalLine,
        updates,
        is_kept=lambda line: updates > 0 and line["update"] <= (closed if "epoch" in line else updates),
        update_of=lambda line: 0 if "epoch" in line else int(line["update"]),
    )


def read_journal(journal: Path) -> list[dict[str, Any]]:
    """Whole lines of a journal, without damaged ones; updates have "loss", validations "eval_..."."""
    return [line for line in sound_lines(journal, JournalLine) if line is not None]


def epoch_line(epoch: float, training: Mapping[str, float], validation: Mapping[str, float]) -> str:
    """The line about an epoch: the means over its updates, and the scores after it."""
    figures = {"train": training, "validation": validation}
    parts = [
        f"{name} " + ", ".join(f"{measure} {value:.4f}" for measure, value in values.items())
        for name, values in figures.items()
        if values
    ]
    return f"epoch {epoch:g}: " + "; ".join(parts)


def closing_table(title: str, results: Mapping[str, Any]) -> str:
    """A table of names and values, one per line, aligned.

    In all_results.json only are values that are null or about the file, and for a run without updates what says
    something about training.
    """
    left_out = {*ABOUT_THE_FILE, *(ABOUT_TRAINING if results.get("updates") == 0 else ())}
    shown = {
        name: _figure(name, value)
        for name, value in results.items()
        if isinstance(value, (str, int, float, bool)) and name not in left_out
    }
    width = max((len(name) for name in shown), default=0)
    lines = [title, "-" * max(len(title), 1), *(f"{name:<{width}}  {value}" for name, value in shown.items())]
    return "\n".join(lines)


def _figure(name: str, value: str | float) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:g}" if name in ("epoch", "best_epoch") else f"{value:.4f}"


def _forced() -> bool:
    return os.environ.get("FORCE_PROGRESS") == "1"
