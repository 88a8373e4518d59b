"""Resuming: a named checkpoint is taken from anywhere, with its fork, or refused with the reason."""

from __future__ import annotations

import json
import shutil

import pytest
from pretraining_runs import assert_same_course, checkpoints, in_process, journal, run, series, write_shards

from pretraining.checkpoints.checkpoint import committed, defect
from pretraining.checkpoints.resumption import adopt, set_later_aside

FULL = {"series": 2, "save_steps": 4}
INTERRUPTED, WRONG = 75, 2


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(shards, tmp_path_factory):
    """The run that nothing happened to."""
    output = tmp_path_factory.mktemp("whole") / "run"
    in_process(shards, output, FULL)
    return output


@pytest.fixture(scope="module")
def stopped(shards, tmp_path_factory):
    """The same, stopped inside its second branch."""
    output = tmp_path_factory.mktemp("stopped") / "run"
    in_process(shards, output, FULL, fault="update.before:20:terminate", status=INTERRUPTED)
    return output


def state_of(path):
    return json.loads((path / "state.json").read_text())


@pytest.fixture
def inside(stopped):
    """A checkpoint inside a branch, whose end goes back to the trunk, and its fork."""
    path = stopped / "checkpoints" / checkpoints(stopped)[-1]
    return path, path.with_name(state_of(path)["fork"])


def assert_rest(whole, path, output):
    """A run that began at a checkpoint of another did what that one did from there on."""
    expected = [line for line in journal(whole) if line["serial"] > state_of(path)["serial"]]
    assert [line["serial"] for line in journal(output)] == [line["serial"] for line in expected]
    assert [line["loss"] for line in journal(output)] == pytest.approx([line["loss"] for line in expected], abs=1e-5)


def test_a_checkpoint_inside_a_branch_of_another_folder_goes_on_to_the_end(shards, whole, inside, tmp_path, capsys):
    path, fork = inside
    in_process(shards, tmp_path / "run", {**FULL, "resume_from_checkpoint": path})
    said = capsys.readouterr().out
    assert f"{fork} is copied to {tmp_path / 'run' / 'checkpoints' / fork.name}" in said
    assert_rest(whole, path, tmp_path / "run")
    ends = [[(entry["kind"], entry["tokens_seen"]) for entry in series(output)] for output in (whole, tmp_path / "run")]
    assert ends[1] == ends[0]  # those of the segments before came along
    assert all((tmp_path / "run" / entry["path"] / "config.json").is_file() for entry in series(tmp_path / "run"))


def test_one_that_was_renamed_or_set_aside_gets_its_name_back(shards, whole, stopped, inside, tmp_path):
    path, fork = inside
    folder = tmp_path / "run" / "checkpoints"
    shutil.copytree(stopped, tmp_path / "run")
    aside = folder / f"aside-{path.name}"
    (folder / path.name).rename(aside)
    in_process(shards, tmp_path / "run", {**FULL, "resume_from_checkpoint": aside})
    assert aside.is_dir()
    assert_same_course(whole, tmp_path / "run")
    shutil.copytree(path, tmp_path / "backup" / "best")
    shutil.copytree(fork, tmp_path / "backup" / fork.name)
    in_process(shards, tmp_path / "other", {**FULL, "resume_from_checkpoint": tmp_path / "backup" / "best"})
    assert_rest(whole, path, tmp_path / "other")


@pytest.mark.slow
def test_two_ranks_take_the_checkpoint_of_one_from_another_folder(shards, whole, inside, tmp_path):
    path, _ = inside
    run("torchrun", shards, tmp_path / "run", {**FULL, "resume_from_checkpoint": path})
    assert_rest(whole, path, tmp_path / "run")


def test_a_schedule_of_lengths_over_flops_is_the_same_run_when_resumed(shards, tmp_path):
    budget = {"budget_tokens": None, "budget_flops": 2e9, "max_seq_length": None, "length_schedule": "16:0.6,32:0.4"}
    options = {**FULL, **budget}
    in_process(shards, tmp_path / "whole", options)
    lines = journal(tmp_path / "whole")
    assert lines[-1]["flops"] >= 2e9 > lines[-2]["flops"]
    assert {line["rows"][1] - line["rows"][0] + 1 for line in lines} == {12}
    in_process(shards, tmp_path / "run", options, fault="update.before:14:terminate", status=INTERRUPTED)
    in_process(shards, tmp_path / "run", options)
    assert_same_course(tmp_path / "whole", tmp_path / "run")


def test_the_same_command_again_goes_on_and_does_not_go_back(shards, whole, inside, tmp_path, capsys):
    path, _ = inside
    options, folder = {**FULL, "resume_from_checkpoint": path}, tmp_path / "run" / "checkpoints"
    in_process(shards, tmp_path / "run", options, fault="update.before:2:terminate", status=INTERRUPTED)
    newest = checkpoints(tmp_path / "run")[-1]
    capsys.readouterr()
    in_process(shards, tmp_path / "run", options)
    said = capsys.readouterr().out
    assert f"{path} has already been resumed from" in said
    assert f"resuming from {folder / newest}" in said
    assert not list(folder.glob("aside-*"))
    assert_rest(whole, path, tmp_path / "run")
    (folder / "resumed_from").unlink()
    in_process(shards, tmp_path / "run", options)
    assert f"resuming from {folder / path.name}" in capsys.readouterr().out
    assert_rest(whole, path, tmp_path / "run")


def test_nothing_is_copied_twice_and_nothing_that_was_there_is_lost(inside, tmp_path):
    path, fork = inside
    said = []
    for _ in range(2):
        assert adopt(path, tmp_path, 5, say=said.append) == path.name
    assert said == [f"{name} is copied to {tmp_path / name.name}" for name in (fork, path)]
    own = tmp_path / fork.name
    (own / "rank-00000.safetensors").write_bytes(b"")
    adopt(path, tmp_path, 5, say=said.append)
    assert said[2:] == said[:1]
    assert (tmp_path / f"aside-{own.name}" / "rank-00000.safetensors").read_bytes() == b""
    assert defect(own) is None
    assert defect(tmp_path / path.name) is None


@pytest.mark.parametrize("dry_run", ["true", "false"])
def test_a_fork_that_is_gone_is_said_before_anything_is_trained(shards, inside, tmp_path, capsys, dry_run):
    path, fork = inside
    shutil.copytree(path, tmp_path / "backup" / path.name)
    named = {**FULL, "resume_from_checkpoint": tmp_path / "backup" / path.name, "dry_run": dry_run}
    in_process(shards, tmp_path / "run", named, status=WRONG)
    error = capsys.readouterr().err
    assert f"is inside a branch that returns to {tmp_path / 'backup' / fork.name}, which cannot be used" in error
    assert not journal(tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_dry_run_finds_what_a_named_checkpoint_contradicts(shards, whole, inside, tmp_path, capsys):
    path, _ = inside
    named = {**FULL, "resume_from_checkpoint": path, "dry_run": "true"}
    in_process(shards, tmp_path / "run", named)
    assert "does not say" not in capsys.readouterr().out
    in_process(shards, tmp_path / "run", {**named, "seed": 1}, status=WRONG)
    assert f"contradiction: {path} belongs to another run (seed: 0 there, 1 here)" in capsys.readouterr().err
    in_process(shards, whole, {**FULL, "resume_from_checkpoint": "false", "dry_run": "true"}, status=WRONG)
    assert "contradiction: --resume_from_checkpoint false, but" in capsys.readouterr().err


def test_a_dry_run_says_when_nothing_tells_whose_checkpoint_it_is(shards, inside, tmp_path, capsys):
    from tests.pretraining.checkpoints.test_checkpoint import rewrite_manifest

    path = tmp_path / "backup" / inside[1].name
    shutil.copytree(inside[1], path)
    state = state_of(path)
    del state["identity"]
    (path / "state.json").write_text(json.dumps(state))
    rewrite_manifest(path)
    in_process(shards, tmp_path / "run", {**FULL, "resume_from_checkpoint": path, "dry_run": "true"})
    assert "does not say which run it belongs to" in capsys.readouterr().out


def test_what_lies_past_the_point_resumed_from_does_not_come_back(tmp_path):
    """A fork that is written anew makes its old branch whole again, which is of another course."""
    for number in (1, 4, 6):
        (tmp_path / f"step-{number:08d}-000").mkdir()
    said = []
    set_later_aside(tmp_path, "step-00000001-000", say=said.append)
    assert [path.name for path in committed(tmp_path)] == ["step-00000001-000"]
    assert {path.name for path in tmp_path.glob("aside-*")} == {"aside-step-00000004-000", "aside-step-00000006-000"}
    assert len(said) == 2
    (tmp_path / "step-00000004-000").mkdir()
    set_later_aside(tmp_path, "step-00000001-000", say=said.append)
    assert said[-1].endswith("now named aside-step-00000004-000-2")
