"""DeepSpeed, ZeRO stages 0 to 3, behind the engine protocol; its checkpoint loader executes data and is not used."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import deepspeed
import torch
from deepspeed.utils import groups as of_deepspeed
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
)
from torch import nn

from pretraining.engines.compilation import Compilation
from pretraining.engines.compiled_ops import clear_abandoned_build, compiled_operators
from pretraining.engines.deepspeed_config import names_optimizer, resolve_config, skip_compiled_collective
from pretraining.engines.engine import EngineOptions, Reader, plain_name, require_gradients, state_name
from pretraining.engines.updating.loss_scaling import DeepSpeedLossScale
from pretraining.engines.updating.optimizers import (
    build_optimizer,
    parameter_groups,
    set_learning_rate,
    split_groups,
)
from runtime.processes.ranks import Ranks

MOMENTS = ("exp_avg", "exp_avg_sq")  # of every parameter from stage 1 on


class DeepSpeedEngine:
    """See `pretraining.engines.engine.Engine`."""

    def __init__(
        self,
        model: nn.Module,
        options: EngineOptions,
        content: Mapping[str, Any],
        *,
        ranks: Ranks,
        device: torch.device,
    ) -> None:
        self.ranks, self.device, self.options = ranks, device, options
        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        skip_compiled_collective()
        forget_closed_group()
        config = resolve_config(
            content,
            micro_batch_size=options.micro_batch_size,
            accumulation=options.gradient_accumulation_steps,
            world_size=ranks.world_size,
            clipping=options.max_grad_norm,
            bf16=options.bf16,
            fp16=options.fp16,
            optimizer=options.optimizer,
        )
        scale = options.optimizer.matrix_rate_scale
        groups = parameter_groups(model, options.optimizer.weight_decay, matrix_rate_scale=scale)
        if options.fresh:  # ZeRO updates whole groups, also parameters without a gradient: the frozen have their own
            fresh = {id(weight) for name, weight in model.named_parameters() if plain_name(name) in options.fresh}
            groups = split_groups(groups, fresh)
        client = None if names_optimizer(config) else build_optimizer(groups, options.optimizer, bf16=options.bf16)
        for name in compiled_operators(config, on_cpu=device.type == "cpu"):
            clear_abandoned_build(name)
        self.stage = int(config.get("zero_optimization", {}).get("stage", 0))
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        rounds = options.half is not None and self.stage > 0
        weights = {name: weight.detach().clone() for name, weight in model.named_parameters()} if rounds else {}
        self.engine, self.optimizer, _, _ = deepspeed.initialize(
            model=model, optimizer=client, model_parameters=groups, config=config, dist_init_required=False
        )
        self.module: nn.Module = self.engine.module
        restore_buffers(self.module, buffers)
        for name, parameter in self.module.named_parameters():
            if name in weights:  # DeepSpeed casts the model first, and its fp32 masters are the rounded weights
                self._write_weight(parameter, weights.pop(name).to(self.device))
        self.compilation = Compilation(self.module, by_layer=self.stage == 3)
        self.loss_scaling = DeepSpeedLossScale(self.optimizer.loss_scaler) if options.fp16 else None
        self._frozen = False

    def __call__(self, **inputs: Any) -> Any:
        return self.engine(**inputs)

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        self.engine.set_gradient_accumulation_boundary(last)
        # DeepSpeed averages over the ranks, the protocol sums.
        self.engine.backward(loss * self.ranks.world_size, scale_wrt_gas=False)
        if not last:
            self.engine.step()

    def step(self, learning_rate: float) -> torch.Tensor:
        set_learning_rate(self.optimizer, learning_rate, frozen=self._frozen)
        if self.stage == 0:
            return self._stage_0_step()
        self.engine.step()
        given = self.engine.get_global_grad_norm()
        skipped = not self.engine.was_step_applied()
        if self.loss_scaling is not None:
            self.loss_scaling.update(found_inf=skipped)
        return torch.as_tensor(float("nan") if skipped or given is None else float(given)).to(self.device)

    def _stage_0_step(self) -> torch.Tensor:
        """Stage 0 does not check gradients: an update that is not finite is skipped here, and its gradients cleared."""
        gradients = [parameter.grad for parameter in self.module.parameters() if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients).detach()
        if bool(torch.isfinite(norm)):
            self.engine.step()
        else:
            self.module.zero_grad(set_to_none=True)
        return norm.to(self.device)

    def freeze(self) -> None:
        require_gradients(self.module, self.options.fresh)
        self._frozen = True

    def unfreeze(self) -> None:
        if not self._frozen:
            return
        require_gradients(self.module, None)
        self._frozen = False
        if not self.optimizer_steps():
            return
        self._link_moments()
        for parameter in self.module.parameters():
            for kind in self._moments_of(parameter):
                self._write_moment(parameter, kind, torch.zeros(full_shape(parameter), device=self.device))
        self._set_optimizer_steps(0)

    def _is_trained(self, name: str) -> bool:
        return not self._frozen or plain_name(name) in self.options.fresh

    def train(self) -> None:
        self.engine.train()

    def eval(self) -> None:
        self.engine.eval()

    def _torch_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer that holds the step counters: the one ZeRO wraps, at stage 0 the one in use."""
        return getattr(self.optimizer, "optimizer", self.optimizer)

    def _moments_of(self, parameter: nn.Parameter) -> tuple[str, ...]:
        """The names of a parameter's moments, once they exist; at stage 0 the optimizer may be any of ours."""
        if self.stage:
            return MOMENTS
        return tuple(sorted(self._torch_optimizer().state[parameter].keys() - {"step"}))

    def _link_moments(self) -> None:
        """Stages 1 and 2 link all groups' moments after the first group's step, when the others have none yet."""
        if self.stage in (1, 2):
            self.optimizer._hp_optimizer_states_linked = False
            self.optimizer._lazy_init_hp_params_optimizer_state()

    def state_tensors(self, *, moments: bool = True) -> Iterator[tuple[str, torch.Tensor]]:
        started = moments and self.optimizer_steps() > 0
        if started:
            self._link_moments()
        for name, parameter in self.module.named_parameters():
            yield state_name(name, "weight"), self._read(parameter, None)
            for kind in self._moments_of(parameter) if started and self._is_trained(name) else ():
                yield state_name(name, kind), self._read(parameter, kind)

    def _read(self, parameter: nn.Parameter, kind: str | None) -> torch.Tensor:
        if self.stage == 0:
            value = parameter.detach() if kind is None else self._torch_optimizer().state[parameter][kind]
            return value.float()
        with as_trained(parameter):
            get = safe_get_full_optimizer_state
            value = safe_get_full_fp32_param(parameter) if kind is None else get(parameter, kind)
        if value is None:
            raise RuntimeError(f"DeepSpeed stage {self.stage} gives no {kind or 'weight'}: it cannot be checkpointed")
        return value.detach().float().reshape(full_shape(parameter))

    def optimizer_steps(self) -> int:
        optimizer = self._torch_optimizer()
        steps = [state["step"] for state in optimizer.state.values() if "step" in state]
        steps += [group["step"] for group in optimizer.param_groups if "step" in group]
        return int(steps[0]) if steps else 0

    def load_state(self, read: Reader, *, optimizer_steps: int, example: Mapping[str, Any]) -> None:
        if self.optimizer_steps() == 0:
            self._make_state(example)
        self._link_moments()
        for name, parameter in self.module.named_parameters():
            shape = full_shape(parameter)
            self._write_weight(parameter, read(state_name(name, "weight"), shape).to(self.device))
            for kind in self._moments_of(parameter):
                # A checkpoint from before the first update has no moments: zero, as they start.
                stored = optimizer_steps and self._is_trained(name)
                value = read(state_name(name, kind), shape) if stored else torch.zeros(shape)
                self._write_moment(parameter, kind, value.to(self.device))
        self._set_optimizer_steps(optimizer_steps)

    def _make_state(self, example: Mapping[str, Any]) -> None:
        """One update with a loss of zero and a rate of zero: ZeRO creates and links its state in its first step."""
        outputs = self.engine(**example)
        self.backward(sum(value.float().sum() for value in outputs.values() if value.requires_grad) * 0.0, last=True)
        self.step(0.0)

    def _write_weight(self, parameter: nn.Parameter, value: torch.Tensor) -> None:
        with as_trained(parameter):
            self._write_trained_weight(parameter, value)

    def _write_trained_weight(self, parameter: nn.Parameter, value: torch.Tensor) -> None:
        if self.stage == 3:
            with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
                if self.ranks.is_main:
                    parameter.data.copy_(value)
            safe_set_local_fp32_param(parameter, self._share(parameter, value))
            return
        parameter.data.copy_(value)
        if self.stage:
            safe_set_full_fp32_param(parameter, value)

    def _write_moment(self, parameter: nn.Parameter, kind: str, value: torch.Tensor) -> None:
        if self.stage == 0:
            self._torch_optimizer().state[parameter][kind].copy_(value)
        elif self.stage == 3:
            with as_trained(parameter):
                safe_set_local_optimizer_state(parameter, self._share(parameter, value), kind)
        else:
            safe_set_full_optimizer_state(parameter, value, kind)

    def _share(self, parameter: nn.Parameter, value: torch.Tensor) -> torch.Tensor:
        """This rank's part of a whole tensor, padded: DeepSpeed's own setter fails where the ranks do not divide it."""
        size = parameter.ds_tensor.numel()  # type: ignore[attr-defined]
        part = value.flatten()[size * self.ranks.rank : size * (self.ranks.rank + 1)]
        return nn.functional.pad(part, (0, size - part.numel()))

    def _set_optimizer_steps(self, steps: int) -> None:
        optimizer = self._torch_optimizer()
        for holder in [*optimizer.state.values(), *optimizer.param_groups]:
            if "step" in holder:
                holder["step"] = torch.full_like(holder["step"], steps) if torch.is_tensor(holder["step"]) else steps


@contextmanager
def as_trained(parameter: nn.Parameter) -> Iterator[None]:
    """ZeRO-3 shows and sets the fp32 state of trained parameters only: let a frozen one count as trained meanwhile."""
    trained = parameter.requires_grad
    parameter.requires_grad_(True)
    try:
        yield
    finally:
        parameter.requires_grad_(trained)


def restore_buffers(module: nn.Module, buffers: Mapping[str, torch.Tensor]) -> None:
    """Undo DeepSpeed's cast of buffers: rotary frequencies in bf16 are wrong by up to 0.4 %."""
    for name, buffer in module.named_buffers():
        if buffer.dtype != buffers[name].dtype:
            buffer.data = buffers[name].to(buffer.device)


def full_shape(parameter: nn.Parameter) -> torch.Size:
    """The parameter's whole shape; ZeRO-3 leaves an empty tensor where the parameter was."""
    return getattr(parameter, "ds_shape", parameter.shape)


def forget_closed_group() -> None:
    """Drop DeepSpeed's copy of a world group that an earlier run of this process has closed: it is kept for good."""
    try:
        torch.distributed.get_process_group_ranks(of_deepspeed._WORLD_GROUP)
    except KeyError:
        of_deepspeed._WORLD_GROUP = None
