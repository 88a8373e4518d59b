"""Which run a checkpoint is of: said in its state, or by the run.json above its folder."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from pretraining_runs import arguments, checkpoints, in_process, write_shards

from pretraining.checkpoints.origin import check_same_origin
from pretraining.checkpoints.run_file import RUN_NAME
from pretraining.checks import find_problems
from pretraining.engines.build import build_engine
from pretraining.plan.identity import condensed, identity_of
from pretraining.plan.options import PretrainingOptions, with_defaults
from pretraining.plan.plan import Plan
from pretraining.run import Run
from runtime.options.command_line import parse_options
from runtime.processes.ranks import Ranks
from shards.storage.location import open_location

MINE = {"seed": 0, "shards": {"train": ["a", "b"]}}


def test_a_checkpoint_says_itself_of_which_run_it_is(tmp_path):
    assert check_same_origin(tmp_path, {"identity": condensed(MINE)}, MINE) is None
    with pytest.raises(ValueError, match=r"to another run \(seed: 1 there, 0 here\)"):
        check_same_origin(tmp_path, {"identity": condensed({**MINE, "seed": 1})}, MINE)
    with pytest.raises(ValueError, match=r"to another run \(shards: "):
        check_same_origin(tmp_path, {"identity": condensed({**MINE, "shards": {"train": ["a", "c"]}})}, MINE)


def test_the_optimizer_that_a_deepspeed_json_names_is_part_of_the_run(tmp_path, capsys):
    shards, config = write_shards(tmp_path / "data"), tmp_path / "adam.json"
    adam = {"type": "Adam", "params": {"adam_w_mode": False}}
    config.write_text(json.dumps({"zero_optimization": {"stage": 2}, "optimizer": adam}))
    in_process(shards, tmp_path / "run", {"budget_tokens": 800})
    again = {"budget_tokens": 800, "deepspeed": config, "dry_run": "true"}
    in_process(shards, tmp_path / "run", again, status=2)
    assert "optimizer: adamw there, adam here" in capsys.readouterr().err
    record = json.loads((tmp_path / "run" / RUN_NAME).read_text())
    record["identity"]["optimizer"] = "auto"
    (tmp_path / "run" / RUN_NAME).write_text(json.dumps(record))
    in_process(shards, tmp_path / "run", again)


def test_a_run_keeps_the_precision_that_it_began_with(tmp_path, capsys):
    """It changes the numbers; a run that began before identities had it goes on."""
    shards, given = write_shards(tmp_path / "data"), {"budget_tokens": 800, "bf16": "false"}
    in_process(shards, tmp_path / "run", given)
    in_process(shards, tmp_path / "run", {**given, "bf16": "true", "dry_run": "true"}, status=2)
    assert "bf16: False there, True here" in capsys.readouterr().err
    record = json.loads((tmp_path / "run" / RUN_NAME).read_text())
    del record["identity"]["bf16"]
    (tmp_path / "run" / RUN_NAME).write_text(json.dumps(record))
    in_process(shards, tmp_path / "run", {**given, "bf16": "true", "dry_run": "true"})


@pytest.mark.parametrize("change", ["edited", "deleted"])
def test_a_tokenizer_that_changes_during_the_run_is_not_the_exports(tmp_path, monkeypatch, change):
    """Each budget's model goes with the tokenizer that the shards were built with, as the stream checked it."""
    shards = write_shards(tmp_path / "data")
    tokenizer, execute = shards / "tokenizer" / "tokenizer.json", Run.execute
    whole = tokenizer.read_bytes()

    def change_first(run):
        if change == "deleted":
            shutil.rmtree(tokenizer.parent)
        else:
            tokenizer.write_bytes(whole.replace(b'"[MASK]"', b'"[MUSK]"'))
        execute(run)

    monkeypatch.setattr(Run, "execute", change_first)
    in_process(shards, tmp_path / "run", {"budget_tokens": 800})
    exported = sorted((tmp_path / "run" / "series").iterdir())
    assert [(one / "tokenizer.json").read_bytes() for one in exported] == [whole] * 2


@pytest.mark.parametrize("change", ["edited", "deleted"])
def test_a_deepspeed_json_that_changes_during_the_run_changes_nothing(tmp_path, monkeypatch, change):
    """Each checkpoint stores its run's identity, with the optimizer that the JSON named when the run began.

    PyTorch takes the place of DeepSpeed, which leaves a second run in this process no process group.
    """
    shards, config = write_shards(tmp_path / "data"), tmp_path / "zero.json"
    config.write_text(json.dumps({"zero_optimization": {"stage": 1}}))
    execute = Run.execute

    def change_first(run):
        if change == "deleted":
            config.unlink()
        else:
            config.write_text(json.dumps({"optimizer": {"type": "Adam", "params": {"adam_w_mode": False}}}))
        execute(run)

    def on_torch(model, options, **more):
        return build_engine(model, replace(options, deepspeed=None), **more)

    monkeypatch.setattr(Run, "execute", change_first)
    monkeypatch.setattr("pretraining.run.build_engine", on_torch)
    in_process(shards, tmp_path / "run", {"budget_tokens": 800, "deepspeed": config, "save_steps": 1})
    record = json.loads((tmp_path / "run" / RUN_NAME).read_text())["identity"]
    saved = [tmp_path / "run" / "checkpoints" / name / "state.json" for name in checkpoints(tmp_path / "run")]
    assert [json.loads(one.read_text())["identity"] for one in saved] == [condensed(record)] * len(saved)
    assert record["optimizer"] == "adamw"
    assert saved


def test_the_plan_and_all_that_follows_read_the_deepspeed_json_once(tmp_path):
    """What was announced is what runs, also when the file changes between the plan and the engine."""
    shards, config = open_location(write_shards(tmp_path / "data")), tmp_path / "zero.json"
    config.write_text(json.dumps({"zero_optimization": {"stage": 2}}))
    options = parse_options(PretrainingOptions, arguments(shards.directory, tmp_path / "run", {"deepspeed": config}))
    plan = Plan(with_defaults(options), shards.manifest, Ranks(), torch.device("cpu"))
    assert find_problems(plan) == []
    config.write_text(json.dumps({"zero_optimization": {"stage": 0}, "optimizer": {"type": "Lamb"}}))
    assert plan.engine.deepspeed == {"zero_optimization": {"stage": 2}}
    assert (plan.sharding.mode, identity_of(plan)["optimizer"]) == ("zero2", "adamw")


def test_one_that_does_not_say_has_that_of_its_run_or_is_warned_of(tmp_path):
    checkpoint = tmp_path / "checkpoints" / "step-00000001-000"
    assert "does not say" in check_same_origin(checkpoint, {}, MINE)
    (tmp_path / RUN_NAME).write_text(json.dumps({"identity": MINE}))
    assert check_same_origin(checkpoint, {}, MINE) is None
    with pytest.raises(ValueError, match="seed: 0 there, 2 here"):
        check_same_origin(checkpoint, {}, {**MINE, "seed": 2})


def test_the_checkpoint_of_another_seed_is_not_resumed_from(tmp_path, capsys):
    shards = write_shards(tmp_path / "data")
    in_process(shards, tmp_path / "first", {"budget_tokens": 800})
    path = tmp_path / "first" / "checkpoints" / checkpoints(tmp_path / "first")[-1]
    in_process(shards, tmp_path / "other", {"budget_tokens": 800, "seed": 1, "resume_from_checkpoint": path}, status=2)
    assert "belongs to another run (seed: 0 there, 1 here)" in capsys.readouterr().err
    in_process(shards, tmp_path / "same", {"budget_tokens": 800, "resume_from_checkpoint": path})


def test_a_run_whose_record_is_gone_is_known_by_its_checkpoints(tmp_path, capsys):
    shards, run = write_shards(tmp_path / "data"), tmp_path / "run"
    in_process(shards, run, {"budget_tokens": 800})
    (run / RUN_NAME).write_text("{")
    in_process(shards, run, {"budget_tokens": 800}, status=2)
    assert "restore it or remove it" in capsys.readouterr().err
    (run / RUN_NAME).unlink()
    in_process(shards, run, {"budget_tokens": 800, "seed": 1}, status=2)
    assert "belongs to another run (seed: 0 there, 1 here)" in capsys.readouterr().err
    in_process(shards, run, {"budget_tokens": 800})
    assert json.loads((run / RUN_NAME).read_text())["identity"]["seed"] == 0
    (run / RUN_NAME).unlink()
    (run / "checkpoints" / checkpoints(run)[-1] / "state.json").write_text("{}")
    in_process(shards, run, {"budget_tokens": 800}, status=2)
    assert "does not say which run it belongs to" in capsys.readouterr().err
