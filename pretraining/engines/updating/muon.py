"""Muon for the matrices of a model's layers, AdamW for everything else: one optimizer, for whole or sharded tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.distributed.tensor import DTensor, distribute_tensor

IS_MUON = "is_muon"  # a group's key: whether its parameters are matrices for Muon
MOMENTUM = 0.95
# A quintic whose slope at 0 is steep: five steps bring every singular value between 0.7 and 1.2 (Jordan et al. 2024,
# "Muon: An optimizer for hidden layers in neural networks").
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 5
SMALLEST_NORM = 1e-7


class Muon(torch.optim.Optimizer):
    """Steps along the orthogonalised momentum for matrices, as `torch.optim.Muon` does with its defaults.

    `torch.optim.Muon` takes the shard of a matrix for the whole; here each rank gathers the whole direction of an FSDP2
    shard, orthogonalises it in `dtype` and keeps its own part. DeepSpeed's flat slices (ZeRO 1 to 3) are no matrices.
    Groups marked `IS_MUON` hold matrices; the others are updated by torch's fused AdamW. Raises ValueError for a
    parameter of another shape in such a group.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        *,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0, IS_MUON: False})
        self.dtype = dtype
        for shape in (tuple(each.shape) for group in self.param_groups if group[IS_MUON] for each in group["params"]):
            if len(shape) != 2:
                raise ValueError(f"Muon updates matrices, and a parameter has the shape {shape}: leave it to AdamW")
        others = self._other_groups()
        self._adamw = torch.optim.AdamW(others, fused=True) if others else None

    def _other_groups(self) -> list[dict[str, Any]]:
        return [group for group in self.param_groups if not group[IS_MUON]]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient; returns the closure's loss.

        A nonzero `found_inf`, as in torch's fused optimizers, leaves weights and moments unchanged; the host does not
        wait for it.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        found_inf = getattr(self, "found_inf", None)
        for group in self.param_groups:
            for parameter in group["params"] if group[IS_MUON] else ():
                if parameter.grad is not None:
                    self._update(parameter, group, found_inf)
        if self._adamw is not None:
            self._adamw.param_groups, self._adamw.state = self._other_groups(), self.state
            self._adamw.found_inf, self._adamw.grad_scale = found_inf, None  # type: ignore[attr-defined]
            self._adamw.step()
        return loss

    def _update(self, parameter: torch.Tensor, group: dict[str, Any], found_inf: torch.Tensor | None) -> None:
        assert parameter.grad is not None
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        weight, gradient, momentum = (own_part(each) for each in (parameter, parameter.grad, state["momentum_buffer"]))
        applied: float | torch.Tensor = 1.0  # 0 where the update is skipped
        if found_inf is not None:
            skipped = found_inf.to(gradient.device) > 0
            gradient = gradient.masked_fill(skipped, 0.0)  # NaN times zero is NaN
            applied = (~skipped).to(gradient.dtype)
        momentum.lerp_(gradient, (1 - MOMENTUM) * applied)
        direction = gradient.lerp(momentum, MOMENTUM)  # Nesterov's
        step = part_of(orthogonalized(whole(direction, parameter, self.dtype)), parameter)
        rows, columns = parameter.shape
        rate = group["lr"] * applied
        weight.mul_(1 - rate * group["weight_decay"])
        weight.sub_(step.to(weight) * (rate * math.sqrt(max(1.0, rows / columns))))


def orthogonalized(matrix: torch.Tensor) -> torch.Tensor:
    """The matrix with its singular values moved close to 1, in its own precision, by Newton-Schulz steps; [A, B]."""
    is_tall = matrix.shape[0] > matrix.shape[1]
    current = matrix.T if is_tall else matrix
    current = current / torch.linalg.vector_norm(current, dtype=torch.float32).clamp(min=SMALLEST_NORM).to(current)
    first, third, fifth = COEFFICIENTS
    for _ in range(STEPS):
        gram = current @ current.T
        polynomial = torch.addmm(gram, gram, gram, beta=third, alpha=fifth)
        current = torch.addmm(current, polynomial, current, beta=first)
    return current.T if is_tall else current


def own_part(tensor: torch.Tensor) -> torch.Tensor:
    """What this rank holds of a tensor, sharing its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(part: torch.Tensor, like: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The whole tensor of which each rank has the part that it holds of `like`, on the mesh's device; collective."""
    if not isinstance(like, DTensor):
        return part.to(dtype)
    part = part.to(device=torch.device(like.device_mesh.device_type), dtype=dtype)
    sharded = DTensor.from_local(part, like.device_mesh, like.placements, shape=like.shape, stride=like.stride())
    return sharded.full_tensor()


def part_of(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """This rank's part, as it holds `like`, of a tensor that every rank has whole."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None).to_local()
