"""Which keys a DeepSpeed JSON may hold here: read from DeepSpeed's own models where it has them."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

AUTO = "auto"
AUTO_KEYS = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
    "bf16.enabled",
    "fp16.enabled",
    "optimizer.params.lr",
    "optimizer.params.betas",
    "optimizer.params.eps",
    "optimizer.params.weight_decay",
    "zero_optimization.reduce_bucket_size",
    "zero_optimization.stage3_prefetch_bucket_size",
    "zero_optimization.stage3_param_persistence_threshold",
)

Number = int | float
SCALARS: dict[str, Any] = {
    "train_batch_size": int,
    "train_micro_batch_size_per_gpu": int,
    "gradient_accumulation_steps": int,
    "gradient_clipping": Number,
    "steps_per_print": Number,
    "wall_clock_breakdown": bool,
    "memory_breakdown": bool,
    "dump_state": bool,
    "disable_allgather": bool,
    "disable_python_gc": bool,
    "communication_data_type": str,
    "prescale_gradients": bool,
    "gradient_predivide_factor": Number,
    "zero_allow_untested_optimizer": bool,
    "zero_force_ds_cpu_optimizer": bool,
    "log_level": str,
}

# Sections that DeepSpeed reads key by key, without a model.
SECTIONS: dict[str, tuple[str, ...]] = {
    "optimizer": ("type", "params"),
    "optimizer.params": ("lr", "betas", "eps", "weight_decay", "adam_w_mode", "torch_adam", "fp32_optimizer_states"),
    "data_types": ("grad_accum_dtype",),
    "aio": ("block_size", "queue_depth", "intra_op_parallelism", "single_submit", "overlap_events", "use_gds"),
    "flops_profiler": (
        "enabled",
        "recompute_fwd_factor",
        "profile_step",
        "module_depth",
        "top_modules",
        "detailed",
        "output_file",
    ),
}

# Keys that DeepSpeed knows and that would contradict this project's own loop.
REFUSED = {
    "scheduler": "the learning rate's schedule belongs to the options: remove the section, use --learning_rate",
    "amp": "precision belongs to the options: remove the section, use --bf16",
    "torch_autocast": "precision belongs to the options: remove the section, use --bf16",
    "activation_checkpointing": "it has no effect from the JSON: remove the section, use --gradient_checkpointing",
    "compile": "compilation belongs to the options: remove the section, use --torch_compile",
    "checkpoint": "checkpoints are written by this project, for any engine: remove the section",
    "elasticity": "the batch belongs to the options, at any number of ranks: remove it, use --global_batch_rows",
    "gradient_allreduce_op": "losses are scaled for DeepSpeed's mean: remove the key",
    "managed_gradient_accumulation": "the training loop marks the last micro-batch: remove the key",
    "data_efficiency": "the order of the rows belongs to the shards: remove the section",
    "curriculum_learning": "lengths belong to the options: remove the section",
    "dataloader_drop_last": "batches come from the shards: remove the key",
    "tensor_parallel": "only data-parallel sharding is offered: remove the section",
    "expert_parallel": "only data-parallel sharding is offered: remove the section",
    "sequence_parallel_size": "only data-parallel sharding is offered: remove the key",
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
}


def section_models() -> dict[str, type[BaseModel]]:
    """DeepSpeed's pydantic model of each top-level section that has one."""
    from deepspeed.comm.config import CommsLoggerConfig
    from deepspeed.runtime.precision_config import DeepSpeedBF16Config, DeepSpeedFP16Config
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    return {
        "zero_optimization": DeepSpeedZeroConfig,
        "bf16": DeepSpeedBF16Config,
        "fp16": DeepSpeedFP16Config,
        "comms_logger": CommsLoggerConfig,
    }


def key_problems(config: Mapping[str, Any]) -> list[str]:
    """Every unknown, retired or unsupported key, at any level, each as a sentence with the nearest right key."""
    models = section_models()
    known = sorted({*SCALARS, *models, *(name for name in SECTIONS if "." not in name)})
    problems = []
    for key, value in config.items():
        if key in REFUSED:
            problems.append(f"{key} is not accepted: {REFUSED[key]}")
        elif key in models:
            problems += model_problems(key, value, models[key])
        elif key in SECTIONS:
            problems += section_problems(key, value)
        elif key in SCALARS:
            problems += scalar_problems(key, value)
        else:
            problems.append(unknown_key(key, known))
    return problems + [
        f'{path} is "auto", which nothing fills in: write a value, or leave the key out for DeepSpeed\'s default'
        for path in auto_paths(config)
        if path not in AUTO_KEYS
    ]


def scalar_problems(key: str, value: object) -> list[str]:
    expected = SCALARS[key]
    wrong_bool = isinstance(value, bool) and expected is not bool
    if value == AUTO or (isinstance(value, expected) and not wrong_bool):
        return []
    kind = {int: "an integer", bool: "true or false", str: "a string"}.get(expected, "a number")
    return [f"{key} is {value!r}: it must be {kind}"]


def section_problems(path: str, value: object) -> list[str]:
    if not isinstance(value, dict):
        return [f"{path} is {value!r}: it must be an object"]
    problems = [unknown_key(f"{path}.{key}", SECTIONS[path]) for key in value if key not in SECTIONS[path]]
    for key, inner in value.items():
        if f"{path}.{key}" in SECTIONS:
            problems += section_problems(f"{path}.{key}", inner)
    return problems


def model_problems(path: str, value: object, model: type[BaseModel]) -> list[str]:
    if not isinstance(value, dict):
        return [f"{path} is {value!r}: it must be an object"]
    fields = dict(model.model_fields)
    fields |= {field.alias: field for field in model.model_fields.values() if field.alias}
    problems = []
    for key, inner in value.items():
        inner_path = f"{path}.{key}"
        if inner_path in REFUSED:
            problems.append(f"{inner_path} is not accepted: {REFUSED[inner_path]}")
        elif key not in fields:
            problems.append(unknown_key(inner_path, sorted(fields)))
        elif isinstance(extra := fields[key].json_schema_extra, dict) and extra.get("deprecated"):
            problems.append(f"{inner_path} is retired: use {extra.get('new_param') or 'nothing in its place'}")
        elif inner_model := model_of(fields[key].annotation):
            problems += model_problems(inner_path, inner, inner_model) if inner is not None else []
    return problems


def model_of(annotation: Any) -> type[BaseModel] | None:
    """The pydantic model in an annotation such as `Optional[Model]`."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def value_problems(config: Mapping[str, Any]) -> list[str]:
    """What DeepSpeed's own models object to in the values, once every "auto" is filled in."""
    problems = []
    for name, model in section_models().items():
        try:
            model(**config.get(name, {}))
        except ValidationError as error:
            for part in error.errors():
                path = ".".join((name, *(str(step) for step in part["loc"])))
                problems.append(f"{path} is {part['input']!r}: {part['msg']}")
        except (AssertionError, TypeError) as error:
            problems.append(f"{name}: {error}")
    return problems


def auto_paths(value: object, path: str = "") -> Iterator[str]:
    """The dotted path of every "auto" in nested objects and lists."""
    if value == AUTO:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from auto_paths(item, f"{path}.{key}" if path else str(key))


def unknown_key(path: str, known: list[str] | tuple[str, ...]) -> str:
    key = path.rsplit(".", 1)[-1]
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    remedy = f"did you mean {nearest[0]}?" if nearest else f"known here: {', '.join(known)}"
    return f"unknown key {path}: {remedy}"
