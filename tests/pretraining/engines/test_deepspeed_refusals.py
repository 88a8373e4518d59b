"""DeepSpeed JSON files made for other programs: those of `transformers` are taken, others refused all at once."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from pretraining.engines import deepspeed_config
from pretraining.engines.deepspeed_config import resolve_config
from pretraining.engines.deepspeed_keys import SCALARS, SECTIONS, auto_paths, section_models
from pretraining.engines.deepspeed_refusals import OPTIMIZER_KEYS, REFUSED
from pretraining.engines.updating.optimizers import OptimizerOptions

# As in the page on DeepSpeed of the documentation of `transformers`.
COMMON = {
    "fp16": {
        "enabled": "auto",
        "loss_scale": 0,
        "loss_scale_window": 1000,
        "initial_scale_power": 16,
        "hysteresis": 2,
        "min_loss_scale": 1,
    },
    "bf16": {"enabled": "auto"},
    "optimizer": {"type": "AdamW", "params": dict.fromkeys(("lr", "betas", "eps", "weight_decay"), "auto")},
    "scheduler": {
        "type": "WarmupLR",
        "params": dict.fromkeys(("warmup_min_lr", "warmup_max_lr", "warmup_num_steps"), "auto"),
    },
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "steps_per_print": 2000,
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "wall_clock_breakdown": False,
}
ZERO_2 = {
    "stage": 2,
    "offload_optimizer": {"device": "cpu", "pin_memory": True},
    "allgather_partitions": True,
    "allgather_bucket_size": 2e8,
    "overlap_comm": True,
    "reduce_scatter": True,
    "reduce_bucket_size": 2e8,
    "contiguous_gradients": True,
}
ZERO_3 = {
    "stage": 3,
    "offload_optimizer": {"device": "cpu", "pin_memory": True},
    "offload_param": {"device": "cpu", "pin_memory": True},
    "overlap_comm": True,
    "contiguous_gradients": True,
    "sub_group_size": 1e9,
    "reduce_bucket_size": "auto",
    "stage3_prefetch_bucket_size": "auto",
    "stage3_param_persistence_threshold": "auto",
    "stage3_max_live_parameters": 1e9,
    "stage3_max_reuse_distance": 1e9,
    "stage3_gather_16bit_weights_on_model_save": True,
}
DECAYING = {
    "type": "WarmupDecayLR",
    "params": {
        "last_batch_iteration": -1,
        "total_num_steps": "auto",
        "warmup_min_lr": "auto",
        "warmup_max_lr": "auto",
        "warmup_num_steps": "auto",
    },
}
ALL_AUTO = {
    "stage": 3,
    **dict.fromkeys(
        (
            "allgather_bucket_size",
            "reduce_bucket_size",
            "overlap_comm",
            "contiguous_gradients",
            "stage3_prefetch_bucket_size",
            "stage3_param_persistence_threshold",
            "stage3_max_live_parameters",
            "stage3_max_reuse_distance",
            "sub_group_size",
        ),
        "auto",
    ),
}
DOCUMENTED: dict[str, dict[str, Any]] = {
    "zero2": {**COMMON, "zero_optimization": ZERO_2},
    "zero3": {**COMMON, "zero_optimization": ZERO_3},
    "zero3-decaying": {**COMMON, "zero_optimization": ZERO_3, "scheduler": DECAYING},
    "zero3-all-auto": {**COMMON, "zero_optimization": ALL_AUTO, "scheduler": DECAYING},
    "zero0-with-apex": {**COMMON, "zero_optimization": {"stage": 0}, "amp": {"enabled": "auto", "opt_level": "auto"}},
}


@pytest.fixture(autouse=True)
def _with_a_compiler(monkeypatch):
    monkeypatch.setattr(deepspeed_config, "can_compile", lambda: True)


def resolved(config: dict[str, Any], **changes: Any) -> dict[str, Any]:
    options: dict[str, Any] = {
        "micro_batch_size": 4,
        "accumulation": 3,
        "world_size": 1,
        "clipping": 1.0,
        "bf16": False,
        "optimizer": OptimizerOptions(),
    }
    return resolve_config(json.loads(json.dumps(config)), **{**options, **changes})


def lines_of(config: dict[str, Any], **changes: Any) -> list[str]:
    with pytest.raises(ValueError, match="cannot be used") as refused:
        resolved(config, **changes)
    return [line.strip() for line in str(refused.value).splitlines()[1:]]


@pytest.mark.parametrize("name", DOCUMENTED)
@pytest.mark.parametrize("bf16", [False, None, True])
def test_the_files_in_the_documentation_of_transformers_are_taken(name, bf16):
    from deepspeed.runtime.config import DeepSpeedConfig

    config = DOCUMENTED[name]
    if bf16 and config["zero_optimization"]["stage"] == 0:
        pytest.skip("bf16 is not offered at stage 0")
    complete = resolved(config, bf16=bf16)
    assert not list(auto_paths(complete))
    assert not {"scheduler", "fp16", "amp"} & set(complete)
    assert complete["bf16"]["enabled"] is bool(bf16)
    assert complete["optimizer"]["params"]["lr"] == 0.001
    DeepSpeedConfig(complete)


@pytest.mark.parametrize(
    "scheduler",
    [
        {"type": "WarmupLR", "params": {"warmup_max_lr": 0.001, "warmup_min_lr": "auto"}},
        {"type": "WarmupLR", "params": {}},
        {"type": "WarmupLR"},
        {"type": "OneCycle", "params": {"cycle_max_lr": "auto"}},
        {"type": "WarmupLR", "params": {"warmup_max_lr": "auto", "warmup_type": "log"}},
        {"params": {"warmup_max_lr": "auto"}},
        "WarmupLR",
    ],
)
def test_a_scheduler_with_values_of_its_own_is_refused_in_one_sentence(scheduler):
    (line,) = lines_of({"scheduler": scheduler})
    assert line.startswith("scheduler is not accepted")
    assert "--learning_rate, --warmup_fraction and --decay_fraction" in line
    if "0.001" in str(scheduler):
        assert "(it sets warmup_max_lr 0.001)" in line


@pytest.mark.parametrize(
    "section",
    [
        {"scheduler": {"type": "WarmupLR", "params": {"warmup_max_lr": 0.001, "warmup_min_lr": "auto"}}},
        {"activation_checkpointing": {"partition_activations": "auto"}},
        {"optimizer": {"type": "OneBitLamb", "params": {"lr": "auto", "max_coeff": 0.3, "freeze_step": "auto"}}},
        {"zero_optimization": {"stage": 2, "zenflow": {"topk_ratio": "auto"}}},
        {"data_efficiency": {"enabled": True, "seed": "auto"}},
        {"unheard_of": {"enabled": "auto"}},
    ],
)
def test_of_a_section_that_is_to_be_removed_nothing_else_is_said(section):
    assert len(lines_of(section)) == 1


def test_a_section_that_is_switched_off_is_as_good_as_removed():
    off = {name: {"enabled": False, "other": "auto"} for name in ("tensorboard", "wandb", "data_efficiency", "amp")}
    assert not set(off) & set(resolved(off))
    assert len(lines_of({**off, "wandb": {"enabled": True}})) == 1


def test_all_problems_come_at_once_those_of_values_beside_those_of_keys():
    lines = lines_of(
        {
            "gradient_cliping": 1.0,
            "train_batch_size": 65536,
            "train_micro_batch_size_per_gpu": "64",
            "steps_per_print": "auto",
            "optimizer": {"type": "AdamW", "params": {"lr": 0.011, "bias_correction": False, "max_coeff": 0.3}},
            "fp16": {"enabled": True, "loss_scale": 0},
            "sparse_attention": {"mode": "fixed", "block": 16},
            "zero_optimization": {"stage": 1, "offload_param": {"device": "cpu"}, "reduce_bucket_size": -1},
            "scheduler": {"type": "WarmupLR"},
        }
    )
    starts = [
        *("unknown key gradient_cliping: did you mean gradient_clipping?", "train_batch_size is 65536 in the JSON and"),
        *("train_micro_batch_size_per_gpu is '64'", 'steps_per_print is "auto"', "optimizer.params.lr is 0.011"),
        *("optimizer.params.bias_correction is not", "optimizer.params.max_coeff is not accepted", "fp16.enabled is"),
        *("sparse_attention is not accepted: attention belongs to the model", "scheduler is not accepted"),
        *("zero_optimization.offload_param needs stage 3", "zero_optimization.reduce_bucket_size is -1"),
    ]
    assert {start for start in starts if any(line.startswith(start) for line in lines)} == set(starts)
    assert len(lines) == len(starts)


@pytest.mark.parametrize("zero", [True, {"stage": "auto"}, {"stage": 4}, {"stage": "2"}])
@pytest.mark.parametrize(("optimizer", "bf16"), [("lamb", False), ("adamw", True)])
def test_a_faulty_stage_is_the_only_problem_it_makes(zero, optimizer, bf16):
    (line,) = lines_of({"zero_optimization": zero}, optimizer=OptimizerOptions(name=optimizer), bf16=bf16)
    assert line.startswith("zero_optimization")


@pytest.mark.parametrize("key", [key for keys in OPTIMIZER_KEYS.values() for key in keys])
def test_the_keys_of_other_optimizers_are_answered_with_what_replaces_them(key):
    (line,) = lines_of({"optimizer": {"type": "AdamW", "params": {key: 1}}})
    assert line.startswith(f"optimizer.params.{key} is not accepted: ")
    assert re.search(r"use --\w+|write \w+|remove the key", line)


@pytest.mark.parametrize(
    ("key", "told"),
    [("max_coeff", "--max_grad_norm"), ("max_grad_norm", "--max_grad_norm"), ("momentum", "--adam_beta1")],
)
def test_the_option_is_named(key, told):
    (line,) = lines_of({"optimizer": {"type": "Adam", "params": {key: 1}}})
    assert told in line


def test_no_far_name_is_suggested():
    for key in ("sparse_atention", "stage", "lr", "model_parallel", "offload"):
        (line,) = lines_of({key: 1})
        assert "did you mean" not in line
        assert "known here: " in line


class Watched(dict[str, Any]):
    """A dict that keeps the keys it was asked for."""

    asked: set[str]

    def __contains__(self, key: object) -> bool:
        type(self).asked.add(str(key))
        return super().__contains__(key)

    def get(self, key: Any, default: Any = None) -> Any:
        type(self).asked.add(str(key))
        return super().get(key, default)

    def keys(self) -> Any:
        return self


def test_every_key_that_deepspeed_reads_or_once_read_is_known_here():
    from deepspeed.runtime import config as deepspeed_module

    Watched.asked = set()
    content = Watched(train_batch_size=1, zero_optimization={"stage": 2}, bf16={"enabled": True})
    deepspeed_module.DeepSpeedConfig(content)
    known = {*SCALARS, *SECTIONS, *section_models(), *REFUSED}
    assert {"train_batch_size", "optimizer", "flops_profiler", "data_types", "timers"} <= Watched.asked
    assert Watched.asked - known == set()
    removed = {*deepspeed_module._REMOVED_TOP_LEVEL_CONFIG_KEYS}
    removed |= {f"zero_optimization.{key}" for key in deepspeed_module._REMOVED_ZERO_CONFIG_KEYS}
    assert removed - set(REFUSED) == set()
