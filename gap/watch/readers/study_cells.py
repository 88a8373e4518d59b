"""The cells of a study by task and checkpoint, the curve of each task so far, and the time that is left."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from gap.cells.plan import UNIGRAM, PlannedCell, Search
from gap.cells.store import Cell
from gap.measures.weighted_metrics import SIGNED_METRICS
from gap.watch.view import CellGrid, CellState, ChartSeries, LiveChart
from gap.watch.wording import amount
from runtime.files.schemas import Count, Figure, Items, Name, Schema, read_file

SHAPES = ("raw", "annealed")
LEVELS = (("scratch", "scratch"), ("start", "start"), ("reference", "reference"), (UNIGRAM, "other"))
REMEDY = "write it again with launch/report.py"
Row = tuple[int, float, str]  # sorts the checkpoints of a task; the last is what is shown


class _ScoreFacts(Schema):
    value: Figure = None
    low: Figure = None
    high: Figure = None


class _CheckpointFacts(Schema):
    kind: Name
    budget_tokens: Count | None = None
    control: Name | None = None
    label_fraction: float = 1.0
    epochs_factor: float = 1.0
    score: _ScoreFacts


class _TaskFacts(Schema):
    task: Name
    answer: Name = ""
    checkpoints: Items[_CheckpointFacts]


class CurveFacts(Schema):
    """What is shown of a curve.json."""

    tasks: Items[_TaskFacts]
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95


def read_curve(path: Path) -> CurveFacts:
    """The analysis of a finished study; ValueError for a damaged one."""
    return read_file(path, CurveFacts, REMEDY)


def row_of(kind: str, budget: int | None, control: str | None, fraction: float, factor: float) -> Row:
    """Where the cells of a checkpoint stand in a table, and its name there."""
    own = control if control not in ("scratch_longer", "fewer_labels") else None
    words = [kind.replace("_", " ") if budget is None or kind == "start" else f"{kind} {amount(budget)}"]
    if budget == 0 and kind != "start":
        words = ["scratch"]
    words += [f"{factor:g}x epochs"] if factor != 1 else []
    words += [f"{fraction:g} of the labels"] if fraction != 1 else []
    words += [own.replace("_", " ")] if own else []
    is_control = control is not None or factor != 1 or fraction != 1
    place = 2 * is_control + (budget is None)
    return place, float(budget or 0) + 0.5 * (kind == "annealed"), ", ".join(words)


def row_of_planned(cell: PlannedCell) -> Row:
    """The row of a planned cell."""
    setting, source = cell.setting, cell.setting.source
    return row_of(source.kind, source.budget_tokens, cell.control, setting.label_fraction, setting.epochs_factor)


def row_of_done(cell: Cell) -> Row:
    """The row of a finished cell."""
    return row_of(cell.kind, cell.budget_tokens, cell.control, cell.label_fraction, cell.epochs_factor)


def described(job: PlannedCell | Search) -> str:
    """A job in a few words."""
    setting, source = job.setting, job.setting.source
    if isinstance(job, Search):
        row = row_of(source.kind, source.budget_tokens, None, setting.label_fraction, setting.epochs_factor)
        return f"search for {setting.task}, {row[2]}: rate {job.learning_rate:g}, epochs {job.epochs:g}"
    return f"{setting.task}, {row_of_planned(job)[2]}, seed {job.finetuning_seed}"


def grids_of(
    planned: Mapping[str, PlannedCell], done: Mapping[str, Cell], is_running: Callable[[str], bool]
) -> list[CellGrid]:
    """A grid for each task."""
    tasks: dict[str, dict[Row, list[tuple[tuple[int, int], CellState]]]] = {}
    for name, cell in planned.items():
        finished = done.get(name)
        if finished is not None:
            state = CellState.FAILED if finished.failed else CellState.DONE
        else:
            state = CellState.RUNNING if is_running(name) else CellState.TO_COME
        seeds = (cell.setting.source.pretraining_seed, cell.finetuning_seed)
        tasks.setdefault(cell.setting.task, {}).setdefault(row_of_planned(cell), []).append((seeds, state))
    return [
        CellGrid(task, tuple((row[2], tuple(state for _, state in sorted(rows[row]))) for row in sorted(rows)))
        for task, rows in tasks.items()
    ]


def curve_of(task: str, cells: Sequence[Cell], num_planned: int, facts: CurveFacts | None) -> LiveChart | None:
    """The means of the cells that are done, over the budget; with the intervals of the analysis where there is one.

    None before the first cell. Controls have no place in it but as levels.
    """
    plain = [cell for cell in cells if (cell.control, cell.label_fraction, cell.epochs_factor) == (None, 1.0, 1.0)]
    floor = [cell for cell in cells if cell.control == UNIGRAM]
    if not plain:
        return None
    intervals = _intervals(task, facts)
    series: list[ChartSeries] = []
    for kind in SHAPES:
        own = [cell for cell in plain if cell.kind == kind and cell.budget_tokens]
        if own:
            means = sorted(_means((float(cell.budget_tokens or 0), cell.score) for cell in own).items())
            held = [intervals.get((kind, round(budget))) for budget, _ in means]
            band = tuple(one for one in held if one is not None) if all(held) else ()
            series.append(ChartSeries(kind, kind, tuple(means), band=band))
            dots = tuple(sorted((float(cell.budget_tokens or 0), cell.score) for cell in own))
            series.append(ChartSeries("seeds", kind, dots, line=False))
    scratch = [cell for cell in plain if cell.budget_tokens == 0 and cell.kind != "start"]
    if scratch:
        series.append(ChartSeries("seeds", "scratch", tuple((0.0, cell.score) for cell in scratch), line=False))
    levels = []
    for name, role in LEVELS:
        own = floor if name == UNIGRAM else scratch if name == "scratch" else [c for c in plain if c.kind == name]
        if own:
            levels.append((name, role, statistics.fmean(cell.score for cell in own)))
    metric = plain[0].metric
    kind_of_mean = "means so far, no intervals"
    if facts is not None and any(one.band for one in series):
        kind_of_mean = f"{100 * facts.confidence:.4g} % intervals of the report"
    title = f"{task}: {metric.replace('_', ' ')}, {len(plain) + len(floor)} of {num_planned} cells, {kind_of_mean}"
    percent = metric not in SIGNED_METRICS
    return LiveChart(title, "pretraining tokens", tuple(series), tuple(levels), True, percent, left="scratch")


def is_on_curve(cell: PlannedCell) -> bool:
    """Whether the chart of its task shows the cell."""
    plain = (cell.control, cell.setting.label_fraction, cell.setting.epochs_factor) == (None, 1.0, 1.0)
    return plain or cell.is_floor


def _means(points: Iterable[tuple[float, float]]) -> dict[float, float]:
    grouped: dict[float, list[float]] = {}
    for x, y in points:
        grouped.setdefault(x, []).append(y)
    return {x: statistics.fmean(values) for x, values in grouped.items()}


def _intervals(task: str, facts: CurveFacts | None) -> dict[tuple[str, int], tuple[float, float]]:
    found = {}
    for own in facts.tasks if facts is not None else ():
        for point in own.checkpoints if own.task == task else ():
            plain = (point.control, point.label_fraction, point.epochs_factor) == (None, 1.0, 1.0)
            if plain and point.budget_tokens and point.score.low is not None and point.score.high is not None:
                found[point.kind, point.budget_tokens] = (point.score.low, point.score.high)
    return found


def seconds_left(
    left: Sequence[PlannedCell | Search],
    done: Sequence[Cell],
    tries: Sequence[Mapping[str, Any]],
    running_since: Mapping[PlannedCell | Search, float],
    workers: int,
) -> float | None:
    """Seconds until all jobs are done, by the mean time of finished ones of the same task; None before there is one.

    Cells scale with their labels and epochs where only others are done. `running_since` gives the seconds for which
    jobs have been running; so many `workers` go on with the rest.
    """
    cells = _seconds_by(((cell.task, _weight(cell.label_fraction, cell.epochs_factor)), cell.seconds) for cell in done)
    searches = _seconds_by(((str(one.get("task")), 1.0), float(one["seconds"])) for one in tries)
    total = 0.0
    for job in left:
        weight = _weight(job.setting.label_fraction, job.setting.epochs_factor)
        known, other = (searches, cells) if isinstance(job, Search) else (cells, searches)
        seconds = _of(known, job.setting.task, weight)
        seconds = _of(other, job.setting.task, weight) if seconds is None else seconds
        if seconds is None:
            return None
        total += max(0.0, seconds - running_since.get(job, 0.0))
    return total / max(1, workers)


def _weight(fraction: float, factor: float) -> float:
    return max(1e-6, fraction * factor)


def _seconds_by(entries: Iterable[tuple[tuple[str, float], float]]) -> dict[tuple[str, float], float]:
    grouped: dict[tuple[str, float], list[float]] = {}
    for key, seconds in entries:
        grouped.setdefault(key, []).append(seconds)
    return {key: statistics.fmean(values) for key, values in grouped.items()}


def _of(known: Mapping[tuple[str, float], float], task: str, weight: float) -> float | None:
    if (task, weight) in known:
        return known[task, weight]
    scaled = [seconds * weight / own for (name, own), seconds in known.items() if name == task]
    scaled = scaled or [seconds * weight / own for (_, own), seconds in known.items()]
    return statistics.fmean(scaled) if scaled else None
