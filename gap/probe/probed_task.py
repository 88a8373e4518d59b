"""A task's linear probe on one encoder: its training examples, its score and its records, all that decides a cell."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from finetuning.examples.recipe import Recipe
from finetuning.model.heads import Head
from gap.probe.frozen import FrozenEngine, probe
from gap.tasks.kinds.task_data import Record, TaskData
from gap.tasks.records import cell_metrics, example_records
from gap.tasks.rows import SCORED, cell_view, held_out, label_subset


@dataclass(frozen=True)
class ProbedTask:
    """The outcome on the scored examples; `details` say how it came about."""

    metrics: Mapping[str, float]
    records: list[Record]
    status: str
    seconds: float
    details: Mapping[str, Any]


def probe_task(
    data: TaskData,
    rows: Recipe,
    load: Callable[[Head], nn.Module],
    *,
    label_fraction: float,
    pooling: str,
    batch_rows: int,
    device: torch.device,
    bf16: bool,
    contaminated: Collection[str] = (),
) -> ProbedTask:
    """Probe the encoder that `load` gives for a head of the recipe, with all of the task's `rows`.

    The strength of its penalty is chosen on the held-out part of a search with one split.
    """
    ids = set(label_subset(data, label_fraction))
    view = cell_view(data, rows, ids)
    started = time.perf_counter()
    engine = FrozenEngine(view, load(view.head), pooling=pooling, device=device, bf16=bf16)
    result = probe(view, engine, held_out(data, ids), batch_rows=batch_rows)
    seconds = time.perf_counter() - started
    records = example_records(data, result.predictions[SCORED], contaminated)
    metrics = cell_metrics(data, result.scores[SCORED], "", records)
    details = {
        "training_examples": len(ids),
        "strength": result.strength,
        "converged": result.converged,
        "reason": result.reason,
    }
    return ProbedTask(metrics, records, result.status, seconds, details)
