"""One vector from a sequence of hidden states, and the linear head on it."""

from __future__ import annotations

import torch
from torch import nn

from finetuning.encoder import Encoder, head_dropout, initialise_head

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


def require_head(pooling: str, dropout: float | None) -> None:
    """ValueError for a pooling that there is not, or a rate outside [0, 1)."""
    if pooling not in POOLINGS:
        raise ValueError(f"--pooling {pooling}: use one of {', '.join(POOLINGS)}")
    if dropout is not None and not 0 <= dropout < 1:
        raise ValueError(f"--head_dropout {dropout}: a rate lies in [0, 1); use 0.1")


class PooledClassifier(nn.Module):
    """An `Encoder`, a pooling, dropout and one linear layer; with one output it is a regression."""

    def __init__(
        self, encoder: Encoder, *, num_outputs: int, pooling: str = "cls", dropout: float | None = None
    ) -> None:
        """`dropout` is the rate in front of the linear layer; None: that of the encoder's configuration."""
        super().__init__()
        rate = head_dropout(encoder.config) if dropout is None else dropout
        require_head(pooling, rate)
        self.encoder = encoder
        self.pooling = pooling
        self.dropout = nn.Dropout(rate)
        self.head = initialise_head(nn.Linear(encoder.hidden_size, num_outputs))

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """[B, T] token ids, mask and types -> {"logits": [B, num_outputs] in float32}."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        return {"logits": self.head(self.dropout(pool(hidden, attention_mask, self.pooling))).float()}
