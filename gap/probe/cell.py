"""The cell of a linear probe: its score, its predictions, and how it was made."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from gap.cells.plan import PlannedCell
from gap.cells.provenance import device_text, now_text
from gap.cells.running import Workbench
from gap.cells.store import Cell, write_predictions
from gap.probe.frozen import FrozenEngine, probe
from gap.tasks.records import cell_metrics, example_records
from gap.tasks.rows import SCORED, cell_view, held_out, label_subset


def run_probe(
    bench: Workbench,
    cell: PlannedCell,
    directory: Path,
    *,
    contaminated: Collection[str] = (),
    details: Mapping[str, Any] | None = None,
) -> Cell:
    """A linear probe on the encoder with which the cell's fine-tuning run begins; its predictions are written.

    The strength of its penalty is chosen on the held-out part of a search with one split. `details` as in `run_cell`.
    """
    setting, options = cell.setting, bench.jobs.options
    data = bench.task(setting.task)
    ids = set(label_subset(data, setting.label_fraction))
    view = cell_view(data, bench.rows(setting), ids)
    started = time.perf_counter()
    seed, bf16 = cell.finetuning_seed, options.bf16 == "true"
    transformer = bench.load(setting.source, view.head, seed).fresh(seed)
    engine = FrozenEngine(view, transformer, pooling=options.rows.pooling, device=bench.device, bf16=bf16)
    result = probe(view, engine, held_out(data, ids), batch_rows=options.per_device_eval_batch_size)
    seconds = time.perf_counter() - started
    records = example_records(data, result.predictions[SCORED], contaminated)
    metrics = cell_metrics(data, result.scores[SCORED], "", records)
    name = bench.jobs.fingerprint(cell)
    path = Path("predictions") / data.spec.name / f"{name[:24]}.json"
    write_predictions(directory / path, records)
    return Cell(
        fingerprint=name,
        task=setting.task,
        kind=setting.source.kind,
        budget_tokens=setting.source.budget_tokens,
        pretraining_seed=setting.source.pretraining_seed,
        finetuning_seed=seed,
        metric=data.metric,
        score=metrics.get(data.metric, 0.0),
        control=cell.control,
        metrics=metrics,
        status=result.status,
        seconds=seconds,
        predictions=str(path),
        details={
            "training_examples": len(ids),
            "clusters": data.grouping,
            "strength": result.strength,
            "converged": result.converged,
            "device": device_text(bench.device),
            "precision": "bf16" if bf16 else "fp32",
            "finished": now_text(),
            "reason": result.reason,
            **(details or {}),
        },
    )
