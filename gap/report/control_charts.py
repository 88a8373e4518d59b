"""Charts other than the curve: fewer labels, and validation loss against score."""

from __future__ import annotations

from collections.abc import Sequence

from gap.analysis.results import TaskResult
from gap.analysis.wording import checkpoint_text, tokens_text
from gap.cells.store import LINEAR_PROBE
from gap.intervals.interval import Estimate
from gap.measures.effective_labels import share_text
from gap.report.charts import STYLES, Figure, base_layout, budget_points, score_layout, score_traces


def label_chart(task: TaskResult) -> Figure | None:
    """Score over the share of the labels, scratch and pretrained; None without the control."""
    shares = sorted({checkpoint.label_fraction for checkpoint in task.checkpoints})
    if len(shares) < 2:
        return None
    traces = []
    names = sorted(
        {
            (checkpoint.kind, checkpoint.budget_tokens)
            for checkpoint in task.checkpoints
            if checkpoint.label_fraction < 1
        },
        key=str,
    )
    names_of = {"start": "your starting checkpoint"}
    for kind, budget in names:
        members = sorted(
            (
                checkpoint
                for checkpoint in task.checkpoints
                if (checkpoint.kind, checkpoint.budget_tokens) == (kind, budget)
                and checkpoint.epochs_factor == 1
                and checkpoint.control in (None, "fewer_labels", "variant")
            ),
            key=lambda checkpoint: checkpoint.label_fraction,
        )
        style = STYLES.get(kind, STYLES["raw"])
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": names_of.get(kind, kind) if budget in (0, None) else f"{kind}, {tokens_text(budget)} tokens",
                "x": [checkpoint.label_fraction for checkpoint in members],
                "y": [checkpoint.score.value for checkpoint in members],
                "error_y": error_bars([checkpoint.score for checkpoint in members]),
                "text": [checkpoint_text(checkpoint, checkpoint.score) for checkpoint in members],
                "hoverinfo": "text",
                "line": {"dash": style["dash"], "color": f"role:{kind}"},
                "marker": {"symbol": style["symbol"], "size": 9, "color": f"role:{kind}"},
            }
        )
    layout = base_layout(task.metric.replace("_", " "), percent=True)
    layout["xaxis"] = {
        **layout["xaxis"],
        "title": {"text": "share of the labelled examples"},
        "tickvals": shares,
        "ticktext": [share_text(share) if share < 1 else "all" for share in shares],
    }
    return {"data": traces, "layout": layout}


def probe_chart(task: TaskResult) -> Figure | None:
    """Score over budget, fine-tuned and by the linear probe; None without probes of two budgets."""
    if not any(len(budget_points(task, kind, LINEAR_PROBE)) > 1 for kind in ("annealed", "raw")):
        return None
    traces = [*score_traces(task), *score_traces(task, LINEAR_PROBE)]
    return {"data": traces, "layout": score_layout(task)}


def loss_chart(task: TaskResult) -> Figure | None:
    """Score over the checkpoint's validation loss, one dot per checkpoint; None without a series."""
    traces = []
    for kind in ("start", "scratch", "annealed", "raw"):
        points = [
            point
            for point in task.checkpoints
            if point.kind == kind
            and point.control is None
            and point.cost is not None
            and point.cost.validation_loss is not None
        ]
        if points:
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": kind,
                    "x": [point.cost.validation_loss for point in points if point.cost is not None],
                    "y": [point.score.value for point in points],
                    "text": [checkpoint_text(point, point.score) for point in points],
                    "hoverinfo": "text",
                    "marker": {"symbol": STYLES[kind]["symbol"], "size": 10, "color": f"role:{kind}"},
                }
            )
    if sum(len(trace["x"]) for trace in traces) < 3:
        return None
    layout = base_layout(task.metric.replace("_", " "), percent=True)
    layout["xaxis"] = {"title": {"text": "validation loss of masked tokens (nats)"}, "autorange": "reversed"}
    return {"data": traces, "layout": layout}


def error_bars(estimates: Sequence[Estimate]) -> Figure:
    return {
        "type": "data",
        "symmetric": False,
        "array": [0 if estimate.high is None else estimate.high - estimate.value for estimate in estimates],
        "arrayminus": [0 if estimate.low is None else estimate.value - estimate.low for estimate in estimates],
    }
