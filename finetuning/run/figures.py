"""Plots of runs: curves over updates from journals, of one run or several, and reliability diagrams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from finetuning.loop.run_log import JOURNAL_NAME, read_journal
from finetuning.loop.updates import NOT_A_MEASURE
from runtime.files.whole_files import whole_file

DOTS_PER_INCH = 120
MOST_LEGEND_ENTRIES = 40  # the colours of more settings cannot be distinguished either
MOST_INSIDE, LONGEST_INSIDE = 6, 40  # legend entries, and characters of one, that leave room for the curves
FAINT: dict[str, Any] = {"alpha": 0.25, "linewidth": 0.8}

Line = Mapping[str, Any]


@dataclass(frozen=True)
class Curves:
    """The content of a journal: values per update, and scores per validation with the update before it."""

    updates: NDArray[np.int64]
    values: Mapping[str, NDArray[np.float64]]  # by name, one per update; NaN where the run had none
    validation_updates: NDArray[np.int64]
    validations: Mapping[str, NDArray[np.float64]]

    @property
    def measures(self) -> list[str]:
        """Names of the task's own measures, the loss first."""
        return sorted(
            (name for name in self.values if name not in NOT_A_MEASURE), key=lambda name: (name != "loss", name)
        )


def curves_of(lines: Sequence[Line]) -> Curves:
    """Journal lines -> arrays; lines of validations are those with eval_... in them."""
    training = [line for line in lines if not _is_validation(line)]
    validations = [line for line in lines if _is_validation(line)]
    return Curves(
        updates=np.array([line["update"] for line in training], dtype=np.int64),
        values=_columns(training),
        validation_updates=np.array([line["update"] for line in validations], dtype=np.int64),
        validations=_columns(validations),
    )


def cumulative_mean(values: ArrayLike, updates: ArrayLike, epoch_ends: ArrayLike) -> NDArray[np.float64]:
    """Mean of the values since the epoch began, one per update: [N], [N] updates, [E] last updates -> [N].

    It restarts with each epoch, since rows seen again have a lower loss and would bend a mean over the whole run.
    NaN (an update that was skipped) does not enter the mean.
    """
    series = np.asarray(values, dtype=np.float64)
    epochs = np.searchsorted(np.asarray(epoch_ends, dtype=np.int64), np.asarray(updates, dtype=np.int64), side="left")
    means = np.full(len(series), np.nan)
    for epoch in np.unique(epochs):
        inside = np.flatnonzero(epochs == epoch)
        finite = np.isfinite(series[inside])
        counts = np.cumsum(finite)
        sums = np.cumsum(np.where(finite, series[inside], 0.0))
        means[inside] = np.divide(sums, counts, out=np.full(len(inside), np.nan), where=counts > 0)
    return means


def mean_over_runs(curves: Sequence[tuple[ArrayLike, ArrayLike]]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Mean of several ([N] updates, [N] values) at the updates that all have: a run that ended early ends the mean."""
    shared = reduce(np.intersect1d, [np.asarray(updates, dtype=np.int64) for updates, _ in curves])
    values = [
        np.asarray(values_of_run, dtype=np.float64)[np.isin(updates, shared)] for updates, values_of_run in curves
    ]
    return shared, np.mean(values, axis=0)


def draw_curves(
    runs: Mapping[str, Path | Sequence[Path]], path: Path, *, title: str, metric: str | None = None
) -> None:
    """One PNG of one run or several overlaid (label -> output directory, or those of the seeds of one setting).

    Loss and measures per update (pale) with their cumulative mean, the learning rate, and the validation after each
    epoch: `metric` without eval_, by default the accuracy or else the loss. Of several seeds the cumulative means are
    pale, and the mean over the seeds stands out.
    """
    places = {label: [folders] if isinstance(folders, Path) else list(folders) for label, folders in runs.items()}
    curves = {label: [curves_of(read_journal(run / JOURNAL_NAME)) for run in some] for label, some in places.items()}
    every = [run_curves for some in curves.values() for run_curves in some]
    measures = list(dict.fromkeys(name for run_curves in every for name in run_curves.measures))
    scored = sorted({name for run_curves in every for name in run_curves.validations})
    panels = [*measures, "learning_rate", *(["validation"] if scored else [])]
    colours = dict(zip(curves, _colours(len(curves)), strict=True))
    handles = _legend(curves, colours, validated="eval_loss" in scored)
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, int(12 / (0.08 * longest + 0.6)))
    outside = len(handles) > MOST_INSIDE or longest > LONGEST_INSIDE
    rows = -(-len(panels) // 2)
    height = 3.4 * rows + (0.2 * -(-len(handles) // columns) if outside else 0.0)
    figure = Figure(figsize=(6 * min(2, len(panels)), height), layout="constrained")
    axes = figure.subplots(rows, min(2, len(panels)), squeeze=False).ravel()
    name = _validation_metric(scored, metric)
    for axis, panel in zip(axes, panels, strict=False):
        for label, some in curves.items():
            _draw_panel(axis, panel, some, colours[label], metric=name)
        axis.set_xlabel("update")
        axis.set_ylabel(name if panel == "validation" else panel.replace("_", " "))
        axis.grid(alpha=0.3)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    if outside:
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize="small")
    else:
        axes[0].legend(handles=handles, fontsize="small")
    figure.suptitle(title)
    _save(figure, path)


def draw_reliability(bins: Sequence[Any], error: float, path: Path, *, title: str) -> None:
    """Reliability diagram (Guo et al. 2017): accuracy over confidence in bins, and how many examples each bin has.

    The bins and the expected calibration error are those of `finetuning.recipes.texts.metrics`.
    """
    figure = Figure(figsize=(5, 5.6), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    centres = [(cell.lower + cell.upper) / 2 for cell in bins]
    width = bins[0].upper - bins[0].lower
    top.bar(centres, [cell.accuracy for cell in bins], width=width, edgecolor="black", label="accuracy")
    top.plot(
        [cell.confidence for cell in bins],
        [cell.accuracy for cell in bins],
        "o",
        color="black",
        label="mean confidence",
    )
    top.plot([0, 1], [0, 1], "--", color="grey", label="calibrated")
    top.set_ylabel("accuracy")
    top.set_title(f"{title}\nexpected calibration error {error:.3f}")
    top.legend(fontsize="small")
    bottom.bar(centres, [cell.count for cell in bins], width=width, edgecolor="black")
    bottom.set_xlabel("confidence")
    bottom.set_ylabel("examples")
    bottom.set_xlim(0, 1)
    _save(figure, path)


def _draw_panel(axis: Axes, panel: str, runs: Sequence[Curves], colour: Any, *, metric: str) -> None:
    if panel == "validation":
        _draw_lines(axis, [(run.validation_updates, run.validations.get(metric)) for run in runs], colour, "o-")
    elif panel == "learning_rate":
        _draw_lines(axis, [(run.updates, run.values.get(panel)) for run in runs[:1]], colour, "-")
    else:
        shown = [run for run in runs if panel in run.values]
        if len(shown) == 1:
            axis.plot(shown[0].updates, shown[0].values[panel], color=colour, **FAINT)
        means = [cumulative_mean(run.values[panel], run.updates, run.validation_updates) for run in shown]
        _draw_lines(axis, [(run.updates, mean) for run, mean in zip(shown, means, strict=True)], colour, "-")
        if panel == "loss":
            validated = [(run.validation_updates, run.validations.get("eval_loss")) for run in runs]
            _draw_lines(axis, validated, colour, "x--", each=False)


def _draw_lines(
    axis: Axes, lines: Sequence[tuple[NDArray[Any], NDArray[Any] | None]], colour: Any, style: str, *, each: bool = True
) -> None:
    """Draw a single line, or of several lines the mean, and each of them pale."""
    drawn = [(updates, values) for updates, values in lines if values is not None and len(updates)]
    if len(drawn) > 1:
        for updates, values in drawn if each else []:
            axis.plot(updates, values, color=colour, **FAINT)
        drawn = [mean_over_runs(drawn)]
    for updates, values in drawn:
        axis.plot(updates, values, style, color=colour)


def _colours(number: int) -> list[Any]:
    """A palette of (nearly) distinguishable colours."""
    if number == 1:
        return [colormaps["viridis"](0.0)]
    table = "tab10" if number <= 10 else "tab20"
    return [colormaps[table](i) if number <= 20 else colormaps["nipy_spectral"](i / number) for i in range(number)]


def _legend(curves: Mapping[str, Sequence[Curves]], colours: Mapping[str, Any], *, validated: bool) -> list[Line2D]:
    """Legend of the first panel, the loss: the settings by colour, or the lines of one setting, and the dashed line."""
    handles: list[Line2D] = []
    alone = len(curves) == 1
    colour: Any = next(iter(colours.values())) if alone else "grey"
    if not alone and len(curves) <= MOST_LEGEND_ENTRIES:
        handles += [Line2D([], [], color=colours[label], label=label) for label in curves]
    if any(len(some) > 1 for some in curves.values()):
        handles.append(Line2D([], [], color=colour, label="each seed: mean since the epoch began", **FAINT))
        if alone:
            handles.append(Line2D([], [], color=colour, label="mean over seeds"))
    elif alone:
        handles += [
            Line2D([], [], color=colour, label="each update", **FAINT),
            Line2D([], [], color=colour, label="mean since the epoch began"),
        ]
    if validated:
        handles.append(Line2D([], [], color=colour, linestyle="--", marker="x", label="validation"))
    if not alone and len(curves) > MOST_LEGEND_ENTRIES:
        handles.append(Line2D([], [], linestyle="", label=f"{len(curves)} settings: see the table for their names"))
    return handles


def _validation_metric(scored: Sequence[str], metric: str | None) -> str:
    wanted = [f"eval_{metric}", "eval_accuracy", "eval_loss", *scored]
    return next((name for name in wanted if name in scored), "eval_loss")


def _columns(lines: Sequence[Line]) -> dict[str, NDArray[np.float64]]:
    names = list(dict.fromkeys(name for line in lines for name in line if name != "update"))
    return {
        name: np.array([np.nan if line.get(name) is None else float(line[name]) for line in lines]) for name in names
    }


def _is_validation(line: Line) -> bool:
    return any(name.startswith("eval_") for name in line)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        figure.savefig(file, dpi=DOTS_PER_INCH, format="png")
