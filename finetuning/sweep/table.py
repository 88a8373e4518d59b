"""The table of a sweep: one row per setting, best validation mean first, with paired intervals."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student_t

from finetuning.sweep.metric import lower_is_better
from finetuning.sweep.sweep import TASK, Sweep

# Shown next to the score if cells have them: a better accuracy may come with a worse loss.
BESIDE = ("eval_loss", "eval_expected_calibration_error", "test_loss", "test_expected_calibration_error")
FEWEST_SEEDS = 3
CONFIDENCE = 0.95


@dataclass(frozen=True)
class CellOutcome:
    """How a cell ended: "done", "collapsed", "not_finite", "failed" or "waiting"; scores as in all_results.json."""

    status: str
    scores: Mapping[str, float]
    seconds: float = 0.0
    metric: str | None = None  # the validation score by which its recipe picks the best epoch


@dataclass(frozen=True)
class Interval:
    """Mean difference over shared seeds and its 95 % interval; None where too few seeds are shared."""

    difference: float
    low: float | None
    high: float | None
    num_seeds: int


def paired_interval(scores: Mapping[int, float], reference: Mapping[int, float]) -> Interval | None:
    """Student's t over the seeds that both have (seed -> score); no interval is given under three seeds."""
    shared = sorted(set(scores) & set(reference))
    if not shared:
        return None
    differences = np.array([scores[seed] - reference[seed] for seed in shared])
    mean = float(differences.mean())
    if len(shared) < FEWEST_SEEDS:
        return Interval(mean, None, None, len(shared))
    half = float(
        student_t.ppf((1 + CONFIDENCE) / 2, len(shared) - 1) * differences.std(ddof=1) / math.sqrt(len(shared))
    )
    return Interval(mean, mean - half, mean + half, len(shared))


def metrics_of_rows(sweep: Sweep, outcomes: Mapping[str, CellOutcome]) -> list[str | None]:
    """The metric of each row: the sweep's, else that of the first cell; per task where tasks vary.

    None for rows of a task without a finished cell.
    """
    own = [
        [outcome.metric for cell in sweep.cells if cell.row == row and (outcome := outcomes[cell.fingerprint]).metric]
        for row in range(len(sweep.rows))
    ]
    if sweep.metric is None and TASK in sweep.varied:
        by_task = {
            sweep.rows[row][TASK]: row_metrics[0] for row, row_metrics in reversed(list(enumerate(own))) if row_metrics
        }
        return [by_task.get(row[TASK]) for row in sweep.rows]
    first = next((row_metrics[0] for row_metrics in own if row_metrics), None)
    return [(sweep.metric if first else None) or first] * len(sweep.rows)


def table_rows(
    sweep: Sweep, outcomes: Mapping[str, CellOutcome], *, metrics: Sequence[str | None], compare_with: str = "baseline"
) -> list[dict[str, Any]]:
    """One dict per row of the sweep, best validation mean first (task by task); rows without any score come last.

    `outcomes` is by fingerprint, `metrics` by row; losses and errors ascend. A collapsed run counts in its row's mean
    (leaving it out would flatter the row); failed ones have no score and are counted separately. `confounded` names the
    options in which a row differs from its reference, if there are several: their effects cannot be separated.
    """
    scores = [_scores(sweep, outcomes, row, metric) for row, metric in enumerate(metrics)]
    worth = [_worth(item, metric) for item, metric in zip(scores, metrics, strict=True)]
    tasks = list(dict.fromkeys(row.get(TASK) for row in sweep.rows))
    order = sorted(range(len(sweep.rows)), key=lambda row: (tasks.index(sweep.rows[row].get(TASK)), -worth[row], row))
    best = {task: next(row for row in order if sweep.rows[row].get(TASK) == task) for task in tasks}
    references = [
        best[sweep.rows[row].get(TASK)] if compare_with == "best" else sweep.reference(row) for row in range(len(order))
    ]
    beside = [name for name in BESIDE if any(name in item.scores for item in outcomes.values())]
    return [
        _table_row(sweep, outcomes, row, scores, metrics, reference=references[row], beside=beside) for row in order
    ]


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table with a header line."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def as_markdown(
    sweep: Sweep,
    rows: Sequence[Mapping[str, Any]],
    outcomes: Mapping[str, CellOutcome],
    *,
    metrics: Sequence[str | None],
) -> str:
    """The table as Markdown, how it was made, and every cell that failed, by name."""
    names = list(rows[0])
    measure = " or ".join(dict.fromkeys(name for name in metrics if name))
    lines = [
        f"# Sweep of {sweep.recipe}: {len(sweep.rows)} settings x {len(sweep.seeds)} seeds, by the mean of {measure}",
        "",
        "| " + " | ".join(names) + " |",
        "|" + "---|" * len(names),
    ]
    lines += ["| " + " | ".join(_shown(row[name]) for name in names) + " |" for row in rows]
    lines += [
        "",
        f"`difference`, `low`, `high`: against the reference row with {CONFIDENCE:.0%} confidence, over the seeds both"
        " have (paired Student t);"
        f" no interval under {FEWEST_SEEDS} seeds. No correction for looking at several rows.",
    ]
    if any(row["confounded"] for row in rows):
        lines.append(
            "`confounded`: these options changed together against the reference; their effects cannot be separated."
        )
    bad = [cell for cell in sweep.cells if outcomes[cell.fingerprint].status != "done"]
    lines += ["", "## Failed or unfinished cells", ""] if bad else ["", "Every cell succeeded."]
    for cell in bad:
        lines.append(f"- {outcomes[cell.fingerprint].status}: {sweep.cell_text(cell)} (cells/{cell.fingerprint[:16]})")
    return "\n".join(lines) + "\n"


def _scores(sweep: Sweep, outcomes: Mapping[str, CellOutcome], row: int, metric: str | None) -> dict[int, float]:
    scores = {}
    for cell in sweep.cells:
        value = outcomes[cell.fingerprint].scores.get(metric or "")
        if cell.row == row and value is not None and math.isfinite(value):
            scores[cell.seed] = float(value)
    return scores


def _worth(scores: Mapping[int, float], metric: str | None) -> float:
    if not scores:
        return -math.inf
    mean = float(np.mean(list(scores.values())))
    return -mean if lower_is_better(metric or "") else mean


def _table_row(
    sweep: Sweep,
    outcomes: Mapping[str, CellOutcome],
    row: int,
    scores: Sequence[Mapping[int, float]],
    metrics: Sequence[str | None],
    *,
    reference: int,
    beside: Sequence[str],
) -> dict[str, Any]:
    own = [outcomes[cell.fingerprint] for cell in sweep.cells if cell.row == row]
    metric = metrics[row] or ""
    values = list(scores[row].values())
    interval = None if row == reference else paired_interval(scores[row], scores[reference])
    test_name = metric.replace("eval_", "test_", 1)
    changes = sweep.changes(row)
    states = [outcome.status for outcome in own]
    return {
        **{name: sweep.rows[row][name] for name in sweep.varied},
        **({"metric": metric} if len(set(metrics)) > 1 else {}),
        "seeds": len(values),
        "mean": _or_none(np.mean, values),
        "median": _or_none(np.median, values),
        "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "difference": None if interval is None else interval.difference,
        "low": None if interval is None else interval.low,
        "high": None if interval is None else interval.high,
        "test_mean": _mean_of(test_name, own),
        **{name: _mean_of(name, own) for name in beside},
        "seconds": _or_none(np.mean, [outcome.seconds for outcome in own if outcome.seconds]),
        "collapsed": states.count("collapsed"),
        "failed": states.count("failed") + states.count("not_finite"),
        "reference": "yes" if row == reference else "",
        "confounded": " + ".join(changes) if len(changes) > 1 else "",
    }


def _mean_of(name: str, outcomes: Sequence[CellOutcome]) -> float | None:
    return _or_none(np.mean, [outcome.scores[name] for outcome in outcomes if outcome.scores.get(name) is not None])


def _or_none(statistic: Any, values: Sequence[float]) -> float | None:
    return float(statistic(values)) if values else None


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|")
