"""Which parameters decay, and the optimizer that updates them: AdamW, Adam or LAMB."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

JSON_TYPES = {"adamw": "AdamW", "adam": "Adam", "lamb": "Lamb"}  # name -> `optimizer.type` of a DeepSpeed JSON
OPTIMIZER_NAMES = tuple(JSON_TYPES)
LEARNING_RATE_RULES = ("none", "sqrt", "linear")
NORM_TYPES = (
    nn.LayerNorm,
    nn.RMSNorm,
    nn.GroupNorm,
    nn.modules.batchnorm._NormBase,
)


@dataclass(frozen=True)
class OptimizerOptions:
    """The optimizer and its constants; the schedule sets the rate of each update, `learning_rate` is its peak.

    `name` is "adamw", "adam" (weight decay added to the gradient) or "lamb"; "auto" takes the optimizer that a
    DeepSpeed JSON names, and AdamW where none is named. Raises ValueError for constants outside their range.
    """

    name: str = "auto"
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.name not in ("auto", *OPTIMIZER_NAMES):
            raise ValueError(f"optimizer {self.name!r} is unknown: use auto, {', '.join(OPTIMIZER_NAMES)}")
        if not (self.learning_rate >= 0 and math.isfinite(self.learning_rate)):
            raise ValueError(f"learning rate {self.learning_rate} is not a number >= 0: 1e-4 to 1e-3 are usual")
        if not (self.weight_decay >= 0 and math.isfinite(self.weight_decay)):
            raise ValueError(f"weight decay {self.weight_decay} is not a number >= 0: 0.01 is usual")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas {self.betas} are not two numbers in [0, 1): 0.9 and 0.98 are usual")
        if not (self.eps > 0 and math.isfinite(self.eps)):
            raise ValueError(f"eps {self.eps} is not above 0: 1e-6 is usual")


def is_norm(module: nn.Module) -> bool:
    """Whether a module normalises: by type, or, for the models' own classes, by the end of the class name."""
    return isinstance(module, NORM_TYPES) or type(module).__name__.endswith("Norm")


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split the trainable parameters into those that decay and those that do not; each parameter once, tied or not.

    Matrices decay (linear layers and embeddings, as in BERT); the gains and biases of norms, of whatever shape, and
    all vectors (biases) do not. This is decided by the module's type and the parameter's shape, never by its name, so
    that it holds for every model family. Raises ValueError when nothing is trainable.
    """
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    seen: set[int] = set()
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if id(parameter) in seen or not parameter.requires_grad:
                continue
            seen.add(id(parameter))
            (free if is_norm(module) or parameter.ndim < 2 else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise ValueError(
            f"{type(model).__name__} has no trainable parameter: unfreeze some before building an optimizer"
        )
    return groups


def build_optimizer(groups: Sequence[dict[str, Any]], options: OptimizerOptions) -> torch.optim.Optimizer:
    """Build the optimizer over `parameter_groups`; parameters may be plain tensors or DTensors (FSDP2).

    Adam and AdamW run as one fused kernel, on the CPU too.
    """
    constants: dict[str, Any] = {"lr": options.learning_rate, "betas": options.betas, "eps": options.eps}
    if options.name == "lamb":
        return Lamb(groups, **constants)
    fused = all(parameter.is_floating_point() for group in groups for parameter in group["params"])
    if options.name == "adam":
        return torch.optim.Adam(groups, fused=fused, **constants)
    return torch.optim.AdamW(groups, fused=fused, **constants)


def scaled_learning_rate(rate: float, *, rows: int, reference_rows: int, rule: str = "none") -> float:
    """Rescale a learning rate tuned for `reference_rows` rows per update to `rows` rows.

    "sqrt" multiplies by the root of the ratio (Adam-like optimizers: Malladi et al. 2022), "linear" by the ratio
    (Goyal et al. 2017), "none" leaves it. Raises ValueError for an unknown rule or a batch without rows.
    """
    if rule not in LEARNING_RATE_RULES:
        raise ValueError(f"learning rate rule {rule!r} is unknown: use {', '.join(LEARNING_RATE_RULES)}")
    if rows < 1 or reference_rows < 1:
        raise ValueError(f"batches of {rows} and {reference_rows} rows cannot be compared: both need at least 1")
    ratio = rows / reference_rows
    return rate * {"none": 1.0, "sqrt": math.sqrt(ratio), "linear": ratio}[rule]


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
