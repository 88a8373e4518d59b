"""The table of a GLUE run, as papers print it: scores, seconds, epochs, several seeds with mean and median."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from finetuning.recipes.texts.glue_tasks import GLUE_TASKS
from runtime.files.whole_files import write_text

SHORT_NAMES = {
    "matthews_correlation": "Matthews corr",
    "accuracy": "accuracy",
    "f1": "F1",
    "pearson": "Pearson",
    "spearmanr": "Spearman",
}
Row = dict[str, Any]


def glue_rows(results_by_task: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Row]:
    """One row per task from the results of its seeds (as in all_results.json); scores in percent.

    A task with two metrics shows both with a slash, matched and mismatched MNLI likewise. Collapsed runs count in mean
    and median: a scratch model may genuinely score the majority rate.
    """
    rows = []
    for name, results in results_by_task.items():
        task = GLUE_TASKS[name]
        keys = [f"eval_{metric}" for metric in task.metrics]
        titles = [SHORT_NAMES[metric] for metric in task.metrics]
        if name == "mnli":
            keys, titles = ["eval_accuracy", "eval_mismatched_accuracy"], ["matched acc", "mismatched acc"]
        scores = np.array([[_number(result.get(key)) for key in keys] for result in results]) * 100
        rows.append(
            {
                "task": task.title + (" (from MNLI)" if results[0].get("started_from_mnli") else ""),
                "metric": " / ".join(titles),
                "seeds": len(results),
                "mean": _slashed(_over_seeds(np.nanmean, scores)),
                "median": _slashed(_over_seeds(np.nanmedian, scores)),
                "sd": _slashed(scores.std(axis=0, ddof=1)) if len(results) > 1 else "",
                "each seed": ", ".join(_slashed(score) for score in scores) if len(results) > 1 else "",
                "seconds": f"{np.mean([_number(result.get('train_seconds')) for result in results]):.1f}",
                "epochs": f"{np.mean([_number(result.get('epoch')) for result in results]):g}",
                "best epoch": ", ".join(f"{_number(result.get('best_epoch')):g}" for result in results),
                "failed": sum(result.get("status") != "done" for result in results),
                "majority": _majority(results[0]),
                "average_of": float(np.nanmean(scores)) if np.isfinite(scores).any() else None,
            }
        )
    return rows


def write_table(rows: Sequence[Row], directory: Path, *, missing: Sequence[str] = ()) -> str:
    """glue.md and glue.csv in `directory`; returns the Markdown."""
    names = [name for name in rows[0] if name != "average_of"]
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(str(row[name]) for name in names) + " |" for row in rows]
    averages = [row["average_of"] for row in rows if row["average_of"] is not None]
    several = f"Average of the {len(averages)} tasks: {np.mean(averages):.2f}" if len(averages) > 1 else ""
    lines += ["", several or (f"Score of the task: {averages[0]:.2f}" if averages else "No score.")]
    if missing:
        lines.append(f"Not run, no data: {', '.join(missing)}; the average is not GLUE's.")
    lines += [
        "Validation scores in percent; the best epoch was picked on the same examples, so they are optimistic"
        " (by about `selection_optimism` in all_results.json)."
    ]
    if any(row["task"] == "WNLI" for row in rows):
        lines.append(
            "WNLI's validation set contradicts its training set by design: the majority rate is the usual best."
        )
    text = "\n".join(lines) + "\n"
    write_text(directory / "glue.md", text)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(directory / "glue.csv", stream.getvalue())
    return text


def _majority(result: Mapping[str, Any]) -> str:
    value = result.get(f"preflight_validation_majority_{result['metric']}")
    return "" if value is None else f"{100 * value:.2f}"


def _over_seeds(statistic: Any, scores: np.ndarray) -> np.ndarray:
    return np.array([statistic(column) if np.isfinite(column).any() else np.nan for column in scores.T])


def _slashed(values: np.ndarray) -> str:
    return "/".join("-" if np.isnan(value) else f"{value:.2f}" for value in values)


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
