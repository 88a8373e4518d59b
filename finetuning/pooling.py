"""One vector from a sequence of hidden states."""

from __future__ import annotations

import torch

POOLINGS = ("cls", "mean", "max")


def pool(hidden: torch.Tensor, attention_mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """[B, T, D], [B, T] -> [B, D]: the first token, or the mean or maximum over the tokens that are not padding."""
    if pooling == "cls":
        return hidden[:, 0]
    keep = attention_mask.unsqueeze(-1).to(torch.bool)
    if pooling == "mean":
        return (hidden * keep).sum(dim=1) / keep.sum(dim=1).clamp(min=1)
    if pooling == "max":
        return hidden.masked_fill(~keep, torch.finfo(hidden.dtype).min).amax(dim=1)
    raise ValueError(f"pooling is {pooling!r}: it must be one of {', '.join(POOLINGS)}")


def require_head(pooling: str | None, dropout: float | None) -> None:
    """ValueError for an unknown pooling (None: the family's own), or a rate outside [0, 1)."""
    if pooling is not None and pooling not in POOLINGS:
        raise ValueError(f"--pooling {pooling}: use one of {', '.join(POOLINGS)}")
    if dropout is not None and not 0 <= dropout < 1:
        raise ValueError(f"--head_dropout {dropout}: a rate lies in [0, 1); use 0.1")
