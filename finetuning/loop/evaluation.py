"""Evaluation of a model on a set, over all ranks: predictions and scores, independent of the batching."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from finetuning.examples.batches import evaluation_batches, row_length
from finetuning.examples.predictions import RowCollector, require_each_id_once
from finetuning.examples.recipe import Batch, EvaluationSet, Feature, Recipe
from runtime.processes.fault_points import fault_point


@dataclass(frozen=True)
class Evaluation:
    """The outcome of one pass over a set; `scores` is empty for a set without labels."""

    scores: dict[str, float]
    predictions: dict[str, Any]
    seconds: float = field(default=0.0, compare=False)  # scoring included


def evaluate(
    recipe: Recipe,
    engine: Any,
    evaluation_set: EvaluationSet,
    *,
    batch_rows: int,
    check: Callable[[], None] | None = None,
    watch: Callable[[list[list[int]]], Iterable[list[int]]] = iter,
) -> Evaluation:
    """Predict a set and score it; every rank must call this, and every rank gets the whole result.

    The model is in evaluation mode meanwhile, and back in its former mode afterwards. `check` is called after each
    batch, equally often on every rank, and may end the evaluation by raising; `watch` sees the batches pass (a bar).
    """
    started = time.perf_counter()
    features = evaluation_set.features
    lengths = np.array([row_length(feature) for feature in features], dtype=np.int64)
    shortest = features[int(lengths.argmin())]
    collector = RowCollector(features)
    was_training = engine.module.training
    engine.eval()
    try:
        with torch.no_grad():
            batches = evaluation_batches(
                lengths, batch_rows=batch_rows, rank=engine.ranks.rank, world_size=engine.ranks.world_size
            )
            for rows in watch(batches):
                _predict_batch(recipe, engine, features, rows, shortest, collector, evaluation_set.labelled)
                fault_point("finetuning.evaluation", rank=engine.ranks.rank)
                if check is not None:
                    check()
    finally:
        if was_training:
            engine.train()
    gathered = collector.gather(engine.device)
    measures = {name: gathered.pop(name) for name in list(gathered) if name.startswith("measure:")}
    predictions = recipe.finish(gathered, evaluation_set)
    require_each_id_once(predictions, evaluation_set.examples)
    if not evaluation_set.labelled:
        return Evaluation({}, predictions, time.perf_counter() - started)
    scores = {name.removeprefix("measure:"): float(values.mean()) for name, values in measures.items()}
    scores |= recipe.score(predictions, evaluation_set.examples)
    return Evaluation(scores, predictions, time.perf_counter() - started)


def forward(recipe: Recipe, engine: Any, features: Sequence[Feature]) -> tuple[Any, Batch]:
    """Collate rows, move them to the engine's device and run the model: its outputs and the batch."""
    batch = to_device(recipe.collate(features), engine.device)
    return engine(**{name: batch[name] for name in recipe.model_inputs if name in batch}), batch


def to_device(batch: Mapping[str, torch.Tensor], device: torch.device | str) -> Batch:
    """The same tensors on another device."""
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


def _predict_batch(
    recipe: Recipe,
    engine: Any,
    features: Sequence[Feature],
    rows: Sequence[int],
    filler: Feature,
    collector: RowCollector,
    labelled: bool,
) -> None:
    real = [features[i] for i in rows if i >= 0]
    outputs, batch = forward(recipe, engine, real + [filler] * (len(rows) - len(real)))
    values = dict(recipe.predict(outputs, batch))
    if labelled:
        measures = recipe.measure(outputs, batch)
        values |= {f"measure:{name}": value for name, value in measures.items()}
    collector.add(real, values)
