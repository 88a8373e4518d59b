"""Keys of DeepSpeed's JSON, current and former, that this project refuses, and what replaces each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

AUTO = "auto"

# Constants of other optimizers, or of Adam and LAMB elsewhere.
OPTIMIZER_KEYS = {
    "the gradient norm has one limit: remove the key, use --max_grad_norm": ("max_grad_norm",),
    "LAMB's trust ratio is not bounded here: remove the key; --max_grad_norm limits the gradients": (
        "max_coeff",
        "min_coeff",
    ),
    "the bias of the moments is always corrected: remove the key": ("bias_correction", "correct_bias"),
    "eps is added after the square root, as in the paper: remove the key, use --adam_epsilon": ("eps_inside_sqrt",),
    "this variant of Adam is not offered: remove the key": ("amsgrad", "maximize", "decoupled_weight_decay"),
    "torch's fused kernel is chosen where there is one: remove the key": (
        "fused",
        "foreach",
        "capturable",
        "differentiable",
        "set_grad_none",
    ),
    "write adam_w_mode": ("adamw_mode",),
    "write betas, or use --adam_beta1 and --adam_beta2": ("beta1", "beta2", "b1", "b2"),
    "write eps, or use --adam_epsilon": ("e",),
    "write weight_decay, or use --weight_decay": ("weight_decay_rate", "l2_weight_decay"),
    "it belongs to SGD: remove the key; --adam_beta1 is the decay of Adam's mean": (
        "momentum",
        "dampening",
        "nesterov",
    ),
    "the learning rate's schedule belongs to the options: remove the key, use --warmup_fraction": (
        "warmup",
        "t_total",
        "schedule",
    ),
    "it belongs to the 1-bit optimizers, which are not offered: remove the key": (
        "freeze_step",
        "cuda_aware",
        "comm_backend_name",
        "coeff_beta",
        "factor_max",
        "factor_min",
        "factor_threshold",
        "var_freeze_step",
        "var_update_scaler",
        "local_step_scaler",
        "local_step_clipper",
    ),
}

# Keys that DeepSpeed accepts but that would contradict this project's training loop.
REFUSED = {
    "scheduler": 'the learning rate\'s schedule belongs to the options: remove the section or write "auto" for its '
    "values, use --learning_rate, --warmup_fraction and --decay_fraction",
    "amp": "precision belongs to the options: remove the section, use --bf16",
    "bfloat16": "this section was renamed: write bf16",
    "torch_autocast": "precision belongs to the options: remove the section, use --bf16",
    "activation_checkpointing": "it has no effect from the JSON: remove the section, use --gradient_checkpointing",
    "compile": "compilation belongs to the options: remove the section, use --torch_compile",
    "checkpoint": "checkpoints are written by this project, for any engine: remove the section",
    "elasticity": "the batch belongs to the options, at any number of ranks: remove it, use --global_batch_rows",
    "gradient_allreduce_op": "losses are scaled for DeepSpeed's mean: remove the key",
    "managed_gradient_accumulation": "the training loop marks the last micro-batch: remove the key",
    "data_efficiency": "the order of the rows belongs to the shards: remove the section",
    "curriculum_learning": "lengths belong to the options: remove the section",
    "sparse_attention": "attention belongs to the model: remove the section",
    "progressive_layer_drop": "every update trains every layer: remove the section",
    "compression_training": "weights are trained in full: remove the section",
    "quantize_training": "weights are trained in full: remove the section",
    "eigenvalue": "weights are trained in full: remove the section",
    "sparse_gradients": "gradients of embeddings are summed like all others: remove the key",
    "graph_harvesting": "compilation belongs to the options: remove the key, use --torch_compile",
    "nebula": "checkpoints are written by this project, for any engine: remove the section",
    "datastates_ckpt": "checkpoints are written by this project, for any engine: remove the section",
    "timers": "the speed of every update is in journal.jsonl: remove the section",
    "vocabulary_size": "it belongs to the model: remove the key",
    "dataloader_drop_last": "batches come from the shards: remove the key",
    "tensor_parallel": "only data-parallel sharding is offered: remove the section",
    "expert_parallel": "only data-parallel sharding is offered: remove the section",
    "sequence_parallel_size": "only data-parallel sharding is offered: remove the key",
    "seq_parallel_communication_data_type": "only data-parallel sharding is offered: remove the key",
    "use_data_before_expert_parallelism": "only data-parallel sharding is offered: remove the key",
    "pipeline": "only data-parallel sharding is offered: remove the section",
    "hybrid_engine": "it is for generation: remove the section",
    "autotuning": "the batch belongs to the options: remove the section",
    "weight_quantization": "weights are trained in full: remove the section",
    "tensorboard": "reports belong to the options: remove the section, use --report_to",
    "wandb": "reports belong to the options: remove the section, use --report_to",
    "comet": "reports belong to the options: remove the section, use --report_to",
    "csv_monitor": "reports belong to the options: remove the section; every run writes journal.jsonl",
    "zero_optimization.zenflow": "it applies gradients of an earlier update: remove the section",
    "zero_optimization.elastic_checkpoint": "checkpoints are written by this project: remove the key",
    "zero_optimization.load_from_fp32_weights": "checkpoints are read by this project: remove the key",
    "zero_optimization.compute_grad_norm": "the gradient norm is needed for clipping and the journal: remove the key",
    "zero_optimization.mics_shard_size": "DeepSpeed no longer has this key: remove the key",
    "zero_optimization.mics_hierarchical_params_gather": "DeepSpeed no longer has this key: remove the key",
    "zero_optimization.zeropp_loco_param": "DeepSpeed no longer has this key: remove the key",
    "data_types.param_dtype": "precision belongs to the options: remove the key, use --bf16",
    "data_types.buffer_dtype": "precision belongs to the options: remove the key, use --bf16",
    "data_types.keep_in_fp32_modules": "precision belongs to the options: remove the key, use --bf16",
    "optimizer.legacy_fusion": "it belongs to fp16 at stage 0, which is not offered: remove the key",
    **{f"optimizer.params.{key}": remedy for remedy, keys in OPTIMIZER_KEYS.items() for key in keys},
}

SCHEDULERS = ("WarmupLR", "WarmupDecayLR", "WarmupCosineLR")  # those that `transformers` fills in
NOT_RATES = {"last_batch_iteration": -1, "warmup_type": "linear"}  # values that change nothing here


def is_idle(key: str, value: object) -> bool:
    """Whether a refused top-level section asks for nothing: switched off, or a scheduler whose values are all "auto".

    "auto", which `transformers` replaces by its own options, means this project's options here.
    """
    if not isinstance(value, dict):
        return False
    if key != "scheduler":
        return key in REFUSED and value.get("enabled") in (False, AUTO)
    return value.get("type") in SCHEDULERS and value.keys() <= {"type", "params"} and is_auto(value.get("params"))


def is_auto(parameters: object) -> bool:
    """Whether a scheduler has parameters and each of them is "auto"."""
    if not isinstance(parameters, dict):
        return False
    return bool(parameters) and all(value in (AUTO, NOT_RATES.get(key, AUTO)) for key, value in parameters.items())


def scheduler_problem(section: Mapping[str, Any] | object) -> str:
    """The message that refuses a scheduler, with the values set in it, if any."""
    parameters = section.get("params") if isinstance(section, Mapping) else None
    given = parameters if isinstance(parameters, dict) else {}
    set_there = {key: value for key, value in given.items() if value != AUTO}
    values = f" (it sets {', '.join(f'{key} {value!r}' for key, value in set_there.items())})" if set_there else ""
    return f"scheduler is not accepted{values}: {REFUSED['scheduler']}"
