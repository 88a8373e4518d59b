"""The charts of the report as plotly figures (plain dicts); colours are named by role, the page's theme sets them.

A trace that has a budget axis carries its x in every unit under meta.x, so that the page can switch the axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gap.analysis.results import CheckpointResult, CurveResult, MacroAverage, TaskResult
from gap.analysis.tables.costs import UNITS, convert_tokens
from gap.analysis.wording import cell_text, checkpoint_text, tokens_text
from gap.cells.plan import SELF_PRETRAINED, UNIGRAM
from gap.cells.store import LINEAR_PROBE
from gap.intervals.interval import Estimate
from gap.measures.weighted_metrics import SIGNED_METRICS

Figure = dict[str, Any]
STYLES = {  # readable without colour: every role has its own marker and dash
    "annealed": {"symbol": "circle", "dash": "solid"},
    "raw": {"symbol": "square-open", "dash": "dash"},
    "scratch": {"symbol": "triangle-down", "dash": "dot"},
    "start": {"symbol": "triangle-up", "dash": "longdashdot"},
    "reference": {"symbol": "star", "dash": "dashdot"},
    "other": {"symbol": "cross", "dash": "longdash"},
    "self": {"symbol": "diamond", "dash": "dot"},
    "probe": {"symbol": "diamond-open", "dash": "longdashdot"},
}
LEFT_OF_BUDGETS = 0.8  # times the smallest budget: where seeds of budget 0, which a log axis lacks, are shown
PERCENT = ".2~%"  # d3-format: 78.5 % if a narrow axis needs it, else 78 %
LABELS = {**{unit: f"pretraining {title}" for unit, title in UNITS.items()}, "money": "pretraining cost"}


def available_units(task: TaskResult, *, priced: bool) -> list[str]:
    """Units in which every budget of the task has a value, so that no point is lost when the axis is switched."""
    points = budget_points(task, "annealed") + budget_points(task, "raw")
    return [
        unit
        for unit in UNITS
        if (unit != "money" or priced) and points and all(_place(point, unit) is not None for point in points)
    ]


def score_chart(task: TaskResult) -> Figure | None:
    """Score over budget: means, bands, every seed as a dot, both ends (a reference's own scratch too) as levels,
    and the unigram floor of a zero-shot task.

    None below two budgets.
    """
    if not any(len(budget_points(task, kind)) > 1 for kind in ("annealed", "raw")):
        return None
    return {"data": score_traces(task), "layout": score_layout(task)}


def score_traces(task: TaskResult, control: str | None = None) -> list[Figure]:
    """The checkpoints of the curve, or a control of each of them: means, bands, dots, and both ends as levels."""
    traces: list[Figure] = []
    for kind in ("annealed", "raw"):
        points = budget_points(task, kind, control)
        if points:
            traces += _band(points, kind, [point.score for point in points])
            traces.append(
                _line(
                    points,
                    kind,
                    [point.score.value for point in points],
                    [checkpoint_text(point, point.score) for point in points],
                )
            )
            traces.append(_seed_dots(points, kind))
    floor = any(point.control == UNIGRAM for point in task.checkpoints)
    ends: list[tuple[str, str | None, str]] = [
        ("start", control, "start"),
        ("scratch", control, "other" if floor else "scratch"),
        ("scratch", UNIGRAM, "scratch"),
        ("reference", control, "reference"),
        ("reference_scratch", control, "other"),
    ]
    for kind, own, role in ends:
        if levels := [point for point in task.checkpoints if (point.kind, point.control) == (kind, own)]:
            traces += _level(task, levels[0], role)
    if control is None:
        traces += [_mark(point) for point in task.checkpoints if point.control == SELF_PRETRAINED]
    return traces


def score_layout(task: TaskResult) -> Figure:
    """The axes of a chart of scores."""
    return base_layout(task.metric.replace("_", " "), percent=task.metric not in SIGNED_METRICS)


def macro_chart(macro: MacroAverage) -> Figure | None:
    """Mean gap closed (mean score if no gap is resolved) over budget; None below two budgets."""
    traces: list[Figure] = []
    by_gap = any(point.gap_closed is not None for point in macro.checkpoints)
    for kind in ("annealed", "raw"):
        points = [point for point in macro.checkpoints if point.kind == kind]
        estimates = [point.gap_closed if by_gap else point.score for point in points]
        if len(points) > 1:
            values = [mean for mean in estimates if mean is not None]
            traces += _band(points, kind, values)
            hover = [checkpoint_text(point, mean) for point, mean in zip(points, values, strict=True)]
            traces.append(_line(points, kind, [mean.value for mean in values], hover))
    title = "mean share of the gap closed" if by_gap else "mean score"
    return {"data": traces, "layout": base_layout(title, percent=True)} if traces else None


def gap_chart(task: TaskResult) -> Figure | None:
    """Gap closed over budget: means, bands, the monotone fit and the intervals of the crossings; None without a gap."""
    if not task.gap_resolved or not any(curve.line for curve in task.curves):
        return None
    traces: list[Figure] = []
    for curve in task.curves:
        points = [point for point in budget_points(task, curve.kind) if point.gap_closed is not None]
        closed = [point.gap_closed for point in points if point.gap_closed is not None]
        traces += _band(points, curve.kind, closed)
        hover = [checkpoint_text(point, estimate) for point, estimate in zip(points, closed, strict=True)]
        traces.append(_line(points, curve.kind, [estimate.value for estimate in closed], hover, line=False))
        if curve.line:
            traces.append(_fit(task, curve))
        traces += _crossings(task, curve)
    return {"data": traces, "layout": base_layout("share of the gap closed", percent=True)}


def budget_points(task: TaskResult, kind: str, control: str | None = None) -> list[CheckpointResult]:
    """The checkpoints of a kind on the curve, or those of a control."""
    return [point for point in task.checkpoints if point.kind == kind and point.control == control]


def _style(point: CheckpointResult, role: str) -> dict[str, str]:
    return STYLES["probe" if point.control == LINEAR_PROBE else role]


def _level_name(point: CheckpointResult) -> str:
    """The floor and a starting checkpoint by their own names, others by their kind."""
    own = point.control == UNIGRAM or point.kind == "start"
    return point.name if own else _named(point, point.kind.replace("_", " from "))


def _named(point: CheckpointResult, name: str) -> str:
    return f"{name}, linear probe" if point.control == LINEAR_PROBE else name


def _place(point: CheckpointResult, unit: str) -> float | None:
    value = point.budget_tokens if unit == "tokens" else (None if point.cost is None else getattr(point.cost, unit))
    return float(value) if value else None


def _places(points: Sequence[CheckpointResult]) -> dict[str, list[float | None]]:
    return {unit: [_place(point, unit) for point in points] for unit in UNITS}


def _trace(places: dict[str, Any], values: Sequence[float | None], **more: Any) -> Figure:
    return {"type": "scatter", "x": places["tokens"], "y": list(values), "meta": {"x": places}, **more}


def _line(
    points: Sequence[CheckpointResult], kind: str, values: Sequence[float], hover: Sequence[str], *, line: bool = True
) -> Figure:
    style = _style(points[0], kind)
    return _trace(
        _places(points),
        values,
        mode="lines+markers" if line else "markers",
        name=_named(points[0], kind),
        text=list(hover),
        hoverinfo="text",
        line={"dash": style["dash"], "color": f"role:{kind}", "width": 2},
        marker={"symbol": style["symbol"], "size": 9, "color": f"role:{kind}"},
    )


def _band(points: Sequence[CheckpointResult], kind: str, estimates: Sequence[Estimate]) -> list[Figure]:
    """The interval as a filled band: forward along the upper ends, back along the lower."""
    kept = [(point, est) for point, est in zip(points, estimates, strict=True) if est.low is not None]
    if len(kept) < 2:
        return []
    forth = _places([point for point, _ in kept])
    places = {unit: values + values[::-1] for unit, values in forth.items()}
    values = [est.high for _, est in kept] + [est.low for _, est in reversed(kept)]
    return [
        _trace(
            places,
            values,
            mode="lines",
            fill="toself",
            fillcolor=f"band:{kind}",
            line={"width": 0},
            hoverinfo="skip",
            showlegend=False,
            name=f"{kind} interval",
        )
    ]


def _seed_dots(
    points: Sequence[CheckpointResult], kind: str, places: dict[str, list[float | None]] | None = None
) -> Figure:
    """Every cell, at its budget or the given positions; a failed run is a cross."""
    pairs = [(point, dot) for point in points for dot in point.dots]
    return _trace(
        _places([point for point, _ in pairs]) if places is None else places,
        [dot.score for _, dot in pairs],
        mode="markers",
        name=f"{kind}: each seed",
        text=[cell_text(point, dot) for point, dot in pairs],
        hoverinfo="text",
        showlegend=False,
        marker={
            "symbol": ["x" if dot.status != "done" else "circle-open" for _, dot in pairs],
            "size": 5,
            "color": f"role:{kind}",
            "opacity": 0.8,
        },
    )


def _level(task: TaskResult, checkpoint: CheckpointResult, role: str) -> list[Figure]:
    """A checkpoint without a place on the budget axis: a level across the chart, its seeds left of all budgets."""
    points = budget_points(task, "annealed") or budget_points(task, "raw")
    if not points:
        return []
    ends = _places([points[0], points[-1]])
    left = {unit: None if first is None else LEFT_OF_BUDGETS * first for unit, (first, _) in ends.items()}
    ends = {unit: [left[unit], last] for unit, (_, last) in ends.items()}
    style = _style(checkpoint, role)
    return [
        _seed_dots([checkpoint], role, {unit: [place] * len(checkpoint.dots) for unit, place in left.items()}),
        _trace(
            ends,
            [checkpoint.score.value] * 2,
            mode="lines+markers",
            name=_level_name(checkpoint),
            text=[checkpoint_text(checkpoint, checkpoint.score)] * 2,
            hoverinfo="text",
            line={"dash": style["dash"], "color": f"role:{role}", "width": 2},
            marker={"symbol": style["symbol"], "size": 8, "color": f"role:{role}"},
        ),
    ]


def _mark(point: CheckpointResult) -> Figure:
    """A control with a place on the axis of tokens: its mean with the interval."""
    low, high, value = point.score.low, point.score.high, point.score.value
    mark = _line([point], "self", [value], [checkpoint_text(point, point.score)], line=False)
    bars = {"array": [0 if high is None else high - value], "arrayminus": [0 if low is None else value - low]}
    return {**mark, "name": "the task's own texts", "error_y": {"type": "data", "symmetric": False, **bars}}


def _fit(task: TaskResult, curve: CurveResult) -> Figure:
    tokens = [token for token, _ in curve.line]
    costs = [point.cost for point in budget_points(task, curve.kind) if point.cost is not None]
    return _trace(
        _converted(costs, curve.kind, tokens),
        [value for _, value in curve.line],
        mode="lines",
        name=f"{curve.kind}: monotone fit",
        hoverinfo="skip",
        showlegend=False,
        line={"dash": STYLES[curve.kind]["dash"], "color": f"role:{curve.kind}", "width": 2},
    )


def _crossings(task: TaskResult, curve: CurveResult) -> list[Figure]:
    """Each crossing with its interval as a horizontal bar at its level; open ends run to the edge of the budgets."""
    costs = [point.cost for point in budget_points(task, curve.kind) if point.cost is not None]
    traces = []
    for crossing in curve.crossings:
        if crossing.tokens is None or crossing.refused:
            continue
        low = curve.line[0][0] if crossing.low_open else crossing.low
        high = curve.line[-1][0] if crossing.high_open else crossing.high
        text = f"{100 * crossing.level:g} % after {tokens_text(crossing.tokens)} tokens"
        traces.append(
            _trace(
                _converted(costs, curve.kind, [low, crossing.tokens, high]),
                [crossing.level] * 3,
                mode="lines+markers",
                name=f"{curve.kind}: tokens to {100 * crossing.level:g} %",
                text=[text] * 3,
                hoverinfo="text",
                showlegend=False,
                line={"color": f"role:{curve.kind}", "width": 1},
                marker={
                    "symbol": ["line-ns-open", "diamond", "line-ns-open"],
                    "size": 9,
                    "color": f"role:{curve.kind}",
                },
            )
        )
    return traces


def _converted(costs: Sequence[Any], kind: str, tokens: Sequence[float | None]) -> dict[str, list[float | None]]:
    return {unit: [convert_tokens(costs, kind, token, unit) for token in tokens] for unit in UNITS}


def base_layout(title: str, *, percent: bool) -> Figure:
    return {
        "xaxis": {"type": "log", "title": {"text": LABELS["tokens"]}, "exponentformat": "power"},
        "yaxis": {"title": {"text": title}, "tickformat": PERCENT if percent else ".2f"},
        "hovermode": "closest",
        "margin": {"l": 60, "r": 12, "t": 12, "b": 50},
        "legend": {"orientation": "h", "y": -0.22, "x": 0},
    }


def run_chart(runs: Sequence[tuple[str, TaskResult | None]]) -> Figure | None:
    """Scores over budget of several runs, annealed ones if available; each run has its own marker and dash."""
    traces: list[Figure] = []
    for number, (name, task) in enumerate(runs):
        if task is None:
            continue
        kind = "annealed" if budget_points(task, "annealed") else "raw"
        points = budget_points(task, kind)
        if len(points) < 2:
            continue
        role = _RUN_ROLES[number % len(_RUN_ROLES)]
        band = _band(points, role, [point.score for point in points])
        hover = [f"{name}<br>{checkpoint_text(point, point.score)}" for point in points]
        line = _line(points, role, [point.score.value for point in points], hover)
        line["name"] = f"{name} ({kind})"
        traces += [*band, line]
    return {"data": traces, "layout": base_layout("score", percent=True)} if traces else None


_RUN_ROLES = ("annealed", "raw", "reference", "other", "scratch")
