"""Cross-entropy over a vocabulary without an fp32 copy of all logits: in chunks of rows, forward and backward."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

# Logits of a chunk that are held in fp32 at a time: a core's cache, or a few kernels' work for a GPU.
CHUNK_ELEMENTS = {"cpu": 1 << 19, "cuda": 1 << 27}


def weighted_sums(
    logits: Tensor, labels: Tensor, weights: Tensor, *, exact_accuracy: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted cross-entropy, sum of the weights, and weighted correct predictions, each 0-d fp32.

    logits [..., V] in any floating type, labels [...] int64, weights [...]; everything is computed in fp32, whatever
    the logits are. A slot of weight zero adds exactly 0. A prediction is correct when no logit is above its label's;
    with `exact_accuracy` only the first of equal logits counts, as argmax decides, which costs a slow pass.
    """
    flat, labels = logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)
    weights = weights.reshape(-1).float()
    if torch.compiler.is_compiling():  # fused by the compiler, which makes no copy either
        losses = nn.functional.cross_entropy(flat.float(), labels, reduction="none")
        highest = flat.detach().amax(-1).float()
    else:
        losses, highest = _CrossEntropy.apply(flat, labels)
    with torch.no_grad():
        if exact_accuracy:
            correct = flat.argmax(-1) == labels
        else:
            correct = flat.gather(1, labels[:, None])[:, 0].float() >= highest
    return (losses * weights).sum(), weights.sum(), (correct.float() * weights).sum()


class _CrossEntropy(torch.autograd.Function):
    """logits [N, V], labels [N] -> cross-entropy of each row [N] and its highest logit [N], fp32."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        log_sums = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
        highest = torch.empty_like(log_sums)
        for part in _chunks(logits):
            chunk = logits[part].float()
            highest[part] = chunk.amax(-1)
            log_sums[part] = (chunk - highest[part, None]).exp_().sum(-1).log_() + highest[part]
        ctx.save_for_backward(logits, labels, log_sums)
        ctx.mark_non_differentiable(highest)
        return log_sums - logits.gather(1, labels[:, None])[:, 0].float(), highest

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Any) -> tuple[Tensor, None]:
        logits, labels, log_sums = ctx.saved_tensors
        result = torch.empty_like(logits)
        ones = torch.ones(1, 1, dtype=torch.float32, device=logits.device)
        for part in _chunks(logits):
            chunk = (logits[part].float() - log_sums[part, None]).exp_()
            chunk.scatter_add_(1, labels[part, None], -ones.expand(len(chunk), 1))
            result[part] = chunk.mul_(gradient[part, None])
        return result, None


def _chunks(logits: Tensor) -> Iterator[slice]:
    rows, width = logits.shape
    size = max(1, CHUNK_ELEMENTS.get(logits.device.type, 1 << 27) // max(1, width))
    return (slice(first, first + size) for first in range(0, rows, size))
