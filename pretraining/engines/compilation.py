"""torch.compile of a model's training pass: the whole model where it is whole, else each of its layers.

A model whose parameters are gathered layer by layer (FSDP2, ZeRO-3) is compiled layer by layer. Evaluation is never
compiled: it would need graphs of its own. torch keeps compiled code in its cache between starts.

A micro-batch without padding comes without a mask, and would be a second graph, compiled whenever the first padded
micro-batch appears. Where the compiled code adds the mask to the scores anyway, it gets one each time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pretraining.model.families import repeated_layers
from pretraining.model.masked_lm import PretrainingModel
from runtime.processes.restoring import remember_compiler


class Compilation:
    """Compiles the training pass of a module in place; nothing is compiled before the next forward pass."""

    def __init__(self, module: nn.Module, *, by_layer: bool) -> None:
        parts = repeated_layers(module) if by_layer else [module]
        self._parts = [(part, part.forward) for part in parts]

    def start(self, *, must: bool = False) -> None:
        """Use compiled code from the next training pass on, for each shape of micro-batch.

        What the compiler cannot do runs as it is, on this rank alone if need be, unless it `must` be compiled: then its
        error is raised.
        """
        remember_compiler()
        torch._dynamo.config.suppress_errors = not must
        torch._dynamo.config.cache_size_limit = max(64, torch._dynamo.config.cache_size_limit)
        for part, plain in self._parts:
            compiled = torch.compile(plain, dynamic=False)
            part.forward = _in_training(part, compiled, plain)

    def stop(self) -> None:
        """Go back to plain execution."""
        for part, plain in self._parts:
            part.forward = plain


def _in_training(part: nn.Module, compiled: Any, plain: Any) -> Any:
    def forward(*arguments: Any, **inputs: Any) -> Any:
        if not part.training:
            return plain(*arguments, **inputs)
        if inputs.get("attention_mask") is None and _adds_masks(part):
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        return compiled(*arguments, **inputs)

    return forward


def _adds_masks(part: nn.Module) -> bool:
    return isinstance(part, PretrainingModel) and part.config._attn_implementation == "eager"
