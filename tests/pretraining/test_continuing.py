"""Pretraining that starts from a checkpoint: budget 0 is the checkpoint, and a head that it lacks is trained first.

fp32, no dropout, 12 rows of 30 tokens an update: a fresh head alone for three updates of 360 tokens.
"""

from __future__ import annotations

import json

import pytest
import torch
from pretraining_runs import (
    ROOT,
    assert_same_course,
    in_process,
    journal,
    run_together,
    same_series,
    series,
    write_shards,
)
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertModel

from pretraining.checkpoints.checkpoint import open_checkpoint
from pretraining.plan.options import PretrainingOptions
from runtime.processes.ranks import Ranks

INTERRUPTED, WRONG = 75, 2
NAMED = {"model": None, "config_overrides": None, "series": 1, "budget_tokens": 4_000}
UPDATES, RATE = 3, 2e-2  # of the head alone
HEAD_ONLY = {"head_warmup_tokens": UPDATES * 12 * 32 - 100, "head_learning_rate": RATE}
FRESH = {
    "cls.predictions.bias",
    *(f"cls.predictions.transform.{part}.{kind}" for part in ("dense", "LayerNorm") for kind in ("weight", "bias")),
}
ZERO = [f"zero{stage}" for stage in range(4)]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("data"))


def tiny_bert():
    return BertConfig(
        vocab_size=45,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=0,
    )


@pytest.fixture(scope="module")
def encoder(shards, tmp_path_factory):
    """A checkpoint without a masked-language head, its tokenizer included: as sentence encoders are published."""
    folder = tmp_path_factory.mktemp("checkpoint") / "encoder"
    torch.manual_seed(1)
    BertModel(tiny_bert()).save_pretrained(folder)
    AutoTokenizer.from_pretrained(shards / "tokenizer").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def options(encoder):
    return {**NAMED, **HEAD_ONLY, "model_name_or_path": encoder, "save_steps": 1, "save_total_limit": 100}


@pytest.fixture(scope="module")
def whole(shards, options, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole") / "run"
    in_process(shards, output, options)
    return output


def state_after(run, update):
    """Checkpoint of the trunk after so many updates, of the segment that begins there if one does."""
    name = sorted(path.name for path in (run / "checkpoints").glob(f"step-{update:08d}-*"))[-1]
    return open_checkpoint(run / "checkpoints" / name, Ranks())


def segments(run):
    return [line["segment"] for line in journal(run)]


def test_budget_0_is_the_checkpoint_bit_for_bit_and_its_tokenizer(encoder, whole):
    start, given = load_file(whole / "series" / "raw-0" / "model.safetensors"), load_file(encoder / "model.safetensors")
    kept = {name: tensor for name, tensor in given.items() if not name.startswith("pooler.")}
    assert len(kept) == 37
    assert all(start[f"bert.{name}"].equal(tensor) for name, tensor in kept.items())
    mine, theirs = (AutoTokenizer.from_pretrained(path) for path in (whole / "series" / "raw-0", encoder))
    assert mine.get_vocab() == theirs.get_vocab()
    assert mine("abcd efgh").input_ids == theirs("abcd efgh").input_ids


def test_a_whole_checkpoint_starts_as_it_is_and_without_a_head_warmup(shards, tmp_path):
    torch.manual_seed(2)
    AutoModelForMaskedLM.from_config(tiny_bert()).save_pretrained(tmp_path / "model")
    in_process(shards, tmp_path / "run", {**NAMED, "model_name_or_path": tmp_path / "model", "budget_tokens": 3_000})
    start = load_file(tmp_path / "run" / "series" / "raw-0" / "model.safetensors")
    given = load_file(tmp_path / "model" / "model.safetensors")
    assert start.keys() == given.keys()
    assert all(start[name].equal(tensor) for name, tensor in given.items())
    assert "head" not in segments(tmp_path / "run")


def test_the_encoder_keeps_every_bit_while_the_head_learns(encoder, whole):
    """The embeddings too, which are the decoder's weight, whatever the weight decay; and they get no moments."""
    assert segments(whole)[: UPDATES + 1] == ["head"] * UPDATES + ["trunk"]
    given, state = load_file(encoder / "model.safetensors"), state_after(whole, UPDATES - 1)
    for name, tensor in given.items():
        if not name.startswith("pooler.") and not name.endswith("position_ids"):
            assert state.read(f"bert.{name}/weight").equal(tensor), name
    assert {name.split("/")[0] for name in state.names if name.endswith("/exp_avg")} == FRESH
    lines = journal(whole)
    assert lines[UPDATES - 1]["loss"] < lines[0]["loss"] - 0.01  # of log 45 = 3.81
    start = load_file(whole / "series" / "raw-0" / "model.safetensors")
    assert not any(state.read(f"{name}/weight").equal(start[name]) for name in FRESH)


def test_after_it_all_weights_move_under_a_warmup_and_an_optimizer_of_their_own(whole):
    before, after = state_after(whole, UPDATES), state_after(whole, UPDATES + 1)
    assert before.state["optimizer_steps"] == 0
    assert after.state["optimizer_steps"] == 1
    assert not any(name.endswith("/exp_avg") for name in before.names)
    weights = {name for name in after.names if name.endswith("/weight")}
    assert not any(after.read(name).equal(before.read(name)) for name in weights)
    rates = [line["learning_rate"] for line in journal(whole)]
    assert rates[:UPDATES] == [RATE] * UPDATES
    assert 0 < rates[UPDATES] < rates[UPDATES + 1] == 5e-3


def test_its_tokens_count_and_its_flops_are_those_of_a_frozen_encoder(whole):
    lines = journal(whole)
    entries = series(whole)
    assert lines[UPDATES - 1]["tokens"] <= UPDATES * 12 * 32
    assert [entry["tokens_seen"] >= entry["budget_tokens"] for entry in entries] == [True] * 3
    head = lines[1]["flops"] - lines[0]["flops"]
    rest = lines[UPDATES + 1]["flops"] - lines[UPDATES]["flops"]
    assert 1 / 3 < head / rest < 2 / 3


@pytest.mark.parametrize(
    "update", [2, *(pytest.param(update, marks=pytest.mark.slow) for update in (UPDATES, UPDATES + 1, UPDATES + 2, 12))]
)
def test_stopped_inside_at_the_end_of_and_after_it_the_resumed_run_is_the_same(
    shards, options, whole, tmp_path, update
):
    fault = f"update.before:{update}:terminate"
    in_process(shards, tmp_path / "run", options, fault=fault, status=INTERRUPTED)
    in_process(shards, tmp_path / "run", options)
    assert_same_course(whole, tmp_path / "run", tolerance=1e-6)
    same_series(whole, tmp_path / "run")


def test_the_plan_says_what_is_fresh_and_for_how_long(shards, encoder, tmp_path, capsys):
    options = {**NAMED, "model_name_or_path": encoder, "dry_run": "true", "learning_rate": None}
    in_process(shards, tmp_path / "run", options)
    printed = " ".join(capsys.readouterr().out.split())
    assert "has no masked-language head" not in printed  # names, not a guess
    assert "cls.predictions.bias" in printed
    assert "trained alone for the first 1,000 tokens" in printed  # a quarter of 4,000
    assert "peak learning rate 0.0001" in printed


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"head_warmup_tokens": 3_100}, "the decay to the smallest budget of 4,000 would begin before"),
        ({"budget_tokens": None, "budget_hours": 1}, "give --budget_tokens or --budget_flops"),
    ],
)
def test_a_head_warmup_that_cannot_be_is_refused(shards, options, tmp_path, capsys, changes, reason):
    in_process(shards, tmp_path / "run", {**options, **changes}, status=WRONG)
    assert reason in capsys.readouterr().err


def test_a_head_warmup_of_a_head_that_is_there_is_refused(shards, whole, tmp_path, capsys):
    own = {**NAMED, "model_name_or_path": whole / "series" / "raw-0"}
    for option, value in (("head_warmup_tokens", 500), ("head_learning_rate", 0.01)):
        in_process(shards, tmp_path / option, {**own, option: value}, status=WRONG)
        said = " ".join(capsys.readouterr().err.split())
        assert f"--{option} {float(value)} does nothing with" in said
        assert "which has the whole head" in said
    with pytest.raises(ValueError, match="--head_warmup_tokens 500 does nothing with a model that starts at random"):
        PretrainingOptions(head_warmup_tokens=500)


def test_another_length_of_the_warmup_is_another_run(shards, options, whole, capsys):
    in_process(shards, whole, {**options, "head_warmup_tokens": 0}, status=WRONG)
    assert "head_warmup: 1052.0 there, 0.0 here" in capsys.readouterr().err


def test_a_high_rate_for_a_checkpoint_is_warned_of(shards, encoder, tmp_path, capsys):
    options = {**NAMED, "model_name_or_path": encoder, "dry_run": "true"}
    in_process(shards, tmp_path / "run", {**options, "learning_rate": 8e-4})
    assert "--learning_rate 0.0008 is one for random weights" in " ".join(capsys.readouterr().out.split())
    in_process(shards, tmp_path / "run", {**options, "learning_rate": 3e-4})
    assert "random weights" not in capsys.readouterr().out


def zero(options, folder, name):
    """ZeRO, with every weight partitioned at stage 3, and torch's AdamW where the JSON names DeepSpeed's."""
    config = json.loads((ROOT / "ds_configs" / f"{name}.json").read_text())
    if name == "zero3":
        config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    (folder / f"{name}.json").write_text(json.dumps(config))
    return {**options, "deepspeed": folder / f"{name}.json"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_engine_freezes_the_encoder_and_agrees(shards, options, whole, encoder, tmp_path):
    choices = {name: zero(options, tmp_path, name) for name in ZERO}
    choices |= {"full_shard": options, "shard_grad_op": {**options, "fsdp": "shard_grad_op"}}
    choices["bf16"] = {**zero(options, tmp_path, "zero2"), "bf16": "true"}
    outputs = {tmp_path / name: chosen for name, chosen in choices.items()}
    run_together("torchrun", shards, outputs)
    given = load_file(encoder / "model.safetensors")
    for output in outputs:
        assert_same_course(whole, output, tolerance=0.05 if output.name == "bf16" else 1e-5)
        state = state_after(output, UPDATES)
        for name in given.keys() - {"pooler.dense.weight", "pooler.dense.bias", "embeddings.position_ids"}:
            assert state.read(f"bert.{name}/weight").equal(given[name]), (output, name)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_another_engine_continues_inside_the_warmup(shards, options, whole, tmp_path):
    """From one process to ZeRO-2, ZeRO-3 and FSDP2 on two ranks, and from ZeRO-3 to one process."""
    chosen = {"zero2": zero(options, tmp_path, "zero2"), "zero3": zero(options, tmp_path, "zero3"), "fsdp": options}
    for name in chosen:
        in_process(shards, tmp_path / name, options, fault="update.before:2:terminate", status=INTERRUPTED)
    run_together("torchrun", shards, {tmp_path / name: each for name, each in chosen.items()})
    for name in chosen:
        assert_same_course(whole, tmp_path / name)
