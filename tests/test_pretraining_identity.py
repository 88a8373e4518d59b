"""Which run a checkpoint is of: said in its state, or by the run.json above its folder."""

import json

import pytest
from pretraining_runs import checkpoints, in_process, write_shards

from pretraining.identity import RUN_NAME, check_same_origin, condensed

MINE = {"seed": 0, "shards": {"train": ["a", "b"]}}


def test_a_checkpoint_says_itself_of_which_run_it_is(tmp_path):
    assert check_same_origin(tmp_path, {"identity": condensed(MINE)}, MINE) is None
    with pytest.raises(ValueError, match=r"of another run \(seed: 1 there, 0 here\)"):
        check_same_origin(tmp_path, {"identity": condensed({**MINE, "seed": 1})}, MINE)
    with pytest.raises(ValueError, match=r"of another run \(shards: "):
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
    assert "is of another run (seed: 0 there, 1 here)" in capsys.readouterr().err
    in_process(shards, tmp_path / "same", {"budget_tokens": 800, "resume_from_checkpoint": path})


def test_a_run_whose_record_is_gone_is_known_by_its_checkpoints(tmp_path, capsys):
    shards, run = write_shards(tmp_path / "data"), tmp_path / "run"
    in_process(shards, run, {"budget_tokens": 800})
    (run / RUN_NAME).write_text("{")
    in_process(shards, run, {"budget_tokens": 800}, status=2)
    assert "restore it or remove it" in capsys.readouterr().err
    (run / RUN_NAME).unlink()
    in_process(shards, run, {"budget_tokens": 800, "seed": 1}, status=2)
    assert "is of another run (seed: 0 there, 1 here)" in capsys.readouterr().err
    in_process(shards, run, {"budget_tokens": 800})
    assert json.loads((run / RUN_NAME).read_text())["identity"]["seed"] == 0
    (run / RUN_NAME).unlink()
    (run / "checkpoints" / checkpoints(run)[-1] / "state.json").write_text("{}")
    in_process(shards, run, {"budget_tokens": 800}, status=2)
    assert "does not say of which run it is" in capsys.readouterr().err
