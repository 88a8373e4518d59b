"""Conversion of the stream's numpy batches into the model's inputs on the device."""

from __future__ import annotations

from typing import Any

import torch

FIELDS = (
    "input_ids",
    "attention_mask",
    "token_type_ids",
    "mask_positions",
    "mask_labels",
    "mask_weights",
    "next_sentence_labels",
    "next_sentence_weights",
)


def as_inputs(batch: Any, device: torch.device) -> dict[str, torch.Tensor]:
    """A `MicroBatch` of the stream as keyword arguments of `PretrainingModel`; fields that are None are left out."""
    inputs = {}
    for name in FIELDS:
        value = getattr(batch, name)
        if value is not None:
            tensor = torch.from_numpy(value)
            # Pinned memory lets the copy overlap the previous update.
            inputs[name] = tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
    return inputs
