"""The model that a plan asks for."""

from __future__ import annotations

from pretraining.model.masked_lm import PretrainingModel, build_model
from pretraining.plan.plan import Plan


def build_planned_model(plan: Plan) -> PretrainingModel:
    """Build it on the CPU, initialised by the plan's seed or with the weights that were named."""
    options, tokenizer = plan.options, plan.manifest.tokenizer
    return build_model(
        options.model,
        vocab_size=tokenizer.vocab_size,
        special_ids=tokenizer.special_ids,
        max_seq_length=plan.longest,
        config_overrides=options.config_overrides,
        model_name_or_path=options.model_name_or_path,
        from_config=options.from_config,
        objective=options.objective,
        attn_implementation=options.attn_implementation,
        bf16=plan.bf16,
        seed=options.seed,
        gradient_checkpointing=options.gradient_checkpointing,
    )
