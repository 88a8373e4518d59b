"""A DeepSpeed JSON file -> the complete configuration of one run, or a refusal before the model is built.

The JSON owns ZeRO, offload and communication; the command line owns batch, learning rate, clipping and precision, which
are "auto" in the JSON. DeepSpeed itself crashes on "auto", accepts a misspelt top-level key silently and asserts
late on batch sizes.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch

import ds_configs
from pretraining.engines.deepspeed_keys import JSON_OPTIMIZERS, key_problems, value_problems, without
from pretraining.engines.deepspeed_refusals import AUTO
from pretraining.engines.updating.loss_scaling import GROWTH_INTERVAL, INITIAL_POWER, SMALLEST_SCALE
from pretraining.engines.updating.optimizers import OptimizerOptions
from runtime.files.unique_keys import DuplicateKey, OutOfBounds, require_bounded, without_duplicates
from runtime.processes.ranks import read_ranks

PACKAGED = Path(ds_configs.__file__).resolve().parent
LARGEST_FILE_BYTES = 1 << 20
DEEPEST_NESTING = 16
MOST_VALUES = 2_000  # all the keys that DeepSpeed knows are a few hundred
MOST_TOLD = 20

logger = logging.getLogger(__name__)


def load_config(path: str | Path) -> dict[str, Any]:
    """Read a DeepSpeed JSON file.

    Raises ValueError, naming the file, when it is missing, too large, too deep, not a JSON object, or repeats a key.
    """
    path = find_config(str(path))
    if not path.is_file():
        raise ValueError(f"--deepspeed {path} is not a file: name one, such as ds_configs/zero2.json")
    num_bytes = path.stat().st_size
    if num_bytes > LARGEST_FILE_BYTES:
        raise ValueError(f"{path} has {num_bytes} bytes: a DeepSpeed JSON has at most {LARGEST_FILE_BYTES}")
    try:
        text = path.read_bytes().decode("utf-8")
        config = json.loads(text, object_pairs_hook=without_duplicates, parse_constant=refuse_constant)
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply: at most {DEEPEST_NESTING} levels") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} holds a {type(config).__name__}: it must be a JSON object")
    try:
        return dict(require_bounded(config, most_values=MOST_VALUES, deepest=DEEPEST_NESTING))
    except OutOfBounds as error:
        raise ValueError(f"{path}: {error}") from error


@cache
def find_config(name: str) -> Path:
    """The file of that name; where there is none, for `zero2.json` and `ds_configs/zero2.json` the packaged one.

    An installed project has no folder `ds_configs` beside it. The main rank says which file it is, once.
    """
    path = Path(name)
    own = PACKAGED / path.name
    if path.is_file() or path.parent not in (Path(), Path(PACKAGED.name)) or not own.is_file():
        return path
    if read_ranks().is_main:
        print(f"--deepspeed {name}: there is no such file here, {own} is used", flush=True)
    return own


def refuse_constant(name: str) -> None:
    raise DuplicateKey(f"{name} is not a number: write a finite one")


def resolve_config(
    config: Mapping[str, Any],
    *,
    micro_batch_size: int,
    accumulation: int,
    world_size: int,
    clipping: float,
    bf16: bool | None,
    fp16: bool = False,
    optimizer: OptimizerOptions,
    source: str = "the DeepSpeed JSON",
) -> dict[str, Any]:
    """Fill every "auto" from the options and return what `deepspeed.initialize` takes; `config` stays as it is.

    `micro_batch_size` in rows per rank, `clipping` is the largest gradient norm (0: none), `bf16` None lets the JSON
    decide, `fp16` excludes it. The result has an "optimizer" section where DeepSpeed is to build the optimizer
    (`names_optimizer`). Raises one ValueError with every problem found: unknown keys, and values that contradict the
    options, with both values.
    """
    refusals = key_problems(config)
    # What is left without the faulty values is checked too, so that all problems come at once.
    resolved = without(config, [path for path, _ in refusals])
    problems = [problem for _, problem in refusals]
    zero = resolved.setdefault("zero_optimization", {})
    is_given = not {("zero_optimization",), ("zero_optimization", "stage")} & {path for path, _ in refusals}
    if is_given:
        zero.setdefault("stage", 0)
    for key in [key for key, value in zero.items() if value == AUTO]:
        del zero[key]  # DeepSpeed's default
    problems += fill_batch(resolved, micro_batch_size, accumulation, world_size)
    problems += fill(resolved, "gradient_clipping", clipping, "--max_grad_norm")
    problems += fill_precision(resolved, bf16, fp16=fp16)
    problems += fill_optimizer(resolved, optimizer)
    problems += zero_problems(zero) if is_given else []
    if zero_stage(resolved) == 0:
        zero["stage"] = 0  # a faulty one has been named
    problems += value_problems(resolved)
    if problems:
        more = [f"and {len(problems) - MOST_TOLD} more"] if len(problems) > MOST_TOLD else []
        lines = "\n".join(f"  {problem}" for problem in [*problems[:MOST_TOLD], *more])
        raise ValueError(f"{source} cannot be used as a DeepSpeed JSON:\n{lines}")
    return resolved


def fill(section: dict[str, Any], key: str, value: Any, option: str, *, path: str = "") -> list[str]:
    """Set a missing or "auto" value; a value given there must equal the option's."""
    given = section.get(key, AUTO)
    if given == AUTO:
        section[key] = value
        return []
    if given == value:
        return []
    return [f'{path}{key} is {given} in the JSON and {value} by {option}: write "auto" there, or make them equal']


def fill_batch(config: dict[str, Any], micro_batch_size: int, accumulation: int, world_size: int) -> list[str]:
    """DeepSpeed's three batch sizes, in rows; the largest is the product of the others and the ranks."""
    rows = micro_batch_size * accumulation * world_size
    batch = f"the options ({micro_batch_size} rows x {accumulation} micro-batches x {world_size} ranks)"
    return [
        *fill(config, "train_batch_size", rows, batch),
        *fill(config, "train_micro_batch_size_per_gpu", micro_batch_size, "--per_device_train_batch_size"),
        *fill(config, "gradient_accumulation_steps", accumulation, batch),
    ]


def fill_precision(config: dict[str, Any], bf16: bool | None, *, fp16: bool) -> list[str]:
    """bf16, from stage 2 on with fp32 sums of gradients, fp16 with a dynamic scale, or fp32; at stage 0 fp32 only."""
    problems = fill_fp16(config) if fp16 else []
    if not fp16 and config.pop("fp16", {}).get("enabled", False) not in (False, AUTO):
        problems.append("fp16.enabled is true and --fp16 is not given: give it (pretraining), or use --bf16 true")
    section = config.setdefault("bf16", {})
    if bf16 is None:
        section["enabled"] = section.get("enabled", AUTO) is True
    problems += [] if bf16 is None else fill(section, "enabled", bf16, "--bf16", path="bf16.")
    sums = config.get("data_types", {}).get("grad_accum_dtype", "fp32")
    if section["enabled"] is not True and sums != "fp32":
        problems.append(f"data_types.grad_accum_dtype is {sums} and bf16 is off: write fp32, or use --bf16 true")
    if section["enabled"] is True:
        if config["zero_optimization"].get("stage") == 0:
            problems.append(
                "bf16 is on and zero_optimization.stage is 0: DeepSpeed then uses another optimizer, whose losses "
                "differ from those of stages 1 to 3: use stage 1, or --bf16 false"
            )
        # Sums over micro-batches lose small gradients in bf16. At stage 1 DeepSpeed would take another wrapper for
        # fp32 sums and still add in bf16 (seen with 0.19.8), so only stages 2 and 3 have them.
        if zero_stage(config) >= 2:
            config.setdefault("data_types", {}).setdefault("grad_accum_dtype", "fp32")
    return problems


def fill_fp16(config: dict[str, Any]) -> list[str]:
    """The section of a dynamic loss scale, with the PyTorch engine's rule where the JSON sets none."""
    section = config.setdefault("fp16", {})
    for key in [key for key, value in section.items() if value == AUTO]:
        del section[key]
    rule = {
        "loss_scale": 0,
        "initial_scale_power": INITIAL_POWER,
        "loss_scale_window": GROWTH_INTERVAL,
        "hysteresis": 1,
        "min_loss_scale": int(SMALLEST_SCALE),
    }
    section.update({"enabled": True, **rule, **section})
    problems = []
    if section["enabled"] is not True:
        problems.append('fp16.enabled is false in the JSON and true by --fp16: write "auto" there, or make them equal')
    if section["loss_scale"] != 0:
        problems.append(
            f"fp16.loss_scale is {section['loss_scale']}: a fixed scale is not offered; write 0, which finds it"
        )
    if section.get("fp16_master_weights_and_grads"):
        problems.append("fp16.fp16_master_weights_and_grads is true: weights are trained in fp32, remove the key")
    if config["zero_optimization"].get("stage") == 0:
        problems.append(
            "--fp16 is given and zero_optimization.stage is 0: DeepSpeed then uses another optimizer; use stage 1, or "
            "leave out --deepspeed"
        )
    return problems


def fill_optimizer(config: dict[str, Any], options: OptimizerOptions) -> list[str]:
    """Complete the JSON's optimizer; without one, only offloading asks for DeepSpeed's (Adam on the CPU)."""
    if "optimizer" not in config:
        if options.name == "lamb":
            return lamb_problems(config)
        if options.name == "muon":
            return muon_problems(config)
        if offload_device(config["zero_optimization"], "offload_optimizer") == "none":
            return []
        config["optimizer"] = {"type": "Adam" if options.name == "adam" else "AdamW"}
        config["optimizer"]["params"] = {"adam_w_mode": options.name != "adam"}
    section = config["optimizer"]
    kind = {name.lower(): name for name in JSON_OPTIMIZERS}[str(section["type"]).lower()]
    parameters = section.setdefault("params", {})
    problems = name_problems(kind, parameters, options) + (lamb_problems(config) if kind == "Lamb" else [])
    for key, value, option in (
        ("lr", options.learning_rate, "--learning_rate"),
        ("betas", list(options.betas), "--adam_beta1 and --adam_beta2"),
        ("eps", options.eps, "--adam_epsilon"),
        ("weight_decay", options.weight_decay, "--weight_decay"),
    ):
        problems += fill(parameters, key, value, option, path="optimizer.params.")
    if kind != "Lamb" and not parameters.get("torch_adam") and not can_compile():
        logger.warning("no compiler for DeepSpeed's %s: torch's is used instead (torch_adam)", kind)
        parameters["torch_adam"] = True
    return problems


def name_problems(kind: str, parameters: dict[str, Any], options: OptimizerOptions) -> list[str]:
    """The JSON's optimizer against --optimizer. DeepSpeed's "Adam" means AdamW unless adam_w_mode is false."""
    name = kind.lower()
    if kind == "Adam":
        # Asked for by name on the command line, Adam is Adam.
        adam_w_mode = parameters.setdefault("adam_w_mode", options.name != "adam")
        name = "adamw" if adam_w_mode else "adam"
    if options.name in ("auto", name):
        return []
    return [f"optimizer.type is {kind} ({name}) in the JSON and {options.name} by --optimizer: drop one of them"]


def lamb_problems(config: Mapping[str, Any]) -> list[str]:
    """LAMB needs each parameter's norm; ZeRO gives its optimizer flat slices of many parameters."""
    problems = []
    stage = zero_stage(config)
    if stage:
        problems.append(
            f"LAMB scales each parameter by its norm and zero_optimization.stage {stage} has only slices of them: "
            "use stage 0, or FSDP2 (without --deepspeed), or --optimizer adamw"
        )
    if "optimizer" in config and not torch.cuda.is_available():
        problems.append(
            "optimizer.type Lamb is a CUDA kernel of DeepSpeed and there is no CUDA device: write AdamW, or use "
            "--optimizer lamb without the section"
        )
    return problems


def muon_problems(config: Mapping[str, Any]) -> list[str]:
    """Muon needs whole matrices; ZeRO gives its optimizer flat slices of many parameters."""
    stage = zero_stage(config)
    if not stage:
        return []
    return [
        f"Muon orthogonalises whole matrices and zero_optimization.stage {stage} has only slices of them: use stage 0, "
        "or FSDP2 (without --deepspeed), or --optimizer adamw"
    ]


def zero_problems(zero: Mapping[str, Any]) -> list[str]:
    """A stage that does not exist, and offload that the stage does not have: DeepSpeed ignores it or fails late."""
    stage = zero["stage"]
    if type(stage) is not int or not 0 <= stage <= 3:
        return [f"zero_optimization.stage is {stage!r}: it must be 0, 1, 2 or 3"]
    return [
        f"zero_optimization.{key} needs stage {lowest} or higher and stage is {stage}: change one of them"
        for key, lowest in (("offload_optimizer", 1), ("offload_param", 3))
        if offload_device(zero, key) != "none" and stage < lowest
    ]


def offload_device(zero: Mapping[str, Any], key: str) -> str:
    return (zero.get(key) or {}).get("device", "none")


def zero_stage(config: Mapping[str, Any]) -> int:
    """The ZeRO stage of a configuration, 0 where none is named; a malformed one counts as 0 and is refused."""
    section = config.get("zero_optimization")
    stage = section.get("stage", 0) if isinstance(section, dict) else 0
    return stage if stage in (1, 2, 3) else 0


def names_optimizer(config: Mapping[str, Any]) -> bool:
    """Whether DeepSpeed builds the optimizer of a resolved configuration; otherwise the engine passes one."""
    return "optimizer" in config


def has_cxx_compiler() -> bool:
    """Whether a C++ compiler is on PATH."""
    return any(shutil.which(name) for name in ("c++", "g++", "clang++"))


def can_compile() -> bool:
    """Whether DeepSpeed can compile its optimizers: a C++ compiler, and with a GPU the CUDA toolkit's too."""
    return has_cxx_compiler() and (not torch.cuda.is_available() or shutil.which("nvcc") is not None)


def skip_compiled_collective() -> None:
    """Keep DeepSpeed from compiling its shared-memory collective for the CPU: gloo does the work.

    The compilation takes over a minute, and one that is killed leaves a lock on which every later start waits forever.
    """
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
