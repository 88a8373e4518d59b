"""The report's charts as PNG and SVG for papers, by matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import figure as of_matplotlib
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from gap.analysis.wording import tokens_text
from gap.report.chart_list import DrawnChart
from gap.report.charts import PERCENT, Figure
from runtime.files.whole_files import whole_file

COLOURS = {
    "annealed": "#0b5cad",
    "raw": "#b3530a",
    "scratch": "#5f6770",
    "start": "#96203f",
    "self": "#8a6d00",
    "reference": "#1d7a4a",
}
OTHER = "#7b3fa0"
DASHES = {
    "solid": "-",
    "dash": "--",
    "dot": ":",
    "dashdot": "-.",
    "longdash": (0, (8, 3)),
    "longdashdot": (0, (8, 2, 1, 2)),
}
MARKERS = {
    "circle": "o",
    "circle-open": "o",
    "square-open": "s",
    "triangle-down": "v",
    "triangle-up": "^",
    "star": "*",
    "x": "x",
    "cross": "P",
    "diamond": "D",
    "diamond-open": "D",
    "line-ns-open": "|",
}
DOTS_PER_INCH = 200


def draw_figures(charts: Sequence[DrawnChart], folder: Path) -> None:
    """Write every chart into the folder as PNG and SVG."""
    folder.mkdir(parents=True, exist_ok=True)
    for chart in charts:
        draw_chart(chart.figure, folder / chart.file)


def draw_chart(chart: Figure, path: Path, kinds: Sequence[str] = (".png", ".svg")) -> list[Path]:
    """One chart of `gap.report.charts` to path.png and path.svg, or to the `kinds` that are named."""
    figure, files = matplotlib_figure(chart), [path.with_name(path.name + ending) for ending in kinds]
    for file in files:
        with whole_file(file) as stream:
            figure.savefig(stream, dpi=DOTS_PER_INCH, format=file.suffix.removeprefix("."))
    return files


def matplotlib_figure(chart: Figure) -> of_matplotlib.Figure:
    """One chart of `gap.report.charts`, drawn; it belongs to no pyplot, whose backend the caller's own plots have."""
    figure = of_matplotlib.Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    for trace in chart["data"]:
        _draw_trace(axes, trace)
    layout = chart["layout"]
    axes.set_xscale(layout["xaxis"].get("type", "linear"))
    if layout["xaxis"].get("type") == "log":
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda tokens, _: tokens_text(tokens)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    if "tickvals" in layout["xaxis"]:
        axes.set_xticks(layout["xaxis"]["tickvals"], layout["xaxis"]["ticktext"])
        axes.minorticks_off()
    if layout["xaxis"].get("autorange") == "reversed":
        axes.invert_xaxis()
    axes.set_xlabel(layout["xaxis"]["title"]["text"])
    axes.set_ylabel(layout["yaxis"]["title"]["text"])
    if layout["yaxis"].get("tickformat") == PERCENT:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
    return figure


def _draw_trace(axes: Any, trace: Figure) -> None:
    x, y = trace["x"], trace["y"]
    label = trace["name"] if trace.get("showlegend", True) else None
    if trace.get("fill") == "toself":
        axes.fill(x, y, color=_colour(trace["fillcolor"]), alpha=0.18, linewidth=0)
        return
    line, marker = trace.get("line", {}), trace.get("marker", {})
    colour = _colour(line.get("color") or marker.get("color", ""))
    if "lines" in trace["mode"]:
        dash = DASHES[line.get("dash", "solid")]
        axes.plot(x, y, linestyle=dash, color=colour, linewidth=line.get("width", 2) * 0.8, label=label)
        label = None
    if "markers" in trace["mode"]:
        symbols = marker["symbol"] if isinstance(marker["symbol"], list) else [marker["symbol"]] * len(x)
        for symbol in dict.fromkeys(symbols):
            chosen = [number for number, other in enumerate(symbols) if other == symbol]
            hollow = symbol.endswith("-open") and MARKERS[symbol] not in "x|"
            axes.plot(
                [x[number] for number in chosen],
                [y[number] for number in chosen],
                MARKERS[symbol],
                color=colour,
                markerfacecolor="none" if hollow else colour,
                markersize=marker.get("size", 6) * 0.6,
                linestyle="none",
                label=label,
            )
            label = None
    if "error_y" in trace:
        bars = trace["error_y"]
        axes.errorbar(x, y, yerr=[bars["arrayminus"], bars["array"]], color=colour, linestyle="none", capsize=3)


def _colour(role: str) -> str:
    return COLOURS.get(role.partition(":")[2], OTHER)
