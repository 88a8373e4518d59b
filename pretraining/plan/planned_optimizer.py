"""The optimizer that a run ends up with: `--optimizer`, and where that says auto, what the DeepSpeed JSON names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pretraining.plan.plan import Plan


def optimizer_kind(plan: Plan) -> str:
    """adamw, adam or lamb. A JSON's rate, betas, epsilon and weight decay are the options' own, or it is refused."""
    name, section = plan.optimizer.name, _section_of(plan)
    kind = str(section.get("type", "")).lower()
    if kind == "adam":  # DeepSpeed's "Adam" is AdamW unless adam_w_mode is false
        parameters = section.get("params")
        mode = parameters.get("adam_w_mode", name != "adam") if isinstance(parameters, dict) else name != "adam"
        return "adamw" if mode else "adam"
    return kind or ("adamw" if name == "auto" else name)


def optimizer_title(plan: Plan) -> str:
    """The optimizer by its own name, with who builds it."""
    if kind := _section_of(plan).get("type"):
        return f"DeepSpeed {kind}"
    builder = "DeepSpeed CPU" if plan.options.deepspeed and plan.sharding.offload_optimizer else "torch"
    return f"{builder} {optimizer_kind(plan)}"


def _section_of(plan: Plan) -> Mapping[str, Any]:
    section = (plan.deepspeed_config or {}).get("optimizer")
    return section if isinstance(section, dict) else {}
