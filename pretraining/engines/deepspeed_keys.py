"""Which keys a DeepSpeed JSON may hold here: read from DeepSpeed's own models where it has them."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterable, Iterator, Mapping
from itertools import takewhile
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from pretraining.engines.deepspeed_refusals import AUTO, REFUSED, is_idle, scheduler_problem
from pretraining.names import JSON_TYPES

# What the series and the checkpoints can read back: two moments for each parameter.
JSON_OPTIMIZERS = tuple(sorted(JSON_TYPES.values()))
Path = tuple[str | int, ...]  # keys from the top of the file
Problems = list[tuple[Path, str]]  # where, and a sentence

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
# What other libraries call a key.
SYNONYMS = {
    "epsilon": "eps",
    "learning_rate": "lr",
    "adam_epsilon": "eps",
    "adam_beta1": "betas",
    "adam_beta2": "betas",
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


def key_problems(config: Mapping[str, Any]) -> Problems:
    """Every unknown, retired or unsupported key, at any level, with the nearest right key or what replaces it.

    Nothing else is reported for a section to be removed.
    """
    models = section_models()
    known = sorted({*SCALARS, *models, *(name for name in SECTIONS if "." not in name)})
    problems: Problems = []
    for key, value in config.items():
        if is_idle(key, value):
            continue
        if key == "scheduler":
            problems.append(((key,), scheduler_problem(value)))
        elif key in REFUSED:
            problems.append(((key,), f"{key} is not accepted: {REFUSED[key]}"))
        elif key in models:
            problems += model_problems((key,), value, models[key])
        elif key == "optimizer" and (problem := optimizer_type_problem(value)):
            problems.append(((key,), problem))
        elif key in SECTIONS:
            problems += section_problems((key,), value)
        elif key in SCALARS:
            problems += scalar_problems(key, value)
        else:
            problems.append(((key,), unknown_key(key, known)))
    refused_paths = {path for path, _ in problems}
    return problems + [
        (
            path,
            f'{dotted(path)} is "auto", which nothing fills in: write a value, or leave the key out for '
            "DeepSpeed's default",
        )
        for path in auto_paths({key: value for key, value in config.items() if not is_idle(key, value)})
        if not is_filled(path) and not any(path[:depth] in refused_paths for depth in range(1, len(path) + 1))
    ]


def is_filled(path: Path) -> bool:
    """Whether an "auto" there is filled in from the options, or means DeepSpeed's default (ZeRO's own keys)."""
    if path[0] == "zero_optimization":
        return len(path) == 2 and path[1] != "stage"
    return path[0] == "fp16" or dotted(path) in AUTO_KEYS


def dotted(path: Path) -> str:
    return ".".join(map(str, path))


def optimizer_type_problem(value: object) -> str | None:
    """What is wrong with an optimizer's type; None for a known one, and for a value that is no section."""
    if not isinstance(value, dict) or str(value.get("type")).lower() in map(str.lower, JSON_OPTIMIZERS):
        return None
    if str(value.get("type")).lower() == "muon":
        return (
            "optimizer.type Muon is not accepted: DeepSpeed limits the norm of gradients that it has orthogonalised; "
            "leave the section out and use --optimizer muon, at stage 0 or without --deepspeed (FSDP2)"
        )
    given = f"is {value['type']!r}" if "type" in value else "is missing"
    return f"optimizer.type {given}: use {', '.join(JSON_OPTIMIZERS)}, or leave the section out"


def scalar_problems(key: str, value: object) -> Problems:
    expected = SCALARS[key]
    wrong_bool = isinstance(value, bool) and expected is not bool
    if value == AUTO or (isinstance(value, expected) and not wrong_bool):
        return []
    kind = {int: "an integer", bool: "true or false", str: "a string"}.get(expected, "a number")
    return [((key,), f"{key} is {value!r}: it must be {kind}")]


def section_problems(path: Path, value: object) -> Problems:
    if not isinstance(value, dict):
        return [(path, f"{dotted(path)} is {value!r}: it must be an object")]
    problems: Problems = []
    for key, inner in value.items():
        place = (*path, key)
        name = dotted(place)
        if name in REFUSED:
            problems.append((place, f"{name} is not accepted: {REFUSED[name]}"))
        elif key not in SECTIONS[dotted(path)]:
            problems.append((place, unknown_key(name, SECTIONS[dotted(path)])))
        elif name in SECTIONS:
            problems += section_problems(place, inner)
    return problems


def model_problems(path: Path, value: object, model: type[BaseModel]) -> Problems:
    if not isinstance(value, dict):
        return [(path, f"{dotted(path)} is {value!r}: it must be an object")]
    fields = dict(model.model_fields)
    fields |= {field.alias: field for field in model.model_fields.values() if field.alias}
    problems: Problems = []
    for key, inner in value.items():
        place = (*path, key)
        name = dotted(place)
        if name in REFUSED:
            problems.append((place, f"{name} is not accepted: {REFUSED[name]}"))
        elif key not in fields:
            problems.append((place, unknown_key(name, sorted(fields))))
        elif isinstance(extra := fields[key].json_schema_extra, dict) and extra.get("deprecated"):
            problems.append((place, f"{name} is retired: use {extra.get('new_param') or 'nothing in its place'}"))
        elif (inner_model := model_of(fields[key].annotation)) and inner not in (None, AUTO):
            problems += model_problems(place, inner, inner_model)
    return problems


def without(config: Mapping[str, Any], paths: Iterable[Path]) -> dict[str, Any]:
    """A copy without the values at these paths and the idle sections; a list with such a value is dropped whole."""
    kept = copy.deepcopy({key: value for key, value in config.items() if not is_idle(key, value)})
    for path in paths:
        keys = list(takewhile(lambda step: isinstance(step, str), path))
        section: Any = kept
        for key in keys[:-1]:
            section = section.get(key, {})
        section.pop(keys[-1], None)
    return kept


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


def auto_paths(value: object, path: Path = ()) -> Iterator[Path]:
    """The path of every "auto" in nested objects and lists."""
    if value == AUTO:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from auto_paths(item, (*path, key))


def unknown_key(path: str, known: list[str] | tuple[str, ...]) -> str:
    """A sentence with the nearest right key, if one is near enough to be a misspelling, or else with all of them."""
    key = path.rsplit(".", 1)[-1]
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.75)
    if SYNONYMS.get(key) in known:
        nearest = [SYNONYMS[key]]
    remedy = f"did you mean {nearest[0]}?" if nearest else f"known here: {', '.join(known)}"
    return f"unknown key {path}: {remedy}"
