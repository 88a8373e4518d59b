"""The optimizer and the sharding of a run, from the options and the DeepSpeed JSON together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pretraining.engines.deepspeed_config import zero_stage
from pretraining.engines.engine import EngineOptions
from pretraining.engines.updating.optimizers import OptimizerOptions
from pretraining.model.memory import REDUCE_BUCKET_ELEMENTS, Sharding
from pretraining.plan.options import PretrainingOptions
from runtime.processes.ranks import Ranks


def optimizer_kind(name: str, deepspeed: Mapping[str, Any] | None) -> str:
    """adamw, adam, lamb or muon. A JSON's rate, betas, epsilon and decay must equal the options', or it is refused."""
    section = _section(deepspeed or {}, "optimizer")
    kind = str(section.get("type", "")).lower()
    if kind == "adam":  # DeepSpeed's "Adam" is AdamW unless adam_w_mode is false
        parameters = section.get("params")
        mode = parameters.get("adam_w_mode", name != "adam") if isinstance(parameters, dict) else name != "adam"
        return "adamw" if mode else "adam"
    return kind or ("adamw" if name == "auto" else name)


def optimizer_title(options: OptimizerOptions, deepspeed: Mapping[str, Any] | None, sharding: Sharding) -> str:
    """The optimizer's name, and which library builds it."""
    if kind := _section(deepspeed or {}, "optimizer").get("type"):
        return f"DeepSpeed {kind}"
    kind = optimizer_kind(options.name, deepspeed)
    if kind == "muon":
        return f"muon for the layers' matrices (peak learning rate {options.muon_learning_rate:g}) and torch adamw"
    builder = "DeepSpeed CPU" if deepspeed is not None and sharding.offload_optimizer else "torch"
    return f"{builder} {kind}"


def planned_sharding(
    options: PretrainingOptions | EngineOptions,
    deepspeed: Mapping[str, Any] | None,
    ranks: Ranks,
    *,
    bf16: bool,
    fp16: bool = False,
) -> Sharding:
    """From the DeepSpeed JSON's content or FSDP's options; a malformed part, which is refused, counts as absent."""
    if deepspeed is not None:
        return _zero_sharding(deepspeed, ranks, bf16=bf16, fp16=fp16)
    if ranks.world_size == 1:
        return Sharding(bf16=bf16, fp16=fp16)
    shards = (options.hybrid_shard_size or ranks.local_world_size) if options.fsdp == "hybrid_shard" else 0
    return Sharding(
        options.fsdp,
        shards or ranks.world_size,
        bf16,
        fp16,
        offload_optimizer=options.fsdp_offload,
        offload_parameters=options.fsdp_offload,
    )


def _zero_sharding(config: Mapping[str, Any], ranks: Ranks, *, bf16: bool, fp16: bool) -> Sharding:
    zero = _section(config, "zero_optimization")
    bucket = zero.get("reduce_bucket_size")
    return Sharding(
        f"zero{zero_stage(config)}",
        ranks.world_size,
        bf16,
        fp16,
        offload_optimizer=_offloads(zero, "offload_optimizer"),
        offload_parameters=_offloads(zero, "offload_param"),
        reduce_bucket_elements=int(bucket) if isinstance(bucket, int | float) else REDUCE_BUCKET_ELEMENTS,
    )


def _offloads(zero: Mapping[str, Any], key: str) -> bool:
    return str(_section(zero, key).get("device", "none")) not in ("none", "None")


def _section(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    section = config.get(key)
    return section if isinstance(section, dict) else {}
