"""fp32 master weights of a module that computes in bf16: one cast an update, none of activations.

The module's weights are cast once after each update, so that every operation of the forward and backward pass runs in
bf16, as under FSDP2's mixed precision and DeepSpeed; gradients of all micro-batches are added in fp32. Buffers keep
their precision: rotary embeddings are computed from fp32 frequencies.
"""

from __future__ import annotations

import torch
from torch import nn


class MasterWeights:
    """Casts `module` to bf16 (or fp16) in place and keeps fp32 `parameters` by name, which the optimizer updates."""

    def __init__(self, module: nn.Module, dtype: torch.dtype = torch.bfloat16) -> None:
        self._live: list[torch.Tensor] = []
        self._masters: list[torch.Tensor] = []
        self.parameters: dict[str, nn.Parameter] = {}
        self._of: dict[int, nn.Parameter] = {}
        for name, parameter in module.named_parameters():
            master = nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad)
            self.parameters[name], self._of[id(parameter)] = master, master
            parameter.data = parameter.data.to(dtype)
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(self._collect)
            self._live.append(parameter.data)
            self._masters.append(master.data)

    def of(self, parameter: torch.Tensor) -> nn.Parameter:
        """The master of one of the module's parameters."""
        return self._of[id(parameter)]

    def publish(self) -> None:
        """Cast the masters, updated or loaded, into the module."""
        torch._foreach_copy_(self._live, self._masters)

    def _collect(self, parameter: torch.Tensor) -> None:
        """Add a micro-batch's gradient to the master's, and free it."""
        master, gradient = self._of[id(parameter)], parameter.grad
        assert gradient is not None
        if master.grad is None:
            master.grad = gradient.float()
        else:
            master.grad.add_(gradient)
        parameter.grad = None
