"""Advice after running out of memory: what to lower, with the plan's numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from pretraining.model.memory import MemoryEstimate, Sharding
from runtime.machine import is_out_of_memory
from runtime.processes.failures import Failed

if TYPE_CHECKING:
    from pretraining.plan.plan import Plan


class OutOfMemory(Failed):
    """The device's or the host's memory is full; the message names what to lower."""


@contextmanager
def explained(plan: Plan) -> Iterator[None]:
    """Turn an allocation that failed into `OutOfMemory` with advice; anything else passes."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        reason = next(iter(str(error).splitlines()), "")
        if "out of memory" not in reason.lower():  # as allocators of the host have it
            reason = f"out of memory ({reason})" if reason else "out of memory"
        raise OutOfMemory(f"{reason}\n{advice(plan)}") from error


def advice(plan: Plan) -> str:
    """The estimate of a rank's memory, and what each remedy would reduce it to."""
    rows, options = plan.micro_batch_rows, plan.options
    lines = [f"estimated per rank: {_size(plan.memory)} on the device"]
    if plan.memory is not None:
        lines = [f"{lines[0]}:", plan.memory.table()]
    remedies = []
    if rows > 1:
        half = rows // 2
        size = _size(plan.memory_with(micro_batch_rows=half))
        remedies.append(f"--per_device_train_batch_size {half} (it is {rows}; the update stays the same): {size}")
    if not options.gradient_checkpointing:
        remedies.append(f"--gradient_checkpointing true: {_size(plan.memory_with(gradient_checkpointing=True))}")
    remedies += [f"{text}: {_size(plan.memory_with(sharding=sharding))}" for text, sharding in other_shardings(plan)]
    remedies.append("a smaller --model, or a shorter --max_seq_length")
    return "\n".join([*lines, "lower it by", *(f"  {remedy}" for remedy in remedies)])


def other_shardings(plan: Plan) -> list[tuple[str, Sharding]]:
    """Ways to spread the model states further, in words and as the estimate takes them."""
    current, world_size = plan.sharding, plan.ranks.world_size
    if not plan.options.deepspeed:
        offloaded = replace(current, offload_optimizer=True, offload_parameters=True)
        choices = [("--fsdp full_shard", replace(current, mode="full_shard", shards=world_size))]
        choices += [("--fsdp full_shard --fsdp_offload true", replace(offloaded, mode="full_shard", shards=world_size))]
        return [choice for choice in choices if choice[1] != current] if world_size > 1 else []
    if plan.optimizer_kind in ("lamb", "muon"):  # ZeRO's stages cut the matrices that they need whole
        sharded = replace(current, mode="full_shard", shards=world_size)
        return [("no --deepspeed, which is FSDP2", sharded)] if world_size > 1 else []
    stages = [
        (f"--deepspeed ds_configs/zero{stage}.json", replace(current, mode=f"zero{stage}", shards=world_size))
        for stage in (2, 3)
        if f"zero{stage}" > current.mode
    ]
    offload = replace(current, mode="zero3", shards=world_size, offload_optimizer=True, offload_parameters=True)
    return [*stages, ("--deepspeed ds_configs/zero3_offload.json", offload)] if offload != current else stages


def _size(estimate: MemoryEstimate | None) -> str:
    return "unknown" if estimate is None else f"{estimate.device_bytes / 1e9:.2f} GB"
