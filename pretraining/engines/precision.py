"""The precision of a run: what --bf16 auto means on this device, in this engine, for this model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pretraining.engines.deepspeed_config import zero_stage
from pretraining.model.families import fp32_only
from runtime.machine import bf16_support, computes_fp16


@dataclass(frozen=True)
class Precision:
    """Whether a run computes in bfloat16 or float16, and why."""

    bf16: bool
    reason: str
    fp16: bool = False

    def __str__(self) -> str:
        return f"{'bf16' if self.bf16 else 'fp16 with loss scaling' if self.fp16 else 'fp32'} ({self.reason})"


def choose_precision(
    choice: str,
    *,
    device_type: str,
    model_type: str,
    deepspeed: Mapping[str, Any] | None = None,
    earlier: bool | None = None,
) -> Precision:
    """The precision that --bf16 `choice` (auto, true or false) means.

    auto: as an `earlier` start of the same run computed, else as a DeepSpeed JSON's content says, else bf16 where the
    device computes it and engine and model can. Raises ValueError for bf16 with a model that cannot.
    """
    reason = fp32_only(model_type)
    if choice == "true":
        require_half(model_type, "--bf16 true")
    if choice != "auto":
        return Precision(choice == "true", f"--bf16 {choice}")
    if earlier is not None:
        return Precision(earlier, "as this run began")
    if deepspeed is not None:
        section = deepspeed.get("bf16")
        enabled = section.get("enabled") if isinstance(section, Mapping) else None
        if isinstance(enabled, bool):
            return Precision(enabled, "as the DeepSpeed JSON says")
        if zero_stage(deepspeed) == 0:
            return Precision(False, "ZeRO stage 0 trains in fp32")
    if reason:
        return Precision(False, f"{model_type} computes in fp32 only: {reason}")
    return Precision(*bf16_support(device_type))


def require_fp16(device_type: str, deepspeed: Mapping[str, Any] | None) -> None:
    """ValueError where DeepSpeed would refuse fp16 when the run starts."""
    if deepspeed is not None and not computes_fp16(device_type):
        raise ValueError(
            "--fp16: DeepSpeed trains in fp16 on a processor with units for it only (AVX-512 FP16, AMX FP16), and this "
            "one has none; use --bf16 true, or leave --deepspeed out"
        )


def require_half(model_type: str, option: str) -> None:
    """ValueError for an option that asks for 16 bits where the model's own code needs 32."""
    if reason := fp32_only(model_type):
        remedy = "leave it out" if option == "--fp16" else "use --bf16 false"
        raise ValueError(f"{option}: {model_type} computes in fp32 only ({reason}); {remedy}")
