"""The tables of the report, and the same numbers as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gap.analysis.results import Analysis, CheckpointResult, Crossing, TaskResult
from gap.analysis.tables.costs import UNITS
from gap.analysis.wording import duration_text, interval_text, money_text, percent_text, points_text, tokens_text
from gap.cells.plan import UNIGRAM
from gap.cells.store import LINEAR_PROBE
from gap.intervals.interval import Estimate
from gap.measures.certainty import MEASURES

OTHER_UNITS = tuple(UNITS)[1:]  # all but tokens
_MEASURE_ENDS = ("", "_low", "_high", "_minus_scratch", "_minus_scratch_low", "_minus_scratch_high")
TITLES = {**UNITS, "hours": "device time", "money": "cost"}


@dataclass(frozen=True)
class Table:
    """Rows of text under a header; `numbers` are right-aligned columns, `wrapped` may break lines."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: frozenset[int] = frozenset()
    wrapped: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Part:
    """One piece of a section: a heading with a text, a chart, a table or a block of code."""

    heading: str = ""
    text: str = ""
    style: str = "soft"
    chart: str = ""
    table: Table | None = None
    folded: str = ""
    code: str = ""


def crossing_table(task: TaskResult, currency: str, *, priced: bool) -> Table:
    """Tokens to each share of the gap, by kind."""
    known = {
        unit
        for curve in task.curves
        for crossing in curve.crossings
        for unit, amounts in crossing.other_units.items()
        if unit != "text_bytes" or amounts[0] is not None  # series of earlier versions do not count them
    }
    units = [unit for unit in OTHER_UNITS if unit in known and (priced or unit != "money")]
    rows = []
    for curve in task.curves:
        for crossing in curve.crossings:
            rows.append(
                (
                    f"{100 * crossing.level:g} %",
                    curve.kind,
                    _crossing_value(crossing, curve.line),
                    interval_text(crossing),
                    *(_amount_text(unit, crossing.other_units[unit][0], currency) for unit in units),
                )
            )
    header = ["gap closed", "checkpoints", "tokens", "interval", *(TITLES[unit] for unit in units)]
    return Table(header, rows)


def checkpoint_table(task: TaskResult) -> Table:
    """One row per checkpoint: score, gap closed, failed runs, seeds, loss and calibration; first the unigram floor."""
    rows = []
    shown = [checkpoint for checkpoint in task.checkpoints if checkpoint.control is None]
    for checkpoint in [*_floors(task), *shown]:
        rows.append(
            (
                checkpoint.name,
                checkpoint.layout,
                score_text(checkpoint.score),
                f"{100 * checkpoint.median:.1f}",
                "" if checkpoint.gap_closed is None else closed_text(checkpoint.gap_closed),
                f"{checkpoint.failed_runs} of {checkpoint.runs}",
                _metric(checkpoint, "loss", "{:.3f}"),
                _metric(checkpoint, "expected_calibration_error", "{:.3f}"),
                "" if checkpoint.cost is None or checkpoint.cost.epochs is None else f"{checkpoint.cost.epochs:.2f}",
            )
        )
    header = (
        "checkpoint",
        "seeds",
        "mean score",
        "median",
        "gap closed",
        "failed runs",
        "recipe's loss",
        "expected calibration error",
        "times each token was seen",
    )
    return Table(header, rows, frozenset({3, 6, 7, 8}))


def certainty_table(task: TaskResult) -> Table | None:
    """Loss and calibration of each checkpoint and their differences to scratch, with intervals; None without them."""
    checkpoints = [checkpoint for checkpoint in task.checkpoints if checkpoint.control is None]
    names = [name for name in MEASURES if all(name in checkpoint.measures for checkpoint in checkpoints)]
    if not names:
        return None
    rows = []
    for checkpoint in checkpoints:
        row = [checkpoint.name]
        for name in names:
            own = checkpoint.measures[name]
            row += [amount_text(own.value), amount_text(own.against_scratch, signed=True)]
        rows.append(row)
    return Table(
        ["checkpoint", *(head for name in names for head in (MEASURES[name].title, f"minus {task.floor}"))], rows
    )


def cell_table(task: TaskResult) -> Table:
    """One row per cell."""
    rows = [
        (
            checkpoint.name,
            str(dot.pretraining_seed),
            str(dot.finetuning_seed),
            f"{100 * dot.score:.2f}",
            dot.status.replace("_", " "),
            "" if dot.learning_rate is None else f"{dot.learning_rate:g}",
            f"{dot.seconds:.1f}",
            dot.fingerprint[:12],
        )
        for checkpoint in task.checkpoints
        for dot in checkpoint.dots
    ]
    header = (
        "checkpoint",
        "pretraining seed",
        "fine-tuning seed",
        "score",
        "status",
        "learning rate",
        "seconds",
        "cell",
    )
    return Table(header, rows, frozenset({1, 2, 3, 5, 6}))


def control_table(task: TaskResult) -> Table | None:
    """The controls, with the share of the gap that each closes."""
    controls = [each for each in task.checkpoints if each.control not in (None, LINEAR_PROBE, UNIGRAM)]
    if not controls:
        return None
    rows = [
        (
            checkpoint.name,
            score_text(checkpoint.score),
            "" if checkpoint.gap_closed is None else closed_text(checkpoint.gap_closed),
            f"{checkpoint.failed_runs} of {checkpoint.runs}",
        )
        for checkpoint in controls
    ]
    return Table(("control", "score", "gap closed", "failed runs"), rows)


def _floors(task: TaskResult) -> list[CheckpointResult]:
    """The unigram floor, which is an end of the gap and no control beside it."""
    return [checkpoint for checkpoint in task.checkpoints if checkpoint.control == UNIGRAM]


def probe_table(task: TaskResult) -> Table | None:
    """The linear probe of each checkpoint beside its fine-tuning, and the seconds of a cell of both."""
    if task.probe is None:
        return None
    rows = []
    for pair in task.probe.checkpoints:
        finetuned, probe = task.checkpoints[pair.finetuned], task.checkpoints[pair.probe]
        unless = f" ({pair.difference.refused})" if pair.difference.refused else ""
        rows.append(
            (
                finetuned.name,
                score_text(finetuned.score),
                score_text(probe.score),
                probe.layout,
                f"{points_text(pair.difference)}{unless}",
                f"{pair.finetuned_seconds:.1f}",
                f"{pair.probe_seconds:.1f}",
            )
        )
    header = ("checkpoint", "fine-tuned", "linear probe", "seeds of the probe", "probe minus fine-tuned, points")
    return Table((*header, "seconds a cell, fine-tuned", "seconds a cell, probe"), rows, frozenset({5, 6}))


def forecast_table(task: TaskResult) -> Table | None:
    """The forecasts, those that are not given with the reason, and below them the backtests that decided it."""
    rows = []
    for curve in task.curves:
        for point in curve.forecast:
            rows.append(
                (
                    curve.kind,
                    f"forecast at {point.multiple:g}x",
                    tokens_text(point.tokens),
                    percent_text(point.score),
                    "not measured",
                )
            )
        for missing in curve.withheld:
            what, tokens = f"forecast at {missing.multiple:g}x", tokens_text(missing.tokens)
            rows.append((curve.kind, what, tokens, "not given", missing.reason))
        for test in curve.backtests:
            made = Estimate(test.forecast, test.low, test.high)
            verdict = {True: "inside", False: "outside", None: ""}[test.held]
            rows.append(
                (
                    curve.kind,
                    f"backtest from {tokens_text(test.made_at_tokens)}",
                    tokens_text(test.tokens),
                    percent_text(made),
                    f"{100 * test.measured:.1f} % measured, {verdict}".rstrip(", "),
                )
            )
    header = ("checkpoints", "what", "tokens", "score expected", "outcome")
    return Table(header, rows, wrapped=frozenset({4})) if rows else None


def label_table(task: TaskResult) -> Table | None:
    """The value of each checkpoint in labels."""
    if not task.labels:
        return None
    counted = any(equivalent.labels > 1 for equivalent in task.labels)

    def amount(value: float | None) -> str:
        return "" if value is None else (f"{value:,.0f}" if counted else f"{100 * value:.0f} % of all")

    rows = []
    for equivalent in task.labels:
        most = max(label.labels for label in task.labels)
        if equivalent.state == "more_than_all":
            worth = f"more than all {amount(most)}"
        elif equivalent.state == "fewer_than_fewest":
            worth = "no more than the fewest tried"
        else:
            worth = amount(equivalent.worth)
        low = "fewest tried or fewer" if equivalent.low_open else (amount(equivalent.low) or "more than all")
        high = "more than all" if equivalent.high_open else (amount(equivalent.high) or "fewest tried or fewer")
        interval = (
            f"(no interval: {equivalent.refused})"
            if equivalent.refused
            else f"[{low or 'more than all'}, {high or 'fewest tried'}]"
        )
        gained = equivalent.worth - equivalent.labels if equivalent.worth is not None else None
        rows.append(
            (
                equivalent.checkpoint,
                amount(equivalent.labels),
                worth,
                interval,
                "" if gained is None else f"{amount(gained)}",
            )
        )
    return Table(("checkpoint", "labels used", f"{task.floor} needs", "interval", "labels gained"), rows)


def curve_csv(analysis: Analysis) -> str:
    """Every checkpoint of every task as one CSV table."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        (
            "task",
            "metric",
            "kind",
            "budget_tokens",
            "control",
            "label_fraction",
            "epochs_factor",
            *OTHER_UNITS,
            "score",
            "score_low",
            "score_high",
            "median",
            "gap_closed",
            "gap_closed_low",
            "gap_closed_high",
            "runs",
            "failed_runs",
            *(f"{name}{end}" for name in MEASURES for end in _MEASURE_ENDS),
        )
    )
    writer.writerows(_csv_rows(analysis))
    return stream.getvalue()


def _csv_rows(analysis: Analysis) -> Iterator[Sequence[object]]:
    for task in analysis.tasks:
        yield from (_csv_row(task.task, task.metric, checkpoint) for checkpoint in task.checkpoints)
    if analysis.macro is not None:
        name = f"mean of {', '.join(analysis.macro.tasks)}"
        yield from (_csv_row(name, analysis.macro.metric, checkpoint) for checkpoint in analysis.macro.checkpoints)


def _csv_row(task: str, metric: str | None, checkpoint: CheckpointResult) -> Sequence[object]:
    closed = checkpoint.gap_closed
    return (
        task,
        metric,
        checkpoint.kind,
        checkpoint.budget_tokens,
        checkpoint.control,
        checkpoint.label_fraction,
        checkpoint.epochs_factor,
        *(None if checkpoint.cost is None else getattr(checkpoint.cost, unit) for unit in OTHER_UNITS),
        _number(checkpoint.score.value),
        checkpoint.score.low,
        checkpoint.score.high,
        _number(checkpoint.median),
        *((None, None, None) if closed is None else (closed.value, closed.low, closed.high)),
        checkpoint.runs,
        checkpoint.failed_runs,
        *(figure for name in MEASURES for figure in _measure_figures(checkpoint, name)),
    )


def _measure_figures(checkpoint: CheckpointResult, name: str) -> Sequence[float | None]:
    """A measure and its difference to scratch, each with its interval."""
    measured = checkpoint.measures.get(name)
    pair = (None, None) if measured is None else (measured.value, measured.against_scratch)
    return [
        figure
        for estimate in pair
        for figure in ((None, None, None) if estimate is None else (estimate.value, estimate.low, estimate.high))
    ]


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def score_text(score: Estimate) -> str:
    """A score in percent with its interval, or why there is none."""
    return percent_text(score) + (f" ({score.refused})" if score.refused else "")


def amount_text(estimate: Estimate | None, *, signed: bool = False) -> str:
    """A number with its interval: `0.512 [0.480, 0.551]`."""
    if estimate is None:
        return ""
    form = "{:+.3f}" if signed else "{:.3f}"
    value = form.format(estimate.value)
    if estimate.low is None or estimate.high is None:
        return f"{value} ({estimate.refused})" if estimate.refused else value
    return f"{value} [{form.format(estimate.low)}, {form.format(estimate.high)}]"


def closed_text(closed: Estimate) -> str:
    """Gap closed in percent with its interval; 0 and 100 % at the ends of the gap, by definition."""
    return percent_text(closed) + (f" ({closed.refused})" if closed.refused else "")


def _crossing_value(crossing: Crossing, line: Sequence[tuple[float, float]]) -> str:
    if crossing.state == "measured" and crossing.tokens is not None:
        return tokens_text(crossing.tokens)
    if crossing.state == "lost_again":
        return "lost again at a later budget"
    if crossing.state == "already_reached":
        return f"already reached at the smallest budget, {tokens_text(line[0][0])}"
    return f"not reached by {tokens_text(line[-1][0])}"


def _amount_text(unit: str, amount: float | None, currency: str) -> str:
    if amount is None:
        return ""
    if unit == "money":
        return money_text(amount, currency)
    return duration_text(amount) if unit == "hours" else f"{amount:.2e}"


def _metric(checkpoint: CheckpointResult, name: str, form: str) -> str:
    value = checkpoint.metrics.get(name, checkpoint.metrics.get(f"eval_{name}"))
    return "" if value is None else form.format(value)
