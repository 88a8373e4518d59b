"""The same numbers from every engine, ZeRO stage, sharding, micro-batch and number of ranks.

fp32, no dropout, the same global batch, over 20 updates of a trunk and its branches: losses equal to 1e-5.
"""

from __future__ import annotations

import itertools
import json
import time
from types import SimpleNamespace

import pytest
from pretraining_runs import (
    ROOT,
    assert_same_course,
    in_process,
    journal,
    run,
    run_together,
    series,
    write_shards,
)

# Losses of the 20 updates of `golden`, one process, torch 2.13 on a CPU.
GOLDEN = (
    3.831855,
    3.812644,
    3.776111,
    3.776387,
    3.765221,
    3.774495,
    3.736003,
    3.700526,
    3.726164,
    3.715102,
    3.703872,
    3.712944,
    3.718678,
    3.621332,
    3.703483,
    3.731786,
    3.641459,
    3.691107,
    3.651065,
    3.646571,
)
FULL = {"series": 2}
BERT = {
    "model": "bert-tiny",
    "config_overrides": "num_hidden_layers=2,hidden_size=32,num_attention_heads=2,intermediate_size=48,"
    "hidden_dropout_prob=0.0,attention_probs_dropout_prob=0.0",
}


def zero(name):
    return {**FULL, "deepspeed": ROOT / "ds_configs" / f"{name}.json"}


@pytest.fixture
def partitioned(tmp_path):
    """ZeRO-3 with every weight partitioned: by the threshold of our JSON models as small as these stay whole."""
    config = json.loads((ROOT / "ds_configs" / "zero3.json").read_text())
    config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    (tmp_path / "partitioned.json").write_text(json.dumps(config))
    return {**FULL, "deepspeed": tmp_path / "partitioned.json"}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def alone(shards, tmp_path_factory):
    """The run of one process that all others are compared with."""
    output = tmp_path_factory.mktemp("alone") / "run"
    in_process(shards, output, FULL)
    return output


def test_golden_trace(shards, tmp_path):
    in_process(shards, tmp_path / "golden", {"validation_rows": 1})
    losses = [line["loss"] for line in journal(tmp_path / "golden")]
    assert losses == pytest.approx(GOLDEN, abs=1e-4)


def test_the_journal_says_what_was_done(alone):
    lines = journal(alone)
    assert {"update", "tokens", "rows", "loss", "learning_rate", "seconds", "tokens_per_second", "world_size"} <= set(
        lines[0]
    )
    trunk = [line for line in lines if line["segment"] == "trunk"]
    assert [line["update"] for line in trunk] == list(range(1, len(trunk) + 1))
    assert [line["rows"] for line in trunk] == [[12 * number, 12 * number + 11] for number in range(len(trunk))]
    assert [line["serial"] for line in lines] == list(range(1, len(lines) + 1))
    assert trunk[-1]["tokens"] >= 7_000 > trunk[-2]["tokens"]
    # The dead first update and the dead last one of a schedule are no updates.
    assert all(line["learning_rate"] > 0 for line in lines)


def test_the_series_lists_every_budget_raw_and_annealed(alone):
    listed = [(entry["kind"], entry["budget_tokens"]) for entry in series(alone)]
    assert listed == [("raw", 0), ("raw", 3500), ("annealed", 3500), ("raw", 7000), ("annealed", 7000)]
    for entry in series(alone)[1:]:
        assert entry["budget_tokens"] <= entry["tokens_seen"] < entry["budget_tokens"] + 12 * 32
        assert entry["flops"] > 0


def test_the_series_counts_the_bytes_of_text_and_names_the_tokenizer(shards, alone):
    manifest = json.loads((shards / "manifest.json").read_text())
    train = manifest["splits"]["train"]
    per_token = train["text_bytes"] / train["tokens"]
    scratch, *trained = series(alone)
    assert scratch["text_bytes"] == 0
    for entry in trained:  # 30 of the 32 tokens of a sequence are text
        assert entry["text_bytes"] == pytest.approx(per_token * entry["tokens_seen"] * 30 / 32, rel=0.01)
        assert entry["tokenizer"] == manifest["tokenizer"]["fingerprint"]


@pytest.mark.parametrize("rows", [1, 5, 12])
def test_micro_batches_and_accumulation_change_nothing(shards, alone, tmp_path, rows):
    """Five rows do not divide twelve: the rest is padded with rows of weight zero."""
    in_process(shards, tmp_path / "run", {**FULL, "per_device_train_batch_size": rows})
    assert_same_course(alone, tmp_path / "run")


def test_gradient_checkpointing_and_workers_change_nothing(shards, alone, tmp_path):
    in_process(shards, tmp_path / "run", {**FULL, "gradient_checkpointing": "true", "dataloader_num_workers": 1})
    assert_same_course(alone, tmp_path / "run")


def test_zero_2_and_fsdp_on_two_ranks_equal_one_process(shards, alone, tmp_path):
    outputs = {tmp_path / "zero2": zero("zero2"), tmp_path / "fsdp": FULL}
    run_together("deepspeed", shards, outputs)
    for output in outputs:
        assert_same_course(alone, output)
        for mine, theirs in zip(series(output), series(alone), strict=True):
            assert mine["validation_loss"] == pytest.approx(theirs["validation_loss"], abs=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_engine_on_two_ranks_equals_one_process(shards, alone, partitioned, tmp_path):
    choices = {
        **{name: zero(name) for name in ("zero0", "zero1", "zero3")},
        "shard_grad_op": {**FULL, "fsdp": "shard_grad_op"},
        "hybrid_one_copy": {**FULL, "fsdp": "hybrid_shard"},
        "hybrid_two_copies": {**FULL, "fsdp": "hybrid_shard", "hybrid_shard_size": 1},
        "offload": {**FULL, "fsdp_offload": "true"},
        "micro_batches_of_1": {**FULL, "per_device_train_batch_size": 1},
        "zero2_without_accumulation": {**zero("zero2"), "per_device_train_batch_size": 6},
        "zero3_recomputed": {**zero("zero3"), "gradient_checkpointing": "true"},
        "partitioned": {**partitioned, "attn_implementation": "eager", "per_device_train_batch_size": 1},
    }
    outputs = {tmp_path / name: options for name, options in choices.items()}
    run_together("torchrun", shards, outputs)
    for output in outputs:
        assert_same_course(alone, output)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_three_ranks_equal_one_process(shards, alone, tmp_path):
    outputs = {tmp_path / "zero1": zero("zero1"), tmp_path / "fsdp": FULL}
    run_together("torchrun", shards, outputs, num_ranks=3)
    for output in outputs:
        assert_same_course(alone, output)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_two_launchers_start_the_same_run(shards, alone, tmp_path):
    run("deepspeed", shards, tmp_path / "deepspeed", zero("zero2"))
    run("torchrun", shards, tmp_path / "torchrun", FULL)
    for name in ("deepspeed", "torchrun"):
        assert_same_course(alone, tmp_path / name)
        assert {line["world_size"] for line in journal(tmp_path / name)} == {2}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_is_optional_agrees_between_the_engines_and_proves_its_exports(shards, partitioned, tmp_path):
    """Each pair is one choice under DeepSpeed and under PyTorch; bf16 pairs agree to bf16's rounding only."""
    pairs = {
        "next_sentence": ("zero3", {**BERT, "objective": "mlm+nsp"}, 1e-5),
        "lengths": ("zero2", {"max_seq_length": None, "length_schedule": "16:0.8,32:0.2"}, 1e-5),
        "lamb": ("zero0", {"optimizer": "lamb"}, 1e-5),
        "adam": ("zero2", {"optimizer": "adam"}, 1e-5),
        "flops": ("zero1", {"budget_tokens": None, "budget_flops": 1e9}, 1e-5),
        "bf16_1": ("zero1", {"bf16": "true"}, 0.05),
        "bf16_2": ("zero2", {"bf16": "true"}, 0.05),
        "bf16_3": ("zero3", {"bf16": "true"}, 0.05),
    }
    outputs = {}
    for name, (json_name, options, _) in pairs.items():
        outputs[tmp_path / f"{name}_deepspeed"] = {**zero(json_name), **options}
        outputs[tmp_path / f"{name}_torch"] = {**FULL, **options}
    outputs[tmp_path / "partitioned"] = {**partitioned, "bf16": "true"}
    run_together("torchrun", shards, outputs)
    assert_same_course(tmp_path / "partitioned", tmp_path / "bf16_2_deepspeed", tolerance=1e-3)
    for name, (_, _, tolerance) in pairs.items():
        assert_same_course(tmp_path / f"{name}_deepspeed", tmp_path / f"{name}_torch", tolerance=tolerance)
    assert "next_sentence_accuracy" in journal(tmp_path / "next_sentence_torch")[0]
    assert "validation_next_sentence_loss" in series(tmp_path / "next_sentence_deepspeed")[-1]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_offloaded_runs_equal_one_process(shards, alone, tmp_path):
    """With torch's AdamW."""
    outputs = {}
    for name in ("zero2_offload", "zero3_offload"):
        config = json.loads((ROOT / "ds_configs" / f"{name}.json").read_text())
        config["optimizer"] = {"type": "AdamW", "params": {"torch_adam": True}}
        (tmp_path / f"{name}.json").write_text(json.dumps(config))
        outputs[tmp_path / f"{name}_torch"] = {**FULL, "deepspeed": tmp_path / f"{name}.json"}
    run_together("torchrun", shards, outputs)
    for output in outputs:
        assert_same_course(alone, output)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(900)
def test_offloaded_runs_of_a_compiled_optimizer_equal_one_process(shards, alone, tmp_path):
    """With DeepSpeed's own AdamW, where there is a compiler: a little further away."""
    compiled = {tmp_path / name: zero(name) for name in ("zero2_offload", "zero3_offload")}
    run_together("torchrun", shards, compiled)
    for output in compiled:
        assert_same_course(alone, output, tolerance=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_compiled_layers_equal_one_process(shards, alone, tmp_path):
    run_together("torchrun", shards, {tmp_path / "compiled": {**FULL, "torch_compile": "true"}})
    assert_same_course(alone, tmp_path / "compiled", tolerance=1e-4)


def test_continuing_from_an_exported_model(shards, alone, tmp_path):
    options = {"model": None, "config_overrides": None, "model_name_or_path": alone / "series" / "raw-7000"}
    in_process(shards, tmp_path / "run", {**options, "budget_tokens": 1_000})
    start, end = series(alone)[-2], series(tmp_path / "run")[0]
    assert start["kind"] == "raw"
    assert end["validation_loss"] == pytest.approx(start["validation_loss"], abs=1e-5)


@pytest.fixture
def one_second_an_update(monkeypatch):
    """The training loop's clock moves a second each time it is read, which it is once an update then."""
    from pretraining.loop import loop

    ticks = itertools.count(step=1.0)
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: next(ticks), monotonic=time.monotonic))


@pytest.mark.usefixtures("one_second_an_update")
def test_hours_spent_before_a_crash_count_on_and_every_budget_has_both_checkpoints(shards, tmp_path):
    options = {"budget_tokens": None, "budget_hours": 18 / 3600, "series": 2, "save_steps": 3}
    in_process(shards, tmp_path / "run", options, fault="update.before:6:fail", status=1)
    assert [line["seconds"] for line in journal(tmp_path / "run")] == pytest.approx([1, 2, 3, 4, 5])
    in_process(shards, tmp_path / "run", options)
    trunk = [line["seconds"] for line in journal(tmp_path / "run") if line["segment"] == "trunk"]
    assert trunk == pytest.approx(range(1, 19))
    first, *entries = series(tmp_path / "run")
    assert (first["kind"], first["seconds"]) == ("raw", 0)
    assert {(entry["kind"], round(3600 * entry["budget"]), round(entry["seconds"], 6)) for entry in entries} == {
        ("annealed", 9, 9.0),
        ("raw", 9, 9.0),
        ("annealed", 18, 18.0),
        ("raw", 18, 18.0),
    }
    assert {entry["budget_unit"] for entry in series(tmp_path / "run")} == {"hours"}


def test_exported_models_load_as_any_transformers_model(alone):
    import torch
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    for entry in series(alone):
        path = alone / entry["path"]
        tokenizer = AutoTokenizer.from_pretrained(path)
        model = AutoModelForMaskedLM.from_pretrained(path)
        with torch.no_grad():
            logits = model(**tokenizer("[MASK]", return_tensors="pt")).logits
        assert logits.shape[-1] == len(tokenizer)


def test_from_any_directory_the_script_finds_its_modules(shards, tmp_path):
    """Without the package installed either: the script puts its project first on the path."""
    printed = run("python", shards, tmp_path / "elsewhere" / "run", {"dry_run": "true"})
    assert "memory" in printed
    assert not (tmp_path / "elsewhere" / "run").exists()
