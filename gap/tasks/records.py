"""A cell's records of the scored examples, and its metrics as shares of 1."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from gap.tasks.kinds.task_data import Record, TaskData

CALIBRATION_BINS = 15


def example_records(
    data: TaskData, predictions: Mapping[str, Mapping[str, Any]], contaminated: Collection[str] = ()
) -> list[Record]:
    """One record per example, as in `gap/cells/store.py`; ids, scores in 0..1, clusters, labels, predictions."""
    return [
        {
            "id": name,
            **data.record(example, predictions[name]),
            "cluster": data.scored_clusters[name],
            **({"contaminated": True} if name in contaminated else {}),
        }
        for name, example in data.scored.items()
    ]


def cell_metrics(
    data: TaskData, scores: Mapping[str, float], prefix: str, records: Sequence[Record]
) -> dict[str, float]:
    """Every finite figure of the scored set under its plain name, and how well calibrated the confidences are."""
    plain = {name.removeprefix(prefix): value for name, value in scores.items() if name.startswith(prefix)}
    metrics = data.metrics(plain, records)
    if records and "confidence" in records[0]:
        metrics["expected_calibration_error"] = calibration_error(
            [record["confidence"] for record in records], [record["score"] for record in records]
        )
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}


def calibration_error(confidence: Sequence[float], right: Sequence[float]) -> float:
    """Mean distance between confidence and accuracy over 15 bins, weighted by count (Guo et al. 2017, equation 3)."""
    sure, hits = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=np.float64)
    bins = np.clip(np.ceil(sure * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)
    distances = [
        abs(sure[bins == number].mean() - hits[bins == number].mean()) * (bins == number).sum() for number in set(bins)
    ]
    return float(sum(distances) / len(sure))
