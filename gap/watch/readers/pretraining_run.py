"""A pretraining run: its journal, its plan from `run.json`, and the checkpoints that it has exported."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from gap.watch.journal_tail import JournalTail, Line, number_in
from gap.watch.owners import newest, read_owner, state_of_unfinished
from gap.watch.readers.kept_files import KeptFiles
from gap.watch.view import ChartSeries, LiveChart, LiveState, LiveTable, RunView
from gap.watch.wording import amount, rate, size
from pretraining.checkpoints.run_file import RUN_NAME, read_run
from pretraining.checkpoints.series import SERIES_NAME, read_series
from pretraining.loop.journal import PretrainingJournalLine
from pretraining.plan.budget import UNITS
from pretraining.plan.segments import Segment, parse_series, plan_segments
from runtime.files.schemas import Name, Number, Schema, checked, read_file
from runtime.processes.interruption import MARKER_NAME

JOURNAL_NAME, UNTIL_NAME = "journal.jsonl", "until.json"
SPENT = {"tokens": ("tokens", 1.0), "flops": ("flops", 1.0), "hours": ("seconds", 1 / 3600)}  # in a journal's line
SEEN = {"tokens": "tokens_seen", "flops": "flops", "hours": "seconds"}  # in an entry of series.json
AVERAGED_LINES = 20
TRUNK_POINTS, BRANCH_POINTS = 160, 24  # of a line in a chart: single updates would be noise
Positive = Annotated[float, Field(gt=0, le=1e30, allow_inf_nan=False)]


class _PlannedRun(Schema):
    """What a run's identity says of its course."""

    model: Name | None = None
    seed: int = 0
    budget_tokens: Positive | None = None
    budget_flops: Positive | None = None
    budget_hours: Positive | None = None
    series: Name | None = None
    series_ratio: Annotated[float, Field(gt=1, le=1e6)] = 2.0
    decay_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    head_warmup: Number = 0.0


class _UntilFile(Schema):
    """until.json: why the run was stopped."""

    stopped: Name | None = None


@dataclass(frozen=True)
class Course:
    """The segments of a run, in its budget's unit."""

    unit: str
    segments: tuple[Segment, ...]
    planned: _PlannedRun

    @property
    def total(self) -> float:
        """The work of all segments, branches included."""
        return sum(segment.end - segment.start for segment in self.segments)

    def done_at(self, label: str, spent: float) -> float:
        """The work that is done where the journal's last line is of this segment, with so much spent."""
        done = 0.0
        for segment in self.segments:
            is_here = segment.label == label and (segment.is_branch or spent <= segment.end)
            if is_here:
                return min(self.total, done + max(0.0, min(spent, segment.end) - segment.start))
            done += segment.end - segment.start
        return self.total

    def lacks(self, entries: Sequence[Mapping[str, Any]]) -> list[Segment]:
        """The segments whose checkpoint is not in the series yet."""
        there = [(str(entry["kind"]), budget_of(entry, self.unit)) for entry in entries]
        return [
            segment
            for segment in self.segments
            if segment.kind is not None
            and not any(
                kind == segment.kind and math.isclose(budget, segment.budget or 0.0, rel_tol=1e-6)
                for kind, budget in there
            )
        ]


class PretrainingReader:
    """The reader of a pretraining run's folder."""

    kind = "pretraining"

    def __init__(self, directory: Path, place: str) -> None:
        self.directory, self.place = directory, place
        self.files = KeptFiles()
        self.unit = "tokens"
        self.tail = self._new_tail()

    def _new_tail(self) -> JournalTail:
        return JournalTail(self.directory / JOURNAL_NAME, PretrainingJournalLine, place_of=self._place_of)

    def _place_of(self, line: Line) -> tuple[str, float] | None:
        name, factor = SPENT[self.unit]
        spent, label = number_in(line, name), line.get("segment")
        return None if spent is None or not isinstance(label, str) else (label[:80], spent * factor)

    def view(self) -> RunView:
        """The run as it stands."""
        self.files.begin()
        course = self.files.read(self.directory / RUN_NAME, lambda: course_of(self.directory))
        if course is not None and course.unit != self.unit:
            self.unit, self.tail = course.unit, self._new_tail()
        self.files.try_now(self.tail.read)
        series = self.directory / SERIES_NAME
        entries = self.files.read(series, lambda: read_series(series)) or []
        stopped = self.files.read(self.directory / UNTIL_NAME, lambda: _stopped(self.directory))
        changed = newest(self.directory / name for name in (JOURNAL_NAME, SERIES_NAME, RUN_NAME, MARKER_NAME))
        state, reason = self._state(course, entries, stopped, changed)
        done, total = self._done(course), None if course is None else course.total
        share = None if done is None or not total else done / total
        if state == LiveState.FINISHED and not stopped:
            share = 1.0
        return RunView(
            self.place,
            self.kind,
            state,
            changed,
            reason=reason,
            share=share,
            done=self._done_words(course, share),
            seconds_left=self._seconds_left(total, done) if state == LiveState.RUNNING else None,
            figures=self._figures(course, entries),
            charts=tuple(self._charts(course, entries)),
            tables=tuple(self._tables(entries)),
            problems=tuple(self.files.problems),
        )

    def _state(
        self, course: Course | None, entries: Sequence[Mapping[str, Any]], stopped: str | None, changed: float
    ) -> tuple[LiveState, str]:
        if stopped:
            return LiveState.FINISHED, stopped
        if course is not None and entries and not course.lacks(entries):
            return LiveState.FINISHED, ""
        owner = read_owner(self.directory)
        state = self.files.try_now(lambda: state_of_unfinished(self.directory, owner, changed))
        if state is None:
            return LiveState.DAMAGED, "the files named below cannot be read"
        if state[0] != LiveState.RUNNING and not entries and not self.tail.recent and self.files.problems:
            return LiveState.DAMAGED, "the files named below cannot be read"
        if state[0] == LiveState.RUNNING and not self.tail.recent:
            return LiveState.RUNNING, state[1] or "it has not made an update yet"
        return state

    def _done(self, course: Course | None) -> float | None:
        place = self._place_of(dict(self.tail.last)) if self.tail.recent else None
        return None if course is None or place is None else course.done_at(*place)

    def _done_words(self, course: Course | None, share: float | None) -> str:
        place = self._place_of(dict(self.tail.last)) if self.tail.recent else None
        if place is None:
            return ""
        title = UNITS[self.unit].title
        if course is None:
            return f"{amount(place[1])} {title}"
        largest = max(segment.end for segment in course.segments)
        branch = "" if place[0] == "trunk" else f", {place[0]}"
        return f"{amount(place[1])} of {amount(largest)} {title}{branch}"

    def _seconds_left(self, total: float | None, done: float | None) -> float | None:
        """At the pace of the last updates of one segment; of the whole plan, branches included."""
        if total is None or done is None:
            return None
        if self.unit == "hours":
            return (total - done) * 3600
        lines = [line for line in self.tail.recent if line.get("segment") == self.tail.last.get("segment")]
        first, last = lines[0], lines[-1]
        name, factor = SPENT[self.unit]
        marks = [number_in(line, key) for line in (first, last) for key in (name, "seconds")]
        if any(mark is None for mark in marks):
            return None
        spent, seconds = (marks[2] - marks[0]) * factor, marks[3] - marks[1]  # type: ignore[operator]
        return (total - done) * seconds / spent if spent > 0 and seconds >= 0 else None

    def _figures(self, course: Course | None, entries: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, str], ...]:
        last, lines = self.tail.last, list(self.tail.recent)[-AVERAGED_LINES:]
        figures: list[tuple[str, str]] = []
        if losses := [loss for line in lines if (loss := number_in(line, "loss")) is not None]:
            figures.append(("loss", f"{statistics.fmean(losses):.3f}"))
        elif lines:
            figures.append(("loss", "not finite"))
        held_out = [entry for entry in entries if entry["validation_loss"] is not None and entry["budget_tokens"]]
        if held_out:
            newest_entry = max(held_out, key=lambda entry: (entry["tokens_seen"], entry["kind"] == "annealed"))
            figures.append(("held-out loss", f"{newest_entry['validation_loss']:.3f}"))
        if (value := number_in(last, "learning_rate")) is not None:
            figures.append(("learning rate", rate(value)))
        if speeds := [speed for line in lines if (speed := number_in(line, "tokens_per_second")) is not None]:
            figures.append(("tokens/s", f"{statistics.median(speeds):,.0f}"))
        if (updates := number_in(last, "update")) is not None:
            figures.append(("updates", f"{updates:,.0f}"))
        ranks = number_in(last, "world_size")
        if ranks is not None and ranks > 1:
            figures.append(("ranks", f"{ranks:.0f}"))
        if course is not None and course.planned.model:
            figures.append(("model", course.planned.model.rstrip("/").rsplit("/", 1)[-1]))
            figures.append(("seed", f"{course.planned.seed}"))
        if self.tail.damaged:
            figures.append(("damaged lines", f"{self.tail.damaged}"))
        return tuple(figures)

    def _charts(self, course: Course | None, entries: Sequence[Mapping[str, Any]]) -> list[LiveChart]:
        if not self.tail.courses:
            return []
        title = UNITS[self.unit].title
        end = None if course is None else max(segment.end for segment in course.segments)
        trunk_label = "trunk" if any(label.startswith("branch") for label in self.tail.courses) else "training"
        charts = []
        for name, chart_title in (("loss", "Loss"), ("learning_rate", "Learning rate")):
            series = []
            for label, course_of_label in self.tail.courses.items():
                is_branch = label.startswith("branch")
                shown = "annealing branches" if is_branch else trunk_label if label == "trunk" else label
                role, most = ("annealed", BRANCH_POINTS) if is_branch else ("raw", TRUNK_POINTS)
                series.append(ChartSeries(shown, role, course_of_label[name].points(most)))
            if name == "loss":
                series += self._held_out(entries)
            charts.append(LiveChart(chart_title, title, tuple(series), x_end=end))
        return charts

    def _held_out(self, entries: Sequence[Mapping[str, Any]]) -> list[ChartSeries]:
        factor = SPENT[self.unit][1]
        dots = []
        for kind in ("raw", "annealed"):
            points = sorted(
                (float(entry[SEEN[self.unit]]) * factor, float(entry["validation_loss"]))
                for entry in entries
                if entry["kind"] == kind and entry["validation_loss"] is not None and entry["budget_tokens"]
            )
            if points:
                dots.append(ChartSeries(f"held out, {kind}", kind, tuple(points), line=False))
        return dots

    def _tables(self, entries: Sequence[Mapping[str, Any]]) -> list[LiveTable]:
        rows = []
        for entry in sorted(entries, key=lambda one: (one["budget_tokens"], one["kind"] == "annealed")):
            loss, share = entry["validation_loss"], entry["validation_accuracy"]
            held = self.files.folder_bytes(Path(entry["path"]))
            rows.append(
                (
                    Path(entry["path"]).name,
                    amount(entry["tokens_seen"]),
                    "-" if loss is None else f"{loss:.4f}",
                    "-" if share is None else f"{100 * share:.1f} %",
                    "gone" if held is None else size(held),
                )
            )
        tables = []
        if rows:
            heads = ("checkpoint", "tokens", "held-out loss", "accuracy", "size")
            tables.append(LiveTable("Checkpoint series", heads, tuple(rows), numbers=(1, 2, 3, 4)))
        saved = self._saved()
        if saved:
            tables.append(LiveTable("Saved to resume from", ("checkpoint", "size"), tuple(saved), numbers=(1,)))
        return tables

    def _saved(self) -> list[tuple[str, str]]:
        folder = self.directory / "checkpoints"
        names = self.files.read(folder, lambda: sorted(path.name for path in folder.glob("step-*"))[-5:]) or []
        sizes = [(name, self.files.folder_bytes(folder / name)) for name in names]
        return [(name, size(held)) for name, held in sizes if held is not None]


def budget_of(entry: Mapping[str, Any], unit: str) -> float:
    """The budget of a checkpoint in the unit that the run is planned in."""
    own = entry.get("budget")
    is_own = unit != "tokens" and entry.get("budget_unit") == unit and own is not None
    return float(own) if is_own and own is not None else float(entry["budget_tokens"])


def course_of(directory: Path) -> Course | None:
    """The course in a run.json; None where it does not say. ValueError for one that is damaged."""
    path = directory / RUN_NAME
    identity = read_run(path).identity
    if identity is None:
        return None
    planned = checked(identity, _PlannedRun, str(path), "restore it or remove it")
    given = {"tokens": planned.budget_tokens, "flops": planned.budget_flops, "hours": planned.budget_hours}
    unit = next((name for name, budget in given.items() if budget is not None), None)
    if unit is None:
        return None
    text, largest = planned.series or "0", given[unit] or 0.0
    try:
        budgets = parse_series(text, largest, planned.series_ratio)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    warmup = max(0.0, planned.head_warmup)
    segments = plan_segments(
        budgets, decay_fraction=planned.decay_fraction, raw=text.strip() != "0", head_warmup=warmup
    )
    return Course(unit, segments, planned)


def _stopped(directory: Path) -> str | None:
    return read_file(directory / UNTIL_NAME, _UntilFile, "remove it to take the looks again").stopped
