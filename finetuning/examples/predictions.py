"""Gathering of row outputs over ranks into one prediction per example id, and the prediction files."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from finetuning.examples.recipe import Feature
from runtime.files.whole_files import whole_file, write_text
from runtime.plurals import counted
from runtime.processes.collectives import sum_over_ranks

RowKey = tuple[str, int]  # example id, window


def row_key(feature: Feature) -> RowKey:
    """The key that identifies a row from file to prediction, independent of its position."""
    return str(feature["example_id"]), int(feature.get("window", 0))


class RowCollector:
    """Gathers per-row tensors by row key, over batches and ranks, and checks that each row came exactly once."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self.index = {row_key(feature): i for i, feature in enumerate(features)}
        if len(self.index) != len(features):
            raise ValueError(
                f"{counted(len(features) - len(self.index), 'row')} with the id of another: ids must be unique"
            )
        self.seen = np.zeros(len(features), dtype=np.int64)
        self.rows: dict[str, np.ndarray] = {}

    def add(self, features: Sequence[Feature], values: Mapping[str, torch.Tensor]) -> None:
        """Store the first len(features) rows of each tensor [R, ...] (rows after them are fillers)."""
        places = [self.index[row_key(feature)] for feature in features]
        np.add.at(self.seen, places, 1)
        for name, tensor in values.items():
            block = tensor.detach().to(torch.float64).cpu().numpy()
            if name not in self.rows:
                self.rows[name] = np.zeros((len(self.seen), *block.shape[1:]))
            if block.shape[1:] != self.rows[name].shape[1:]:
                raise AssertionError(f"{name}: rows of shape {block.shape[1:]} after {self.rows[name].shape[1:]}")
            self.rows[name][places] = block[: len(places)]

    def gather(self, device: torch.device | str = "cpu") -> dict[str, np.ndarray]:
        """All ranks' rows [N, ...] in the order of the features; every rank must call this.

        Each rank leaves the other ranks' rows zero, so that a sum combines them.
        """
        seen = _sum(self.seen, device)
        wrong = [key for key, i in self.index.items() if seen[i] != 1]
        if wrong:
            raise AssertionError(f"{len(wrong)} rows were not predicted exactly once, the first: {wrong[:3]}")
        return {name: _sum(block, device) for name, block in sorted(self.rows.items())}


def require_each_id_once(predictions: Mapping[str, Any], ids: Iterable[str]) -> None:
    """Raise AssertionError unless the predictions are for exactly these ids."""
    wanted = list(ids)
    missing, foreign = set(wanted) - set(predictions), set(predictions) - set(wanted)
    if len(set(wanted)) != len(wanted) or missing or foreign:
        raise AssertionError(
            f"ids without a prediction {sorted(missing)[:3]}, predictions without an id {sorted(foreign)[:3]}"
        )


def write_finite_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all; NaN and infinity become null. Makes the folder if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(_finite(value), ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file (UTF-8, LF) whole or not at all. Makes the folder if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
        text.detach()  # flushes; the file stays open


def _sum(block: np.ndarray, device: torch.device | str) -> np.ndarray:
    return sum_over_ranks(torch.from_numpy(block.copy()).to(device)).cpu().numpy()


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
