"""The MLM loss on held-out rows: each row once over all ranks, whatever their number."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from pretraining.agreement import sum_over_ranks
from pretraining.batches import as_inputs
from pretraining.engines.engine import Engine
from pretraining.loss_sums import losses, statistics_of


def evaluate(engine: Engine, batches: Iterable[Any], *, next_sentence: bool = False) -> dict[str, float]:
    """`validation_loss` (nats a masked token) and `validation_accuracy`; collective, without dropout."""
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
