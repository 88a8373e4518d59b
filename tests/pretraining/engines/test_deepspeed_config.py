"""DeepSpeed JSON files: what is filled in, and what is refused with both values or the nearest right key."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretraining.engines import deepspeed_config, deepspeed_refusals
from pretraining.engines.deepspeed_config import load_config, names_optimizer, resolve_config, zero_stage
from pretraining.engines.deepspeed_keys import auto_paths
from pretraining.engines.updating.optimizers import OptimizerOptions
from pretraining.plan.options import PretrainingOptions

CONFIG_FOLDER = Path(__file__).resolve().parents[3] / "ds_configs"
CONFIG_FILES = sorted(CONFIG_FOLDER.glob("*.json"))
FOUR_AUTO = dict.fromkeys(
    ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping"), "auto"
)


def test_every_option_that_a_remedy_names_exists():
    options = {item.name for item in dataclasses.fields(PretrainingOptions)}
    modules = (deepspeed_refusals, deepspeed_config)
    sources = [*(Path(str(module.__file__)) for module in modules), CONFIG_FOLDER / "README.md"]
    for source in sources:
        named = set(re.findall(r"--(\w+)", source.read_text()))
        assert named
        assert named <= options, source


def resolved(config: dict[str, Any], **changes: Any) -> dict[str, Any]:
    options: dict[str, Any] = {
        "micro_batch_size": 4,
        "accumulation": 3,
        "world_size": 2,
        "clipping": 1.0,
        "bf16": False,
        "optimizer": OptimizerOptions(),
    }
    return resolve_config(config, **{**options, **changes})


@pytest.fixture(autouse=True)
def _with_a_compiler(monkeypatch):
    monkeypatch.setattr(deepspeed_config, "can_compile", lambda: True)


@pytest.mark.parametrize("path", CONFIG_FILES, ids=lambda path: path.stem)
def test_every_file_of_the_project_resolves_without_an_auto_and_deepspeed_takes_it(path):
    from deepspeed.runtime.config import DeepSpeedConfig

    config = load_config(path)
    before = copy.deepcopy(config)
    complete = resolved(config, bf16=zero_stage(config) > 0)
    assert config == before
    assert not list(auto_paths(complete))
    assert complete["train_batch_size"] == 24
    assert complete["gradient_clipping"] == 1.0
    assert complete["zero_optimization"]["stage"] == int(path.stem[4])
    DeepSpeedConfig({**complete, "train_batch_size": 12})  # DeepSpeed sees a world of one here


def test_the_folder_has_a_file_for_every_stage_and_the_readme_names_each():
    assert {path.stem for path in CONFIG_FILES} >= {f"zero{stage}" for stage in range(4)} | {
        "zero2_offload",
        "zero3_offload",
    }
    readme = (CONFIG_FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(path.name in readme for path in CONFIG_FILES)


@pytest.mark.parametrize(
    ("config", "given", "wanted"),
    [
        ({"train_batch_size": 64}, "64", "24"),
        ({"train_micro_batch_size_per_gpu": 8}, "8", "4"),
        ({"gradient_accumulation_steps": 5}, "5", "3"),
        ({"gradient_clipping": 0.5}, "0.5", "1.0"),
        ({"bf16": {"enabled": True}, "zero_optimization": {"stage": 1}}, "True", "False"),
        ({"optimizer": {"type": "AdamW", "params": {"lr": 0.5}}}, "0.5", "0.001"),
        ({"optimizer": {"type": "AdamW", "params": {"betas": [0.1, 0.2]}}}, "0.1, 0.2", "0.9, 0.98"),
        ({"optimizer": {"type": "AdamW", "params": {"weight_decay": 0.75}}}, "0.75", "0.01"),
    ],
)
def test_a_contradiction_is_refused_with_both_values(config, given, wanted):
    with pytest.raises(ValueError, match="cannot be used") as refusal:
        resolved(config)
    assert given in str(refusal.value)
    assert wanted in str(refusal.value)


def test_equal_values_are_no_contradiction():
    config = {"train_batch_size": 24, "gradient_clipping": 1, "bf16": {"enabled": False}}
    assert resolved(config)["train_micro_batch_size_per_gpu"] == 4


def test_every_problem_is_named_at_once():
    with pytest.raises(ValueError, match="cannot be used") as refusal:
        resolved({"gradient_clipping": 0.5, "train_batch_size": 64, "fp16": {"enabled": True}})
    assert all(word in str(refusal.value) for word in ("gradient_clipping", "train_batch_size", "fp16"))


@pytest.mark.parametrize(
    ("config", "path", "nearest"),
    [
        ({"gradient_cliping": 1.0}, "gradient_cliping", "gradient_clipping"),
        ({"zero_optimisation": {}}, "zero_optimisation", "zero_optimization"),
        ({"zero_optimization": {"stge": 2}}, "zero_optimization.stge", "stage"),
        ({"zero_optimization": {"offload_optimizer": {"devise": "cpu"}}}, "offload_optimizer.devise", "device"),
        ({"bf16": {"enable": True}}, "bf16.enable", "enabled"),
        ({"optimizer": {"type": "Adam", "parms": {}}}, "optimizer.parms", "params"),
        ({"optimizer": {"type": "Adam", "params": {"epsilon": 1}}}, "optimizer.params.epsilon", "eps"),
        ({"data_types": {"grad_acum_dtype": "fp32"}}, "data_types.grad_acum_dtype", "grad_accum_dtype"),
        ({"aio": {"blocksize": 1}}, "aio.blocksize", "block_size"),
        ({"comms_logger": {"verbos": True}}, "comms_logger.verbos", "verbose"),
    ],
)
def test_a_misspelt_key_at_any_level_is_refused_with_the_nearest_right_one(config, path, nearest):
    with pytest.raises(ValueError, match=path.replace(".", r"\.") + f": did you mean {nearest}"):
        resolved(config)


@pytest.mark.parametrize(
    ("config", "remedy"),
    [
        ({"scheduler": {"type": "WarmupLR"}}, "--learning_rate"),
        ({"fp16": {"enabled": True}}, "--bf16 true"),
        ({"amp": {"enabled": True}}, "--bf16"),
        ({"zero_optimization": {"stage": 2, "cpu_offload": True}}, "offload_optimizer"),
        ({"zero_optimization": {"stage": 2, "zenflow": {}}}, "remove the section"),
        ({"zero_optimization": True}, "must be an object"),
        ({"zero_optimization": {"stage": 4}}, "0, 1, 2 or 3"),
        ({"zero_optimization": {"stage": "2"}}, "0, 1, 2 or 3"),
        ({"zero_optimization": {"stage": 2, "reduce_bucket_size": -1}}, "greater than 0"),
        ({"zero_optimization": {"stage": 2, "offload_param": {"device": "cpu"}}}, "needs stage 3"),
        ({"zero_optimization": {"offload_optimizer": {"device": "cpu"}}}, "needs stage 1"),
        ({"zero_optimization": {"stage": "auto"}}, "nothing fills in"),
        ({"steps_per_print": "auto"}, "nothing fills in"),
        ({"train_batch_size": "24"}, "must be an integer"),
        ({"train_batch_size": True}, "must be an integer"),
        ({"optimizer": {"type": "OneBitAdam"}}, "AdamW"),
        ({"optimizer": "AdamW"}, "must be an object"),
        ({"data_types": {"grad_accum_dtype": "bf16"}}, "--bf16 true"),
    ],
)
def test_what_cannot_work_is_refused_with_the_remedy(config, remedy):
    with pytest.raises(ValueError, match="cannot be used") as refusal:
        resolved(config)
    assert remedy in str(refusal.value)


def test_bf16_is_refused_at_stage_0_and_sums_gradients_in_fp32_from_stage_2_on():
    with pytest.raises(ValueError, match="stage is 0"):
        resolved({}, bf16=True)
    assert resolved({"zero_optimization": {"stage": 2}}, bf16=True)["data_types"] == {"grad_accum_dtype": "fp32"}
    assert "data_types" not in resolved({"zero_optimization": {"stage": 1}}, bf16=True)
    assert "data_types" not in resolved({"zero_optimization": {"stage": 2}})


def test_without_a_word_on_bf16_the_json_decides():
    config = {"zero_optimization": {"stage": 2}, "bf16": {"enabled": True}}
    assert resolved(config, bf16=None)["bf16"]["enabled"] is True
    assert resolved({"bf16": {"enabled": "auto"}}, bf16=None)["bf16"]["enabled"] is False


def test_an_optimizer_in_the_json_is_honoured_and_completed():
    section = resolved({"optimizer": {"type": "AdamW", "params": {"lr": "auto"}}})["optimizer"]
    assert section == {
        "type": "AdamW",
        "params": {"lr": 0.001, "betas": [0.9, 0.98], "eps": 1e-6, "weight_decay": 0.01},
    }


@pytest.mark.parametrize(
    ("section", "name", "agrees"),
    [
        ({"type": "AdamW"}, "adamw", True),
        ({"type": "AdamW"}, "adam", False),
        ({"type": "AdamW"}, "lamb", False),
        ({"type": "Adam"}, "adam", True),
        ({"type": "Adam", "params": {"adam_w_mode": False}}, "adamw", False),
        ({"type": "Adam", "params": {"adam_w_mode": True}}, "adam", False),
        ({"type": "Adam", "params": {"adam_w_mode": True}}, "adamw", True),
    ],
)
def test_the_json_s_optimizer_must_agree_with_an_explicit_option(section, name, agrees):
    options = OptimizerOptions(name=name)
    if agrees:
        assert names_optimizer(resolved({"optimizer": section}, optimizer=options))
    else:
        with pytest.raises(ValueError, match=f"{name} by --optimizer"):
            resolved({"optimizer": section}, optimizer=options)


def test_adam_asked_for_on_the_command_line_is_not_turned_into_adamw():
    """DeepSpeed's "Adam" is AdamW unless adam_w_mode says otherwise."""
    plain = resolved({"optimizer": {"type": "Adam"}}, optimizer=OptimizerOptions(name="adam"))
    assert plain["optimizer"]["params"]["adam_w_mode"] is False
    as_deepspeed = resolved({"optimizer": {"type": "Adam"}})
    assert as_deepspeed["optimizer"]["params"]["adam_w_mode"] is True


def test_deepspeed_builds_the_optimizer_only_when_named_or_when_its_state_is_offloaded():
    offload = {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}
    assert not names_optimizer(resolved({"zero_optimization": {"stage": 2}}))
    assert resolved(offload)["optimizer"]["type"] == "AdamW"
    assert resolved(offload, optimizer=OptimizerOptions(name="adam"))["optimizer"]["params"]["adam_w_mode"] is False


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_lamb_is_refused_where_zero_slices_the_parameters(stage):
    options = OptimizerOptions(name="lamb")
    assert not names_optimizer(resolved({}, optimizer=options))
    with pytest.raises(ValueError, match="only slices"):
        resolved({"zero_optimization": {"stage": stage}}, optimizer=options)


def test_without_a_compiler_torch_s_optimizer_takes_over(monkeypatch, caplog):
    monkeypatch.setattr(deepspeed_config, "can_compile", lambda: False)
    section = resolved({"optimizer": {"type": "AdamW"}})["optimizer"]
    assert section["params"]["torch_adam"] is True
    assert "no compiler" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"train_batch_size": 1, "train_batch_size": 2}', "train_batch_size appears twice"),
        ('{"bf16": {"enabled": true, "enabled": false}}', "enabled appears twice"),
        ('{"gradient_clipping": NaN}', "NaN is not a number"),
        ("[1, 2]", "holds a list"),
        ("{", "not valid JSON"),
        ('{"a": ' * 20 + "1" + "}" * 20, "nested too deeply"),
        ("[" * 200_000, "nested too deeply"),
        (" " * (1 << 20) + "{}", "bytes"),
        ("\udcff", "not valid JSON"),
    ],
    ids=["twice", "twice-inside", "not-finite", "list", "cut", "deep", "very-deep", "huge", "not-utf-8"],
)
def test_a_malformed_file_is_refused_by_name(tmp_path, text, message):
    path = tmp_path / "zero.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=message) as refusal:
        load_config(path)
    assert str(path) in str(refusal.value)


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"missing\.json is not a file"):
        load_config(tmp_path / "missing.json")


@given(st.integers(1, 64), st.integers(1, 64), st.integers(1, 64))
def test_the_batch_is_the_product_of_rows_micro_batches_and_ranks(micro_batch_size, accumulation, world_size):
    sizes = {"micro_batch_size": micro_batch_size, "accumulation": accumulation, "world_size": world_size}
    assert resolved(dict(FOUR_AUTO), **sizes)["train_batch_size"] == micro_batch_size * accumulation * world_size


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5) | st.just("auto"),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["stage", "optimizer", "params", "bf16", "enabled", "zero_optimization"]), inner
            )
        ),
    )
)
def test_whatever_stands_in_the_file_the_answer_is_a_configuration_or_a_value_error(value):
    config = json.loads(json.dumps(value))
    if not isinstance(config, dict):
        config = {"zero_optimization": config, "bf16": config, "optimizer": config}
    try:
        complete = resolved(config)
    except ValueError:
        return
    assert not list(auto_paths(complete))


TRAINING = """
import sys, torch
from pretraining.engines.deepspeed_config import load_config, skip_compiled_collective
from pretraining.engines.build import build_engine
from pretraining.engines.engine import EngineOptions
from runtime.processes.ranks import choose_device, close_process_group, read_ranks

skip_compiled_collective()
torch.manual_seed(0)
ranks = read_ranks()
model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.LayerNorm(8), torch.nn.Linear(8, 1))
options = EngineOptions(deepspeed=load_config(sys.argv[1]))
engine = build_engine(model, options, ranks=ranks, device=choose_device(ranks))
rows = torch.randn(4, 8)
losses = []
for _ in range(5):
    loss = engine(input=rows).square().mean()
    engine.backward(loss, last=True)
    engine.step(0.01)
    losses.append(float(loss))
assert losses[-1] < losses[0], losses
close_process_group()
print("losses", losses)
"""


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIG_FILES, ids=lambda path: path.stem)
def test_every_file_trains_on_a_machine_without_a_compiler(path, tmp_path):
    environment = {**os.environ, "PATH": str(tmp_path), "TORCH_EXTENSIONS_DIR": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", TRAINING, str(path)], env=environment, capture_output=True, text=True, timeout=240
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-3000:]
    assert "losses" in run.stdout
    assert not list(tmp_path.iterdir())
