"""What a sweep found: one row per setting, sorted by the validation mean, with paired intervals."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student_t

from finetuning.sweep import Sweep

FEWEST_SEEDS = 3
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Outcome:
    """How a cell ended: "done", "collapsed", "not_finite", "failed" or "waiting"; scores as in all_results.json."""

    status: str
    scores: Mapping[str, float]
    seconds: float = 0.0


@dataclass(frozen=True)
class Interval:
    """Mean difference over shared seeds and its 95 % interval; None where too few seeds are shared."""

    difference: float
    low: float | None
    high: float | None
    num_seeds: int


def paired_interval(scores: Mapping[int, float], reference: Mapping[int, float]) -> Interval | None:
    """Student's t over the seeds that both have (seed -> score); the interval is refused under three seeds."""
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


def table_rows(
    sweep: Sweep, outcomes: Mapping[str, Outcome], *, metric: str, compare_with: str = "baseline"
) -> list[dict[str, Any]]:
    """One dict per row of the sweep, best validation mean first; rows without any score come last.

    `outcomes` is by fingerprint. A collapsed run counts in its row's mean (leaving it out would flatter the row);
    failed ones have no score and are counted beside it. `confounded` names the options of a row that differ from the
    baseline's when there are several: nobody can say which of them made the difference.
    """
    scores = [_scores(sweep, outcomes, row, metric) for row in range(len(sweep.rows))]
    means = [float(np.mean(list(found.values()))) if found else -math.inf for found in scores]
    reference = int(np.argmax(means)) if compare_with == "best" else sweep.baseline
    order = sorted(range(len(sweep.rows)), key=lambda row: (-means[row], row))
    return [_table_row(sweep, outcomes, row, scores, metric=metric, reference=reference) for row in order]


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table with a header line."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def as_markdown(
    sweep: Sweep, rows: Sequence[Mapping[str, Any]], outcomes: Mapping[str, Outcome], *, metric: str
) -> str:
    """The table for people, the rule it was made by, and every cell that failed, by name."""
    names = list(rows[0])
    lines = [
        f"# Sweep of {sweep.recipe}: {len(sweep.rows)} settings x {len(sweep.seeds)} seeds, by the mean of {metric}",
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
            "`confounded`: these options changed together against the baseline; their effects cannot be told apart."
        )
    bad = [cell for cell in sweep.cells if outcomes[cell.fingerprint].status != "done"]
    lines += ["", "## Cells that did not end well", ""] if bad else ["", "Every cell ended well."]
    for cell in bad:
        lines.append(f"- {outcomes[cell.fingerprint].status}: {sweep.told(cell)} (cells/{cell.fingerprint[:16]})")
    return "\n".join(lines) + "\n"


def _scores(sweep: Sweep, outcomes: Mapping[str, Outcome], row: int, metric: str) -> dict[int, float]:
    found = {}
    for cell in sweep.cells:
        value = outcomes[cell.fingerprint].scores.get(metric)
        if cell.row == row and value is not None and math.isfinite(value):
            found[cell.seed] = float(value)
    return found


def _table_row(
    sweep: Sweep,
    outcomes: Mapping[str, Outcome],
    row: int,
    scores: Sequence[Mapping[int, float]],
    *,
    metric: str,
    reference: int,
) -> dict[str, Any]:
    own = [outcomes[cell.fingerprint] for cell in sweep.cells if cell.row == row]
    values = list(scores[row].values())
    interval = None if row == reference else paired_interval(scores[row], scores[reference])
    test_name = metric.replace("eval_", "test_", 1)
    tests = [one.scores[test_name] for one in own if one.scores.get(test_name) is not None]
    changes = sweep.changes(row)
    states = [one.status for one in own]
    return {
        **{name: sweep.rows[row][name] for name in sweep.varied},
        "seeds": len(values),
        "mean": _or_none(np.mean, values),
        "median": _or_none(np.median, values),
        "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "difference": None if interval is None else interval.difference,
        "low": None if interval is None else interval.low,
        "high": None if interval is None else interval.high,
        "test_mean": _or_none(np.mean, tests),
        "seconds": _or_none(np.mean, [one.seconds for one in own if one.seconds]),
        "collapsed": states.count("collapsed"),
        "failed": states.count("failed") + states.count("not_finite"),
        "reference": "yes" if row == reference else "",
        "confounded": " + ".join(changes) if len(changes) > 1 else "",
    }


def _or_none(statistic: Any, values: Sequence[float]) -> float | None:
    return float(statistic(values)) if values else None


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|")
