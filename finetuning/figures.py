"""Pictures of runs: curves over updates from journals, seeds or learning rates overlaid, and reliability diagrams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from finetuning.epoch_means import NOT_A_MEASURE
from finetuning.metrics import expected_calibration_error, reliability
from finetuning.run_log import JOURNAL_NAME, read_journal

DOTS_PER_INCH = 120
MOST_LEGEND_ENTRIES = 12

Line = Mapping[str, Any]


@dataclass(frozen=True)
class Curves:
    """What one journal holds: per update the values, and per validation the scores with the update they came after."""

    updates: NDArray[np.int64]
    values: Mapping[str, NDArray[np.float64]]  # by name, one an update; NaN where the run had none
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
    """Mean of the values since the epoch began, one an update: [N], [N] updates, [E] last updates -> [N].

    It starts anew with each epoch, since rows seen again have a lower loss and would bend a mean over the whole run.
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


def draw_curves(runs: Mapping[str, Path], path: Path, *, title: str, metric: str | None = None) -> None:
    """One PNG of one run or several overlaid (label -> output directory).

    Loss and measures per update (pale) with their cumulative mean, the learning rate, and the validation after each
    epoch: `metric` without eval_, by default the accuracy or else the loss.
    """
    curves = {label: curves_of(read_journal(directory / JOURNAL_NAME)) for label, directory in runs.items()}
    measures = list(dict.fromkeys(name for one in curves.values() for name in one.measures))
    scored = sorted({name for one in curves.values() for name in one.validations})
    panels = [*measures, "learning_rate", *(["validation"] if scored else [])]
    figure = Figure(figsize=(6 * min(2, len(panels)), 3.4 * -(-len(panels) // 2)), layout="constrained")
    axes = figure.subplots(-(-len(panels) // 2), min(2, len(panels)), squeeze=False).ravel()
    colours = colormaps["viridis"](np.linspace(0, 0.85, len(curves)))
    for axis, panel in zip(axes, panels, strict=False):
        for (label, one), colour in zip(curves.items(), colours, strict=True):
            _draw_panel(axis, panel, label, one, colour, metric=_validation_metric(scored, metric))
        axis.set_xlabel("update")
        axis.set_ylabel(_validation_metric(scored, metric) if panel == "validation" else panel.replace("_", " "))
        axis.grid(alpha=0.3)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    axes[0].legend(handles=_legend(curves, colours, validated="eval_loss" in scored), fontsize="small")
    figure.suptitle(title)
    _save(figure, path)


def draw_reliability(logits: ArrayLike, labels: ArrayLike, path: Path, *, title: str) -> None:
    """Reliability diagram (Guo et al. 2017): accuracy over confidence in bins, and how many examples each bin has."""
    bins = reliability(logits, labels)
    error = expected_calibration_error(logits, labels)
    figure = Figure(figsize=(5, 5.6), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    centres = [(one.lower + one.upper) / 2 for one in bins]
    width = bins[0].upper - bins[0].lower
    top.bar(centres, [one.accuracy for one in bins], width=width, edgecolor="black", label="accuracy")
    top.plot(
        [one.confidence for one in bins], [one.accuracy for one in bins], "o", color="black", label="mean confidence"
    )
    top.plot([0, 1], [0, 1], "--", color="grey", label="calibrated")
    top.set_ylabel("accuracy")
    top.set_title(f"{title}\nexpected calibration error {error:.3f}")
    top.legend(fontsize="small")
    bottom.bar(centres, [one.count for one in bins], width=width, edgecolor="black")
    bottom.set_xlabel("confidence")
    bottom.set_ylabel("examples")
    bottom.set_xlim(0, 1)
    _save(figure, path)


def _draw_panel(axis: Axes, panel: str, label: str, one: Curves, colour: Any, *, metric: str) -> None:
    if panel == "validation":
        if metric in one.validations:
            axis.plot(one.validation_updates, one.validations[metric], "o-", color=colour, label=label)
    elif panel == "learning_rate":
        axis.plot(one.updates, one.values.get(panel, np.full(len(one.updates), np.nan)), color=colour, label=label)
    elif panel in one.values:
        axis.plot(one.updates, one.values[panel], color=colour, alpha=0.25, linewidth=0.8)
        means = cumulative_mean(one.values[panel], one.updates, one.validation_updates)
        axis.plot(one.updates, means, color=colour, label=label)
        if panel == "loss" and "eval_loss" in one.validations:
            axis.plot(one.validation_updates, one.validations["eval_loss"], "x--", color=colour)


def _legend(curves: Mapping[str, Curves], colours: NDArray[Any], *, validated: bool) -> list[Line2D]:
    """What the lines of the first panel, the loss, are: the runs by colour, or the two lines of one, and the dashed."""
    handles: list[Line2D] = []
    if len(curves) == 1:
        handles += [
            Line2D([], [], color=colours[0], alpha=0.25, linewidth=0.8, label="each update"),
            Line2D([], [], color=colours[0], label="mean since the epoch began"),
        ]
    elif len(curves) <= MOST_LEGEND_ENTRIES:
        handles += [Line2D([], [], color=colour, label=label) for label, colour in zip(curves, colours, strict=True)]
    if validated:
        colour = colours[0] if len(curves) == 1 else "grey"
        handles.append(Line2D([], [], color=colour, linestyle="--", marker="x", label="validation"))
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
    temporary = path.with_name(f".{path.name}.tmp")
    figure.savefig(temporary, dpi=DOTS_PER_INCH, format="png")
    temporary.replace(path)
