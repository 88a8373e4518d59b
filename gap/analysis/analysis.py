"""Analysis of a scores.jsonl: everything that the report shows."""

from __future__ import annotations

import json
import math
import platform
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gap.analysis.certainty import with_certainty
from gap.analysis.macro import macro_average
from gap.analysis.results import Analysis, TaskResult
from gap.analysis.tables.costs import CheckpointCost, Prices, series_costs
from gap.analysis.tables.task_study import TaskStudy, study_task
from gap.analysis.tables.task_table import tabulate
from gap.analysis.task_analysis import analyse_task
from gap.cells.provenance import made_of, precision_notes
from gap.cells.store import read_scores, reported_cells
from gap.intervals.bootstrap import Resampling
from gap.intervals.holm import holm
from pretraining.checkpoints.series import read_series
from runtime.plurals import counted

FEWEST_CLUSTERS = 20  # of examples, for an interval that resamples them (docs/decisions.md)
PACKAGES = ("numpy", "scipy", "torch", "transformers", "deepspeed", "webdataset", "datasets", "tokenizers")


def analyse(
    scores_path: str | Path,
    *,
    series: str | Path | Sequence[Mapping[str, Any]] | None = None,
    prices: Prices | None = None,
    draws: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
    name: str | None = None,
    commands: Sequence[str] = (),
    made: Mapping[str, str] | None = None,
    planned: Collection[str] | None = None,
    resolve: float | None = None,
) -> Analysis:
    """Analyse all tasks of a scores.jsonl.

    series: series.json, its folder or its rows (FLOPs, hours, validation loss; without it the axis is tokens only).
    commands, made: the command lines that made the cells, and their options, for the report. planned: fingerprints of
    the cells that belong to the study; others in the file are left out. resolve: the difference in score that seeds are
    planned for; None: one point, or the gap if it is not resolved. Raises ValueError if a task has no scratch cells or
    its cells were not scored on the same examples.
    """
    path, prices = Path(scores_path), prices or Prices()
    cells = reported_cells(read_scores(path), planned)[0]
    resampling = Resampling(draws=draws, seed=seed)
    studies, notes = read_studies(
        path,
        series=series,
        prices=prices,
        resampling=resampling,
        confidence=confidence,
        planned=planned,
    )
    return Analysis(
        name=name or path.resolve().parent.name,
        tasks=corrected([_task_result(study, prices, resolve, resampling) for study in studies], confidence),
        confidence=confidence,
        draws=draws,
        seed=seed,
        currency=prices.currency,
        priced=prices.per_device_hour > 0,
        commands=tuple(commands),
        made={**made_of(cells), **(made or {})},
        versions=installed_versions(),
        notes=(*notes, *precision_notes(cells)),
        macro=macro_average(studies),
    )


def corrected(tasks: Sequence[TaskResult], confidence: float) -> tuple[TaskResult, ...]:
    """The tasks with the p-values of their gaps corrected for their number; an answer that does not hold then says so.

    Each task's own numbers stay: the correction is about the claim that this task, of all, has a gap.
    """
    adjusted = iter(holm([task.gap_p_value for task in tasks if task.gap_p_value is not None]))
    found = []
    for task in tasks:
        value = None if task.gap_p_value is None else next(adjusted)
        answer = task.answer
        if value is not None and len(tasks) > 1 and value > 1 - confidence and not task.gap.includes_zero:
            answer += (
                f" Among the {len(tasks)} tasks of this study that is not resolved: by Holm's correction for their "
                f"number p is {value:.2g}."
            )
        found.append(replace(task, gap_adjusted_p_value=value, answer=answer))
    return tuple(found)


def read_studies(
    path: Path,
    *,
    series: str | Path | Sequence[Mapping[str, Any]] | None,
    prices: Prices,
    resampling: Resampling,
    confidence: float,
    planned: Collection[str] | None = None,
) -> tuple[list[TaskStudy], list[str]]:
    """One study per task, in the order of the task names, and notes about the file."""
    costs: Sequence[CheckpointCost] = ()
    if isinstance(series, (str, Path)):
        costs = series_costs(read_series(series), prices)
    elif series is not None:
        costs = series_costs(series, prices)
    cells, left_out = reported_cells(read_scores(path), planned)
    if not cells:
        others = f" of this plan ({left_out} of other options, checkpoints or code)" if left_out else ""
        raise ValueError(f"{path} holds no finished cell{others}: run the cells first")
    whose = "of other options, checkpoints or code than this report's"
    notes = [f"{left_out} older cells in {path.name}, {whose}, are left out."] if left_out else []
    if any(cost.hours and not cost.devices_known for cost in costs):
        notes.append("series.json does not record the number of devices: device-hours assume 1; see --devices.")
    studies = []
    for task in sorted({cell.task for cell in cells}):
        table = tabulate(task, [cell for cell in cells if cell.task == task], path.parent)
        studies.append(study_task(table, costs, _for_task(resampling, task), confidence))
    return studies, notes


def _task_result(study: TaskStudy, prices: Prices, resolve: float | None, resampling: Resampling) -> TaskResult:
    """A task's result with what its clusters are, and with loss and calibration."""
    result = analyse_task(study, prices, resolve)
    cluster, notes = study.table.cluster, result.notes
    if result.num_clusters is not None and result.num_clusters < FEWEST_CLUSTERS:
        notes = (
            *notes,
            f"The scored examples are of {counted(result.num_clusters, cluster)}: intervals from fewer than "
            f"{FEWEST_CLUSTERS} are too short. Give more.",
        )
    result = replace(result, cluster=cluster, notes=notes)
    return with_certainty(result, study, _for_task(resampling, study.table.task))


def _for_task(resampling: Resampling, task: str) -> Resampling:
    """The draws of a task: its own examples, the seeds of all tasks."""
    return replace(resampling, example_stream=zlib.crc32(task.encode()))


def installed_versions() -> dict[str, str]:
    """Python and the packages whose version can change a number."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def analysis_json(analysis: Any) -> str:
    """The analysis (or any of its parts) as strict JSON: infinite values and NaN become null."""
    return json.dumps(_finite(asdict(analysis)), ensure_ascii=False, allow_nan=False, indent=1)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
