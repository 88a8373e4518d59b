"""Models to pretrain, from the names and shapes that `--model` and its relatives take."""

from typing import Any

from pretraining.model.configuration import build_configuration
from pretraining.model.masked_lm import PretrainingModel, attention_for, build_model


def built_model(
    model: str | None = None,
    *,
    objective: str = "mlm",
    attn_implementation: str = "sdpa",
    bf16: bool = False,
    seed: int = 0,
    gradient_checkpointing: bool = False,
    **naming: Any,
) -> PretrainingModel:
    """As the plan of a run does it: `naming` goes to `build_configuration`."""
    config = build_configuration(model, objective=objective, **naming)
    return build_model(
        config,
        objective=objective,
        attention=attention_for(attn_implementation, config, bf16=bf16),
        seed=seed,
        weights=naming.get("model_name_or_path"),
        gradient_checkpointing=gradient_checkpointing,
    )
