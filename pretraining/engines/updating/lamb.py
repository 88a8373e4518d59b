"""LAMB, for whole parameters and for shards of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch


class Lamb(torch.optim.Optimizer):
    """LAMB: Adam's direction, scaled for each matrix by the norm of its weights (You et al. 2020, Algorithm 2).

    Vectors (biases and gains) take the unscaled step, as in the authors' code. A parameter must be whole, or a DTensor,
    whose norms are taken over all its shards; DeepSpeed's flat slices (ZeRO 1 to 3) have no such norm.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient; returns the closure's loss.

        A nonzero `found_inf`, as in torch's fused optimizers, leaves weights and moments unchanged.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        skips = bool(getattr(self, "found_inf", 0.0))
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group, skips=skips)
        return loss

    def _update(self, parameter: torch.Tensor, group: dict[str, Any], *, skips: bool) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        if skips:
            return
        state["step"] += 1
        step = int(state["step"])
        first_beta, second_beta = group["betas"]
        gradient = parameter.grad
        assert gradient is not None
        mean = state["exp_avg"].lerp_(gradient, 1 - first_beta)
        square = state["exp_avg_sq"].mul_(second_beta).addcmul_(gradient, gradient, value=1 - second_beta)
        direction = (mean / (1 - first_beta**step)) / ((square / (1 - second_beta**step)).sqrt() + group["eps"])
        if group["weight_decay"]:
            direction = direction + group["weight_decay"] * parameter
        if parameter.ndim >= 2:
            direction = direction * trust_ratio(parameter, direction)
        parameter.sub_(direction * group["lr"])


def trust_ratio(weight: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """Norm of the weights over the norm of the step, both over all shards of a DTensor; 1 where either is zero; 0-d."""
    weight_norm, direction_norm = full_norm(weight), full_norm(direction)
    ratio = weight_norm / direction_norm
    return torch.where((weight_norm > 0) & (direction_norm > 0), ratio, torch.ones_like(ratio))


def full_norm(tensor: torch.Tensor) -> torch.Tensor:
    """The Euclidean norm of a whole tensor, also when each rank holds a shard of it (a DTensor); 0-d."""
    norm = torch.linalg.vector_norm(tensor)
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm
