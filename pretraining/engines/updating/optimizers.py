"""Which parameters decay, and the optimizer that updates them: AdamW, Adam, LAMB or Muon."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pretraining.engines.updating.lamb import Lamb
from pretraining.engines.updating.muon import IS_MUON, Muon
from pretraining.model.families import repeated_layers
from pretraining.names import LEARNING_RATE_RULES, OPTIMIZER_NAMES

MAY_FREEZE = "may_freeze"  # a group's key: it is frozen while a fresh head is trained alone
RATE_SCALE = "rate_scale"  # a group's key: its learning rate is that of the schedule times this; absent: 1
NORM_TYPES = (
    nn.LayerNorm,
    nn.RMSNorm,
    nn.GroupNorm,
    nn.modules.batchnorm._NormBase,
)


@dataclass(frozen=True)
class OptimizerOptions:
    """The optimizer and its constants; the schedule sets the rate of each update, `learning_rate` is its peak.

    `name` is "adamw", "adam" (weight decay added to the gradient), "lamb" or "muon" (Muon for the matrices of the
    layers, with a peak of its own, AdamW for the rest); "auto" takes the optimizer that a DeepSpeed JSON names, and
    AdamW where none is named. Raises ValueError for constants outside their range.
    """

    name: str = "auto"
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    muon_learning_rate: float = 0.02

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
        if self.name == "muon" and not (self.learning_rate > 0 and 0 <= self.muon_learning_rate < math.inf):
            raise ValueError(
                f"learning rates {self.learning_rate} and {self.muon_learning_rate} of Muon: the first must be above "
                "0, since the second follows its schedule, and the second a number >= 0: 1e-3 and 0.02 are usual"
            )

    @property
    def matrix_rate_scale(self) -> float | None:
        """The learning rate of the layers' matrices over that of the other parameters; None without Muon."""
        return self.muon_learning_rate / self.learning_rate if self.name == "muon" else None


def is_norm(module: nn.Module) -> bool:
    """Whether a module normalises: by type, or, for the models' own classes, by the end of the class name."""
    return isinstance(module, NORM_TYPES) or type(module).__name__.endswith("Norm")


def parameter_groups(
    model: nn.Module, weight_decay: float, *, matrix_rate_scale: float | None = None
) -> list[dict[str, Any]]:
    """Split the trainable parameters into those that decay and those that do not; each parameter once, tied or not.

    Matrices decay (linear layers and embeddings, as in BERT); the gains and biases of norms, of whatever shape, and
    all vectors (biases) do not. This is decided by the module's type and the parameter's shape, never by its name, so
    that it holds for every model family. With `matrix_rate_scale` the matrices of the repeated layers are a group of
    their own, for Muon, whose learning rate is so many times the others'. Raises ValueError when nothing is trainable,
    or no matrix is there for Muon.
    """
    muon = matrix_rate_scale is not None
    inside = {id(each) for layer in repeated_layers(model) for each in layer.parameters()} if muon else set()
    matrices: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    seen: set[int] = set()
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if id(parameter) in seen or not parameter.requires_grad:
                continue
            seen.add(id(parameter))
            if is_norm(module) or parameter.ndim < 2:
                free.append(parameter)
            else:
                (matrices if id(parameter) in inside and parameter.ndim == 2 else decayed).append(parameter)
    if muon and not matrices:
        raise ValueError(f"{type(model).__name__} has no trainable matrix in repeated layers: use --optimizer adamw")
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": weight_decay, IS_MUON: True, RATE_SCALE: matrix_rate_scale},
        {"params": decayed, "weight_decay": weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise ValueError(
            f"{type(model).__name__} has no trainable parameter: unfreeze some before building an optimizer"
        )
    return groups


def split_groups(groups: Sequence[dict[str, Any]], fresh: Collection[int]) -> list[dict[str, Any]]:
    """Divide each group into the parameters with an id in `fresh` and the others, which `set_learning_rate` freezes."""
    parts: list[dict[str, Any]] = []
    for group in groups:
        for is_fresh in (False, True):
            chosen = [parameter for parameter in group["params"] if (id(parameter) in fresh) == is_fresh]
            if chosen:
                parts.append({**group, "params": chosen, MAY_FREEZE: not is_fresh})
    return parts


def build_optimizer(
    groups: Sequence[dict[str, Any]], options: OptimizerOptions, *, bf16: bool = False
) -> torch.optim.Optimizer:
    """Build the optimizer over `parameter_groups`; parameters may be plain tensors or DTensors (FSDP2).

    Adam and AdamW run as one fused kernel, on the CPU too. Muon's products are in bfloat16 if the run is (`bf16`).
    """
    constants: dict[str, Any] = {"lr": options.learning_rate, "betas": options.betas, "eps": options.eps}
    if options.name == "lamb":
        return Lamb(groups, **constants)
    fused = all(parameter.is_floating_point() for group in groups for parameter in group["params"])
    if options.name == "muon":
        return Muon(groups, **constants, dtype=torch.bfloat16 if bf16 else torch.float32)
    if options.name == "adam":
        return torch.optim.Adam(groups, fused=fused, **constants)
    return torch.optim.AdamW(groups, fused=fused, **constants)


def optimizer_for(
    model: nn.Module,
    options: OptimizerOptions,
    *,
    bf16: bool = False,
    master_of: Callable[[nn.Parameter], nn.Parameter] | None = None,
) -> torch.optim.Optimizer:
    """The optimizer over all trainable parameters of a model, sharded or not, or over the masters of each."""
    groups = parameter_groups(model, options.weight_decay, matrix_rate_scale=options.matrix_rate_scale)
    if master_of is not None:
        groups = [{**group, "params": [master_of(weight) for weight in group["params"]]} for group in groups]
    return build_optimizer(groups, options, bf16=bf16)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float, *, frozen: bool = False) -> None:
    """Set the rate of an update, as the schedule gives it; a group with a scale takes so many times that.

    With `frozen` the groups of `split_groups` that may freeze have a rate of 0: no step and no weight decay.
    """
    for group in optimizer.param_groups:
        scale = 0.0 if frozen and group.get(MAY_FREEZE, False) else group.get(RATE_SCALE, 1.0)
        group["lr"] = rate * scale


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
