"""Evaluation: the MLM loss on held-out rows, each row once over any number of ranks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from pretraining.engines.engine import Engine
from pretraining.loop.batches import as_inputs
from runtime.processes.collectives import sum_over_ranks

STATISTICS = ("loss_sum", "mask_count", "correct")
NEXT_SENTENCE_STATISTICS = ("next_sentence_loss_sum", "next_sentence_count", "next_sentence_correct")


def statistics_of(*, next_sentence: bool) -> tuple[str, ...]:
    """Names of the sums, in the order in which they are stacked."""
    return STATISTICS + (NEXT_SENTENCE_STATISTICS if next_sentence else ())


def losses(sums: Mapping[str, float]) -> dict[str, float]:
    """Mean losses over masked tokens (nats) and accuracies, from sums over the global batch."""
    masked = max(sums["mask_count"], 1.0)
    result = {"loss": sums["loss_sum"] / masked, "accuracy": sums["correct"] / masked}
    if "next_sentence_loss_sum" in sums:
        pairs = max(sums["next_sentence_count"], 1.0)
        result["next_sentence_loss"] = sums["next_sentence_loss_sum"] / pairs
        result["next_sentence_accuracy"] = sums["next_sentence_correct"] / pairs
    return result


def evaluate(engine: Engine, batches: Iterable[Any], *, next_sentence: bool = False) -> dict[str, float]:
    """`validation_loss` (nats per masked token) and `validation_accuracy`; collective, without dropout."""
    names = statistics_of(next_sentence=next_sentence)
    engine.eval()
    sums = torch.zeros(len(names), dtype=torch.float64, device=engine.device)
    with torch.no_grad():
        for batch in batches:
            outputs = engine(**as_inputs(batch, engine.device))
            sums += torch.stack([outputs[name] for name in names])
    engine.train()
    total = dict(zip(names, sum_over_ranks(sums).tolist(), strict=True))
    return {f"validation_{name}": value for name, value in losses(total).items()}
