"""Estimate of a rank's memory before a fine-tuning run's engine is built, by the code of the pretraining plan."""

from __future__ import annotations

import math

from transformers import PreTrainedConfig

from finetuning.examples.batches import BatchShape, row_length
from finetuning.examples.recipe import FinetuningOptions, Recipe
from finetuning.loop.training import engine_options
from pretraining.model.memory import MemoryEstimate, estimate_memory
from pretraining.plan.planned_engine import planned_sharding
from runtime.processes.ranks import Ranks


def expected_memory(
    recipe: Recipe,
    config: PreTrainedConfig,
    options: FinetuningOptions,
    shape: BatchShape,
    ranks: Ranks,
    *,
    bf16: bool,
    attention: str,
) -> MemoryEstimate | None:
    """The peak memory of a rank while it trains on a micro-batch of the longest rows; None where the model's
    code cannot be traced without values.

    The head is counted as that of masked words on one position a sequence, which is as large or larger.
    """
    engine = engine_options(options, shape, bf16=bf16)
    longest = recipe.collate([max(recipe.train_features, key=row_length)])["input_ids"]
    try:
        return estimate_memory(
            config,
            planned_sharding(engine, engine.deepspeed, ranks, bf16=engine.bf16),
            num_sequences=shape.micro_rows * math.prod(longest.shape[:-1]),  # a row of choices holds several
            sequence_length=longest.shape[-1],
            num_masked_per_sequence=1,
            num_micro_batches=shape.accumulation,
            attention=attention,
        )
    except (AttributeError, RuntimeError, TypeError, ValueError):  # how such code fails on tensors without values
        return None
