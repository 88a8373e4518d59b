"""The engine protocol that the training loops use, implemented with DeepSpeed and with torch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import torch
from torch import nn

from pretraining.engines.compilation import Compilation
from pretraining.engines.updating.loss_scaling import LossScaling
from pretraining.engines.updating.optimizers import OptimizerOptions
from pretraining.names import FSDP_MODES
from runtime.processes.ranks import Ranks

Reader = Callable[[str, Sequence[int]], torch.Tensor]  # the whole tensor of a name, which must have this shape


@dataclass(frozen=True)
class EngineOptions:
    """What an engine needs to know besides the model: sharding, precision, accumulation, clipping, optimizer."""

    deepspeed: Mapping[str, Any] | None = None  # the content of the DeepSpeed JSON (`load_config`); None: PyTorch
    fsdp: str = "full_shard"  # used by PyTorch when there are several ranks
    fsdp_offload: bool = False
    hybrid_shard_size: int = 0  # ranks that share one copy of the model; 0: those of one machine
    bf16: bool = False
    fp16: bool = False  # with loss scaling; instead of bf16
    micro_batch_size: int = 1
    gradient_accumulation_steps: int = 1
    max_grad_norm: float = 1.0  # 0: no clipping
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    fresh: frozenset[str] = frozenset()  # the parameters that `Engine.freeze` leaves trainable, by plain name

    @classmethod
    def of(
        cls,
        options: object,
        *,
        deepspeed: Mapping[str, Any] | None,
        optimizer: OptimizerOptions,
        bf16: bool,
        fp16: bool = False,
        micro_batch_size: int,
        gradient_accumulation_steps: int,
        fresh: frozenset[str] = frozenset(),
    ) -> EngineOptions:
        """From a command's options: those with the same name as a field here, plus what follows from several.

        A field that the command has no option for keeps its default. Raises ValueError for a value outside its range.
        """
        derived = {
            "deepspeed": deepspeed,
            "optimizer": optimizer,
            "bf16": bf16,
            "fp16": fp16,
            "micro_batch_size": micro_batch_size,
            "gradient_accumulation_steps": gradient_accumulation_steps,
            "fresh": fresh,
        }
        named = {item.name: getattr(options, item.name) for item in fields(cls) if hasattr(options, item.name)}
        return cls(**{**named, **derived})

    def __post_init__(self) -> None:
        assert self.fsdp in FSDP_MODES
        assert not (self.bf16 and self.fp16)
        assert self.max_grad_norm >= 0  # a negative limit would flip the sign of every gradient
        if self.deepspeed is not None and self.fsdp_offload:
            raise ValueError("--fsdp_offload belongs to FSDP2: with --deepspeed, name the offload in the JSON")
        if self.deepspeed is not None and self.fsdp != FSDP_MODES[0]:
            raise ValueError(
                f"--fsdp {self.fsdp} belongs to FSDP2: with --deepspeed, the JSON's stage sets the sharding"
            )

    @property
    def half(self) -> torch.dtype | None:
        """The 16-bit type of the products; None: all in fp32."""
        return torch.bfloat16 if self.bf16 else torch.float16 if self.fp16 else None


def check_ranks(options: EngineOptions, ranks: Ranks) -> None:
    """ValueError for a sharding by PyTorch that this number of ranks does not allow; DeepSpeed has its own rules."""
    if options.deepspeed is not None:
        return
    if options.fsdp_offload and ranks.world_size == 1:
        raise ValueError(
            "--fsdp_offload shards over several ranks, and there is only one: start with torchrun, or leave it out"
        )
    if ranks.world_size > 1 and options.fsdp == "hybrid_shard" and ranks.world_size % hybrid_size(options, ranks):
        raise ValueError(
            f"--hybrid_shard_size {hybrid_size(options, ranks)} does not divide {ranks.world_size} ranks: use a divisor"
        )


def hybrid_size(options: EngineOptions, ranks: Ranks) -> int:
    """Ranks that share one copy of the model in hybrid sharding."""
    return options.hybrid_shard_size or ranks.local_world_size


class Engine(Protocol):
    """A sharded model with its optimizer. Every rank makes the same calls in the same order.

    An update is: `engine(**inputs)` and `backward(loss, last=...)` for each micro-batch, then one `step`. The losses of
    all micro-batches on all ranks are summed, never averaged: scale each by the update's global weight beforehand.
    """

    module: nn.Module
    device: torch.device
    ranks: Ranks
    options: EngineOptions
    compilation: Compilation

    @property
    def loss_scaling(self) -> LossScaling | None:
        """The loss scale; None without fp16."""
        ...

    def __call__(self, **inputs: Any) -> Any: ...

    def backward(self, loss: torch.Tensor, *, last: bool) -> None: ...

    def step(self, learning_rate: float) -> torch.Tensor:
        """Clip, update, clear the gradients; returns the gradient norm before clipping (0-d, on the device).

        A norm that is not finite means that the update was skipped and weights and moments are as before. With fp16
        gradients are divided by the loss scale before they are clipped, and the next scale is set.
        """
        ...

    def freeze(self) -> None:
        """Train the parameters of `EngineOptions.fresh` alone from here on; the others keep every bit.

        The others get no gradient, no weight decay and no moments. Call it before `load_state` of a state that was
        saved so.
        """
        ...

    def unfreeze(self) -> None:
        """Train all parameters, and start the optimizer anew: no moments, no steps. Nothing where none is frozen."""
        ...

    def train(self) -> None: ...

    def eval(self) -> None: ...

    def state_tensors(self, *, moments: bool = True) -> Iterator[tuple[str, torch.Tensor]]:
        """Full fp32 tensors by rank-free name: `<parameter>/weight`, then `<parameter>/<moment>`; collective."""
        ...

    def optimizer_steps(self) -> int: ...

    def load_state(self, read: Reader, *, optimizer_steps: int, example: Mapping[str, Any]) -> None:
        """Set weights, moments and step counters; `example` is one micro-batch of model inputs; collective."""
        ...


def require_gradients(module: nn.Module, names: Collection[str] | None) -> None:
    """Let only the parameters of these plain names be trained; None: all. A parameter that is tied has one name."""
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(names is None or plain_name(name) in names)


def state_name(parameter: str, kind: str) -> str:
    """The rank-free name of one tensor of the state; a wrapper's prefix is not part of it."""
    return f"{plain_name(parameter)}/{kind}"


def plain_name(parameter: str) -> str:
    """The parameter's name in the `transformers` model, without the prefixes of wrappers and of torch.compile."""
    return parameter.replace("_orig_mod.", "").removeprefix("module.").removeprefix("transformer.")


def full_weights(engine: Engine) -> dict[str, torch.Tensor]:
    """The model's fp32 weights by their names in the `transformers` model, on the CPU of rank 0; collective.

    The other ranks take part in the gathering and return an empty dict.
    """
    weights: dict[str, torch.Tensor] = {}
    for name, tensor in engine.state_tensors(moments=False):
        if engine.ranks.is_main:
            weights[name.removesuffix("/weight")] = tensor.detach().cpu().clone()
    return weights
