"""Charts beside the curve: fewer labels, and validation loss against score."""

from __future__ import annotations

from collections.abc import Sequence

from gap.analysis.results import TaskResult
from gap.analysis.wording import checkpoint_text, tokens_text
from gap.intervals.effective_labels import share_text
from gap.intervals.interval import Estimate
from gap.report.charts import STYLES, Figure, base_layout


def label_chart(task: TaskResult) -> Figure | None:
    """Score over the share of the labels, scratch beside pretrained; None without the control."""
    shares = sorted({one.label_fraction for one in task.checkpoints})
    if len(shares) < 2:
        return None
    traces = []
    names = sorted({(one.kind, one.budget_tokens) for one in task.checkpoints if one.label_fraction < 1}, key=str)
    for kind, budget in names:
        members = sorted(
            (
                one
                for one in task.checkpoints
                if (one.kind, one.budget_tokens) == (kind, budget)
                and one.epochs_factor == 1
                and one.control in (None, "fewer_labels", "variant")
            ),
            key=lambda one: one.label_fraction,
        )
        style = STYLES.get(kind, STYLES["raw"])
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": kind if budget in (0, None) else f"{kind}, {tokens_text(budget)} tokens",
                "x": [one.label_fraction for one in members],
                "y": [one.score.value for one in members],
                "error_y": error_bars([one.score for one in members]),
                "text": [checkpoint_text(one, one.score) for one in members],
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


def loss_chart(task: TaskResult) -> Figure | None:
    """Score over the checkpoint's validation loss, one dot a checkpoint; None without a series."""
    traces = []
    for kind in ("scratch", "annealed", "raw"):
        points = [
            one
            for one in task.checkpoints
            if one.kind == kind
            and one.control is None
            and one.cost is not None
            and one.cost.validation_loss is not None
        ]
        if points:
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": kind,
                    "x": [one.cost.validation_loss for one in points if one.cost is not None],
                    "y": [one.score.value for one in points],
                    "text": [checkpoint_text(one, one.score) for one in points],
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
        "array": [0 if one.high is None else one.high - one.value for one in estimates],
        "arrayminus": [0 if one.low is None else one.value - one.low for one in estimates],
    }
