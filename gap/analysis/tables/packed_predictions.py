"""predictions.json: the per-example records of a whole published study in one small file.

{"schema_version": 1, "tasks": {TASK: {"examples": {"id": [...], "cluster": [...]}, "cells": {FINGERPRINT: {"score":
[...], "gold_log_probability": [...], ...}}}}}: columns in the order of the examples, null where a record has no such
value, numbers with three digits after the point. It keeps what the analysis computes with: labels and predictions only
where the metric is recomputed from them, never a text of the data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gap.cells.store import LARGEST_PREDICTIONS_BYTES, Cell, checked_records, read_predictions
from gap.measures.weighted_metrics import CORPUS_METRICS
from runtime.files.schemas import Items, Leaf, Schema, read_object
from runtime.files.whole_files import write_text

PACKED_NAME = "predictions.json"
SCHEMA_VERSION = 1
DIGITS = 3  # after the point
REMEDY = "restore the file, or publish the study again (launch/report.py RUN --publish DIR)"
OF_THE_DATA = ("cluster", "contaminated", "label")
CELL_COLUMNS = (
    "score",
    "gold_log_probability",
    "confidence",
    "rated_words",
    "overconfidence",
    "squared_error",
    "correct",
    "words",
    "true_positives",
    "predicted_entities",
    "gold_entities",
)
Columns = dict[str, list[Any]]


class _PackedTask(Schema):
    examples: dict[str, Items[Leaf]]
    cells: dict[str, dict[str, Items[Leaf]]]


class _PackedFile(Schema):
    tasks: dict[str, _PackedTask]


def pack_predictions(cells: Sequence[Cell], folder: Path, target: Path) -> None:
    """Write the records of cells, which lie relative to `folder`, into the file `target`.

    Raises ValueError if two cells of a task were scored on different examples. Cells without records stay without.
    """
    tasks: dict[str, dict[str, Any]] = {}
    before = PackedPredictions(folder)
    for cell in cells:
        if cell.predictions is None:
            continue
        records = packed_or_own(cell, folder, before)
        task = tasks.setdefault(cell.task, {"examples": {"id": sorted(records)}, "cells": {}})
        ids = task["examples"]["id"]
        if sorted(records) != ids:
            raise ValueError(f"task {cell.task}: its cells were scored on different examples; publish them apart")
        kept = (*CELL_COLUMNS, *(("prediction",) if recomputed(cell.metric, records) else ()))
        task["examples"] |= _columns(ids, records, OF_THE_DATA[: 3 if recomputed(cell.metric, records) else 2])
        task["cells"][cell.fingerprint] = _columns(ids, records, kept)
    lines = []
    for name, task in tasks.items():
        rows = ",\n".join(f"{json.dumps(key)}: {_compact(value)}" for key, value in task["cells"].items())
        lines.append(f'{json.dumps(name)}: {{"examples": {_compact(task["examples"])},\n"cells": {{\n{rows}}}}}')
    body = ",\n".join(lines)
    write_text(target, f'{{"schema_version": {SCHEMA_VERSION}, "tasks": {{\n{body}}}}}\n')


def packed_or_own(cell: Cell, folder: Path, packed: PackedPredictions) -> dict[str, dict[str, Any]]:
    """A cell's records by example id: from its own file, else from the packed ones of its study."""
    path = folder / str(cell.predictions)
    return packed.records(cell) if packed.has(cell) and not path.is_file() else read_predictions(path)


class PackedPredictions:
    """The predictions.json of a folder, read once; it may be missing."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / PACKED_NAME
        content: Mapping[str, Any] = {"tasks": {}}
        if self.path.is_file():
            content = read_object(self.path, _PackedFile, REMEDY, largest=LARGEST_PREDICTIONS_BYTES)
        self._tasks = content["tasks"]

    def has(self, cell: Cell) -> bool:
        """Whether the file holds the records of this cell."""
        return cell.fingerprint in self._tasks.get(cell.task, {"cells": {}})["cells"]

    def records(self, cell: Cell) -> dict[str, dict[str, Any]]:
        """A cell's records by example id; ValueError for columns that do not fit together or values out of range."""
        task = self._tasks[cell.task]
        columns = {**task["examples"], **task["cells"][cell.fingerprint]}
        place = f"{self.path}, cell {cell.fingerprint[:12]} of {cell.task}"
        lengths = {len(values) for values in columns.values()}
        if len(lengths) != 1:
            raise ValueError(f"{place}: columns of {sorted(lengths)} values: {REMEDY}")
        examples = [
            {key: value for key, value in zip(columns, row, strict=True) if value is not None}
            for row in zip(*columns.values(), strict=True)
        ]
        return checked_records(examples, place, REMEDY)


def recomputed(metric: str, records: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether the metric is computed from labels and predictions, not from the examples' own scores or counts."""
    counted = all("gold_entities" in record for record in records.values())
    return metric in CORPUS_METRICS and not counted


def _columns(ids: Sequence[str], records: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> Columns:
    columns = {name: [_short(records[key].get(name)) for key in ids] for name in names}
    return {name: values for name, values in columns.items() if any(value is not None for value in values)}


def _short(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    rounded = round(value, DIGITS)
    return int(rounded) if rounded == int(rounded) else rounded


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
