"""The PyTorch engine: FSDP2 (`fully_shard`) over several ranks, the plain module on one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from pretraining.engines.compilation import Compilation
from pretraining.engines.engine import (
    EngineOptions,
    Reader,
    check_ranks,
    hybrid_size,
    plain_name,
    require_gradients,
    state_name,
)
from pretraining.engines.updating.loss_scaling import DynamicLossScale
from pretraining.engines.updating.master_weights import MasterWeights
from pretraining.engines.updating.optimizers import optimizer_for, set_learning_rate
from pretraining.model.families import repeated_layers
from runtime.processes.ranks import Ranks


class TorchEngine:
    """See `pretraining.engines.engine.Engine`."""

    def __init__(self, model: nn.Module, options: EngineOptions, *, ranks: Ranks, device: torch.device) -> None:
        self.ranks, self.device, self.options = ranks, device, options
        self.sharded = ranks.world_size > 1
        check_ranks(options, ranks)
        self.module = model if options.fsdp_offload else model.to(device)
        if self.sharded:
            self._shard()
        self.loss_scaling = DynamicLossScale(device) if options.fp16 else None
        half = None if self.sharded else options.half
        self.masters = None if half is None else MasterWeights(self.module, half)
        master_of = None if self.masters is None else self.masters.of
        self.optimizer = optimizer_for(self.module, options.optimizer, bf16=options.bf16, master_of=master_of)
        self.compilation = Compilation(self.module, by_layer=self.sharded)
        self._frozen = False

    def _shard(self) -> None:
        mesh = shard_mesh(self.options, self.ranks, self.device)
        # Float inputs, such as the weights of masks and labels of a regression, stay as they are.
        policy = MixedPrecisionPolicy(self.options.half, torch.float32, cast_forward_inputs=False)
        arguments: dict[str, Any] = {
            "mesh": mesh,
            "reshard_after_forward": self.options.fsdp != "shard_grad_op",
            "mp_policy": policy if self.options.half else MixedPrecisionPolicy(),
            "offload_policy": self._offload_policy(),
        }
        for layer in repeated_layers(self.module):
            fully_shard(layer, **arguments)
        fully_shard(self.module, **arguments)

    def _offload_policy(self) -> OffloadPolicy:
        if not self.options.fsdp_offload:
            return OffloadPolicy()
        # Pinned memory speeds up copies to a GPU and does not exist without one.
        return CPUOffloadPolicy(pin_memory=self.device.type == "cuda")

    def __call__(self, **inputs: Any) -> Any:
        return self.module(**inputs)

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        if isinstance(self.module, FSDPModule):
            # shard_grad_op keeps whole gradients until the last micro-batch: one reduction per update.
            self.module.set_requires_gradient_sync(last or self.options.fsdp != "shard_grad_op")
            loss = loss * self.ranks.world_size  # FSDP averages over the ranks, the protocol sums
        if self.loss_scaling is not None:
            loss = loss * self.loss_scaling.scale
        loss.backward()

    def step(self, learning_rate: float) -> torch.Tensor:
        weights = list(self._weights().values())
        if self.loss_scaling is not None:
            self.loss_scaling.unscale(weights)
        limit = self.options.max_grad_norm or float("inf")
        norm = gradient_norm(weights)
        torch.nn.utils.clip_grads_with_norm_(weights, limit, norm.to(torch.float32))
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        set_learning_rate(self.optimizer, learning_rate)
        # The optimizer skips the update on the device: no step waits for the host.
        found_inf = ~torch.isfinite(norm)  # of all shards: the same on every rank
        if self.loss_scaling is not None:
            self.loss_scaling.update(found_inf)
        self.optimizer.found_inf = found_inf.to(torch.float32)  # type: ignore[attr-defined]
        self.optimizer.grad_scale = None  # type: ignore[attr-defined]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._publish()
        return norm.detach()

    def _weights(self) -> dict[str, nn.Parameter]:
        """The fp32 weights by their names in the module: its own, or the masters."""
        return dict(self.module.named_parameters()) if self.masters is None else self.masters.parameters

    def _publish(self) -> None:
        if self.masters is not None:
            self.masters.publish()

    def freeze(self) -> None:
        self._reshard()
        require_gradients(self.module, self.options.fresh)
        self._frozen = True

    def unfreeze(self) -> None:
        if self._frozen:
            self._reshard()
            require_gradients(self.module, None)
            self._frozen = False
            self.optimizer.state.clear()

    def _trained(self) -> dict[str, nn.Parameter]:
        """The fp32 weights that are not frozen."""
        fresh = self.options.fresh
        return {
            name: weight for name, weight in self._weights().items() if not self._frozen or plain_name(name) in fresh
        }

    def train(self) -> None:
        self.module.train()

    def eval(self) -> None:
        self.module.eval()

    def _reshard(self) -> None:
        """Free the gathered weights: forward passes without a backward pass leave them in place of the shards."""
        for module in self.module.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def state_tensors(self, *, moments: bool = True) -> Iterator[tuple[str, torch.Tensor]]:
        self._reshard()
        for name, parameter in self._weights().items():
            yield state_name(name, "weight"), full_tensor(parameter)
            for kind, value in sorted(self.optimizer.state.get(parameter, {}).items()) if moments else ():
                if kind != "step":
                    yield state_name(name, kind), full_tensor(value)

    def optimizer_steps(self) -> int:
        steps = [state["step"] for state in self.optimizer.state.values() if "step" in state]
        return int(steps[0]) if steps else 0

    def load_state(self, read: Reader, *, optimizer_steps: int, example: Mapping[str, Any]) -> None:
        self._reshard()
        with torch.no_grad():
            for name, parameter in self._weights().items():
                copy_full(parameter, read(state_name(name, "weight"), parameter.shape))
        self._publish()
        self.optimizer.state.clear()
        if optimizer_steps:
            self._load_moments(read, optimizer_steps)

    def _load_moments(self, read: Reader, optimizer_steps: int) -> None:
        """Let the optimizer create its state itself (by a step that it skips), then fill it."""
        for parameter in self._trained().values():
            parameter.grad = torch.zeros_like(parameter)
        self._skip_step()
        with torch.no_grad():
            for name, parameter in self._trained().items():
                for kind, value in self.optimizer.state[parameter].items():
                    if kind == "step":
                        value.fill_(optimizer_steps)
                    else:
                        copy_full(value, read(state_name(name, kind), value.shape))

    def _skip_step(self) -> None:
        device = next(iter(self._weights().values())).device
        self.optimizer.found_inf = torch.ones((), device=device)  # type: ignore[attr-defined]
        self.optimizer.grad_scale = None  # type: ignore[attr-defined]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def gradient_norm(weights: Iterable[nn.Parameter]) -> torch.Tensor:
    """The norm of all gradients, 0-d fp64 (a DTensor where they are): fp32 sums of large embeddings are too small.

    Rows are summed in fp32, which is exact enough and makes no fp64 copy of the gradients.
    """
    gradients = [parameter.grad for parameter in weights if parameter.grad is not None]
    rows = [torch.linalg.vector_norm(each, dim=-1) if each.ndim > 1 else each for each in gradients]
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(each, dtype=torch.float64) for each in rows]))


def shard_mesh(options: EngineOptions, ranks: Ranks, device: torch.device) -> DeviceMesh:
    """One dimension for full sharding; replicas x shards for hybrid sharding."""
    if options.fsdp != "hybrid_shard":
        return init_device_mesh(device.type, (ranks.world_size,))
    size = hybrid_size(options, ranks)
    return init_device_mesh(device.type, (ranks.world_size // size, size), mesh_dim_names=("replicate", "shard"))


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """The whole of a sharded tensor, on every rank; collective."""
    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def copy_full(target: torch.Tensor, value: torch.Tensor) -> None:
    """Fill a tensor, sharded or not, from a full tensor that every rank holds."""
    if isinstance(target, DTensor):
        device = target.to_local().device
        mesh, placements = target.device_mesh, target.placements
        whole = value.to(device=torch.device(mesh.device_type), dtype=target.dtype)
        share = distribute_tensor(whole, mesh, placements, src_data_rank=None)
        target.to_local().copy_(share.to_local().to(device))
    else:
        target.copy_(value)
