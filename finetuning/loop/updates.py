"""One update of a fine-tuning run: micro-batches, loss and random seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from finetuning.examples.batches import BatchShape, rank_micro_batches
from finetuning.examples.recipe import Feature, Recipe
from finetuning.loop.evaluation import to_device
from pretraining.engines.engine import Engine

NOT_A_MEASURE = ("update", "epoch", "learning_rate", "gradient_norm")

Sums = dict[str, list[float]]  # by measure: sum and number of the finite values; JSON, since a resume needs it


def add_update(sums: Sums, values: Mapping[str, float]) -> None:
    """Add an update's measures; one that is not finite (the update was skipped) does not count."""
    for name, value in values.items():
        if name not in NOT_A_MEASURE and math.isfinite(value):
            total, count = sums.get(name, (0.0, 0.0))
            sums[name] = [total + value, count + 1]


def means(sums: Sums) -> dict[str, float]:
    """The mean of every measure over the updates entered."""
    return {name: total / count for name, (total, count) in sums.items()}


MicroBatch = tuple[list[Feature], torch.Tensor]  # rows, and the share [R] of each in the update's loss


def micro_batches(
    features: Sequence[Feature], batch: np.ndarray, shape: BatchShape, filler: Feature, *, rank: int, world_size: int
) -> list[MicroBatch]:
    """One rank's part of a global batch; shares add up to 1 over all ranks and micro-batches, fillers have none."""
    total = sum(float(features[i].get("weight", 1.0)) for i in batch)
    if total <= 0:
        raise ValueError("the weights of a batch's rows sum to zero: class weights must be above zero")
    parts = []
    for rows in rank_micro_batches(batch, shape, rank=rank, world_size=world_size):
        shares = [float(features[i].get("weight", 1.0)) / total if i >= 0 else 0.0 for i in rows]
        parts.append(([features[i] if i >= 0 else filler for i in rows], torch.tensor(shares)))
    return parts


def train_update(
    recipe: Recipe, engine: Engine, parts: Sequence[MicroBatch], learning_rate: float
) -> dict[str, torch.Tensor]:
    """Forward, backward, step. Returns 0-d tensors that, summed over the ranks, are the update's mean measures.

    The loss is normalised by the weight of the whole update, not averaged over micro-batches.
    """
    sums: dict[str, torch.Tensor] = {}
    for number, (rows, shares) in enumerate(parts, start=1):
        batch = to_device(recipe.collate(rows), engine.device)
        shares = shares.to(engine.device)
        outputs = engine(**{name: batch[name] for name in recipe.model_inputs if name in batch})
        values = {name: weighted_sum(value, shares) for name, value in recipe.measure(outputs, batch).items()}
        engine.backward(values["loss"], last=number == len(parts))
        for name, value in values.items():
            sums[name] = sums[name] + value.detach() if name in sums else value.detach()
    norm = engine.step(learning_rate)
    return {**sums, "gradient_norm": norm.detach().float() / engine.ranks.world_size}


def weighted_sum(values: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Sum of values [R] times shares [R]; a filler's value is ignored even if it is not finite."""
    return (values.float().masked_fill(shares == 0, 0.0) * shares).sum()


def reseed(seed: int, update: int, rank: int) -> None:
    """Seed an update's random numbers by its position alone, so that a resumed run draws the same dropout."""
    torch.manual_seed(int(np.random.SeedSequence([seed, update, rank]).generate_state(1)[0]))
