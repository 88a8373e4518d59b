"""Rows of docs/reliability.md about options, configurations, the hub, memory, and a loss spike."""

from __future__ import annotations

import json
import time

import pytest
from pretraining_runs import assert_same_course, journal, write_tokenizer

from tests.faults.commands import BUILD, DONE, FAILED, INTERRUPTED, MOST_SECONDS, PRETRAIN, QA, REFUSED

pytestmark = pytest.mark.slow
COMMANDS = (PRETRAIN, BUILD, QA, "launch/gap.py", "launch/sweep.py", "finetuning/classification.py")


def laughs() -> str:
    """Nine anchors, each ten times the previous one: 10^9 words in 400 bytes."""
    lines = ["k0: &k0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    return "\n".join(
        [*lines, *(f"k{number}: &k{number} [{', '.join([f'*k{number - 1}'] * 10)}]" for number in range(1, 9))]
    )


def test_fault_17_resumed_with_another_micro_batch_and_accumulation(commands, shards, whole, full, tmp_path):
    """The same global batch, or refused with the reason."""
    output, five = tmp_path / "run", {**full, "per_device_train_batch_size": 5}
    commands.pretrain(shards, output, five, INTERRUPTED, FAULT_POINT="update.before:12:terminate")
    said = commands.pretrain(shards, output, {**full, "gradient_accumulation_steps": 7}, REFUSED)
    assert "contradiction: --gradient_accumulation_steps 7" in said
    said = commands.pretrain(shards, output, {**full, "global_batch_rows": 24}, REFUSED)
    assert "global_batch_rows: 12 there, 24 here" in said
    accumulated = {"per_device_train_batch_size": 6, "gradient_accumulation_steps": 2}
    commands.pretrain(shards, output, {**full, **accumulated})
    assert_same_course(whole, output)


def test_fault_20_loss_spike(commands, tmp_path):
    """A text of one word, soon learnt, with one late document of other words."""
    others = [f"word{letter}" for letter in "abcdefghijklmnop"]
    tokenizer = write_tokenizer(tmp_path / "tokenizer", ["dull", *others])
    texts = ["dull " * (24 + 2 * number) for number in range(220)]
    texts.insert(200, " ".join(others[::-1]) + " dull")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    argv = ["--input", tmp_path / "rows.jsonl", "--output_dir", tmp_path / "shards", "--tokenizer", tokenizer]
    argv += ["--block_tokens", 512, "--near_duplicates", "ignore", "--validation_fraction", 0.05, "--processes", 1]
    commands.run(BUILD, argv, tmp_path / "build.log")
    options = {"budget_tokens": 24_000, "mask_rate": 0.4, "seed": 1}
    rows = {"global_batch_rows": 4, "per_device_train_batch_size": 4}
    said = commands.pretrain(tmp_path / "shards", tmp_path / "run", {**options, **rows})
    spikes = [line for line in journal(tmp_path / "run") if line.get("spike")]
    assert spikes
    for line in spikes:
        assert f"loss spike at update {line['update']}: {line['loss']:.3f}, rows {line['rows']}" in said


@pytest.mark.parametrize("text", ["[" * 100_000, "a: " + "{b: " * 5_000, "seed: " + "7" * 900_000, laughs()])
def test_fault_46_bombs_as_a_file_of_options(commands, tmp_path, text):
    (tmp_path / "options.yaml").write_text(text)
    began = time.monotonic()
    commands.refused(PRETRAIN, [tmp_path / "options.yaml"], tmp_path / "log", "options.yaml")
    assert time.monotonic() - began < 30
    assert commands.started[-1].peak_kilobytes < 1_200_000


def test_fault_30_a_nested_configuration_of_a_model(commands, shards, tmp_path):
    for number, text in enumerate(("[" * 100_000, '{"a": ' * 5_000, '{"hidden_size": ' + "9" * 5000 + "}")):
        (tmp_path / "config.json").write_text(text)
        options = {"model": None, "config_overrides": None, "from_config": tmp_path / "config.json"}
        said = commands.pretrain(shards, tmp_path / f"run-{number}", options, REFUSED)
        assert "config.json" in said
        assert "Traceback" not in said
        assert commands.started[-1].cpu_seconds < MOST_SECONDS


def test_fault_47_a_sweep_whose_grid_is_too_large(commands, tmp_path):
    lines = [f"    option_{number}: {list(range(40))}" for number in range(7)]
    (tmp_path / "grid.yaml").write_text("recipe: classification\ngrid:\n" + "\n".join(lines))
    argv = ["--sweep_file", tmp_path / "grid.yaml", "--output_dir", tmp_path / "out"]
    began = time.monotonic()
    commands.refused("launch/sweep.py", argv, tmp_path / "log", "grid.yaml")
    assert time.monotonic() - began < 30


def test_fault_34_contradictory_batch_sizes_in_the_deepspeed_json(commands, shards, tmp_path):
    batch = {"train_batch_size": 24, "train_micro_batch_size_per_gpu": 5, "gradient_accumulation_steps": 4}
    (tmp_path / "zero.json").write_text(json.dumps({**batch, "zero_optimization": {"stage": 2}}))
    said = commands.pretrain(shards, tmp_path / "run", {"deepspeed": tmp_path / "zero.json"}, REFUSED)
    assert "train_batch_size" in said
    assert "24" in said
    assert "12" in said
    assert "Traceback" not in said
    assert not (tmp_path / "run" / "journal.jsonl").exists()


@pytest.mark.parametrize("script", COMMANDS)
def test_fault_35_unknown_or_misspelt_option(commands, tmp_path, script):
    said = commands.refused(script, ["--output_dri", "x"], tmp_path / "log", "--output_dir")
    assert "did you mean" in said
    (tmp_path / "options.json").write_text('{"output_dri": "x"}')
    commands.refused(script, [tmp_path / "options.json"], tmp_path / "log", "output_dir")


def test_fault_35_misspelt_key_of_the_deepspeed_json(commands, shards, tmp_path):
    (tmp_path / "zero.json").write_text('{"zero_optimisation": {"stage": 2}}')
    said = commands.pretrain(shards, tmp_path / "run", {"deepspeed": tmp_path / "zero.json"}, REFUSED)
    assert "zero_optimization" in said


def test_fault_38_hub_unreachable(commands, shards, questions, tmp_path):
    """An address without a server: names fail in seconds with the reason; a local path makes no request."""
    offline = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0"}
    offline |= {"HF_HUB_CACHE": str(tmp_path / "cache")}
    data = ["--train_file", questions / "train.json", "--output_dir", tmp_path / "qa", "--max_seq_length", 32]
    began = time.monotonic()
    argv = ["--model_name_or_path", "somebody/model", *data]
    commands.refused(QA, argv, tmp_path / "log", "somebody/model", "hub", **offline)
    options = {"model": None, "config_overrides": None, "model_name_or_path": "somebody/model"}
    said = commands.pretrain(shards, tmp_path / "run", options, REFUSED, **offline)
    assert "somebody/model" in said
    assert time.monotonic() - began < 60
    argv = ["--model_name_or_path", questions / "model", *data, "--num_train_epochs", 1, "--doc_stride", 8]
    commands.run(QA, argv, tmp_path / "log", **offline)


def test_fault_39_out_of_memory(commands, shards, whole, full, tmp_path):
    """A real allocation failure: the process may take little more memory than the interpreter (ulimit -v)."""
    output = tmp_path / "run"
    large = {"config_overrides": "num_hidden_layers=2,hidden_size=4096,num_attention_heads=2,intermediate_size=48"}
    with open(f"/proc/{commands.process.pid}/status") as status:
        taken = 1024 * int(next(line for line in status if line.startswith("VmSize")).split()[1])
    limits = {"RLIMIT_AS": taken + (400 << 20)}
    said = commands.pretrain(shards, output, {**full, **large}, FAILED, limits=limits)
    assert "out of memory" in said
    assert "--per_device_train_batch_size" in said
    assert "Traceback" not in said
    said = commands.pretrain(shards, tmp_path / "other", full, FAILED, FAULT_POINT="update.before:7:oom")
    for part in ("can't allocate memory", "--per_device_train_batch_size 1", "--gradient_checkpointing true", "GB"):
        assert part in said
    commands.pretrain(shards, tmp_path / "other", full, DONE)
    assert_same_course(whole, tmp_path / "other")
