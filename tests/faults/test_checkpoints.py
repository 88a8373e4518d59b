"""Rows of docs/reliability.md about checkpoints and the files beside them: nothing is lost and results are the same."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
from pretraining_runs import arguments, assert_same_course, checkpoints, course, journal, log_of
from safetensors.torch import load_file, save_file

from tests.faults.commands import DONE, FAILED, INTERRUPTED, PRETRAIN, REFUSED, soon

pytestmark = pytest.mark.slow
POINTS = ["before_write", "after_write", "before_manifest", "before_rename"]


def newest(run: Path) -> Path:
    return run / "checkpoints" / checkpoints(run)[-1]


def forge(checkpoint: Path, **state: object) -> None:
    """Change fields of state.json, and its hash in the manifest."""
    path = checkpoint / "state.json"
    content = json.dumps({**json.loads(path.read_text()), **state}).encode()
    path.write_bytes(content)
    seal(checkpoint)


def seal(checkpoint: Path) -> None:
    """Write the sizes and sha256 of a changed checkpoint into its manifest."""
    manifest = json.loads((checkpoint / "MANIFEST.json").read_text())
    for entry in manifest["files"]:
        content = (checkpoint / entry["name"]).read_bytes()
        entry.update(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    (checkpoint / "MANIFEST.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("point", POINTS)
def test_fault_02_killed_while_a_checkpoint_is_written(commands, shards, whole, full, tmp_path, point):
    output = tmp_path / "run"
    commands.pretrain(shards, output, full, -signal.SIGKILL, FAULT_POINT=f"checkpoint.{point}:2:kill")
    assert checkpoints(output) == ["step-00000004-000"]
    assert list((output / "checkpoints").glob(".tmp-*"))
    said = commands.pretrain(shards, output, full)
    assert "step-00000004-000 at update 4" in said
    assert not list((output / "checkpoints").glob(".tmp-*"))
    assert_same_course(whole, output)


def test_fault_03_killed_after_the_rename_before_latest(commands, shards, whole, full, tmp_path):
    output = tmp_path / "run"
    commands.pretrain(shards, output, full, -signal.SIGKILL, FAULT_POINT="checkpoint.before_latest:2:kill")
    assert (output / "checkpoints" / "latest").read_text().strip() == "step-00000004-000"
    found = newest(output).name
    assert found > "step-00000004-000"
    assert f"{found} at update" in commands.pretrain(shards, output, full)
    assert_same_course(whole, output)


def test_fault_06_a_second_signal_ends_at_once(commands, shards, whole, full, tmp_path):
    """While an update hangs: the first signal waits for the update, the second does not."""
    output = tmp_path / "run"
    argv = arguments(shards, output, {**full, "save_steps": 2})
    process = commands.start(PRETRAIN, argv, log_of(output), FAULT_POINT="update.before:7:hang")
    soon(lambda: "step-00000006-000" in checkpoints(output), "six updates")
    process.kill(signal.SIGTERM)
    assert process.wait(1.5) is None
    process.kill(signal.SIGTERM)
    assert process.wait(5) == 128 + signal.SIGTERM
    commands.pretrain(shards, output, full)
    assert_same_course(whole, output)


def test_fault_07_disk_full_while_saving(commands, shards, whole, full, tmp_path):
    output = tmp_path / "run"
    point = "checkpoint.after_write:2:fail"
    said = commands.pretrain(shards, output, full, FAILED, FAULT_POINT=point)
    assert "No space left" in said
    assert "run the same command again" in said
    assert sorted(path.name for path in (output / "checkpoints").iterdir()) == ["latest", "step-00000004-000"]
    commands.pretrain(shards, output, full)
    assert_same_course(whole, output)


def test_fault_07_a_file_beyond_the_limit_of_the_process(commands, shards, whole, full, tmp_path):
    """A real write error: no file may be larger than a checkpoint's weights are (ulimit -f)."""
    output = tmp_path / "run"
    size = max(path.stat().st_size for path in newest(whole).glob("rank-*.safetensors"))
    exported = max(path.stat().st_size for path in whole.glob("series/*/*"))
    assert exported < size
    said = commands.pretrain(shards, output, full, FAILED, limits={"RLIMIT_FSIZE": size - 1})
    assert "File too large" in said
    assert "Traceback" not in said
    assert not list((output / "checkpoints").iterdir())
    commands.pretrain(shards, output, full)
    assert_same_course(whole, output)


def test_fault_18_resumed_again_and_again(commands, shards, whole, full, tmp_path):
    """On the trunk, before and after an epoch's last row, the latter inside a branch, in the second epoch: one run."""
    output, options = tmp_path / "run", {**full, "save_steps": 1}  # else a stop waits for the next exchange
    stops = []
    for updates in (4, 14, 1, 4):
        point = f"update.before:{updates}:terminate"
        said = commands.pretrain(shards, output, options, INTERRUPTED, FAULT_POINT=point)
        stops.append(course(output)[-1][:3])
    (rows,) = set(re.findall(r", (\d+) rows of", said))
    last_row = int(rows) - 1
    trunk, before, inside, after = stops
    assert [segment.split()[0] for segment, _, _ in stops] == ["trunk", "trunk", "branch", "trunk"]
    assert trunk[1] == 4
    assert before[2][1] == last_row - 1
    assert inside[2][0] == last_row < inside[2][1]
    assert after[2][0] > last_row
    commands.pretrain(shards, output, full)
    assert_same_course(whole, output)


def test_fault_19_a_loss_that_is_not_a_number(commands, shards, whole, full, tmp_path):
    said = commands.pretrain(shards, tmp_path / "once", full, FAULT_POINT="update.loss:17:nan")
    assert "update 5 was skipped (not finite): rows [48, 59]" in said
    assert [line["update"] for line in journal(tmp_path / "once") if line.get("skipped")] == [5]
    assert [entry[:3] for entry in course(tmp_path / "once")] == [entry[:3] for entry in course(whole)]
    output, options = tmp_path / "run", {**full, "max_skipped_updates": 3}
    said = commands.pretrain(shards, output, options, FAILED, FAULT_POINT="update.loss:17:nan_on")
    assert "updates in a row had a loss or gradient that is not finite" in said
    assert checkpoints(output) == ["step-00000004-000"]  # nothing after the poison
    commands.pretrain(shards, output, options)
    assert_same_course(whole, output)


def test_fault_28_tampered_checkpoint_and_latest_that_leaves_the_run(commands, shards, whole, full, run, tmp_path):
    """The weights replaced by a pickle that writes a file, with and without a manifest that agrees."""
    trap = tmp_path / "executed"
    evil = pickle.dumps(Opens(str(trap)))
    (newest(run) / "rank-00000.safetensors").write_bytes(evil)
    (run / "checkpoints" / "latest").write_text("../../outside\n")
    said = commands.pretrain(shards, run, full)
    assert "is skipped: rank-00000.safetensors has" in said
    assert_same_course(whole, run)
    shutil.rmtree(tmp_path / "run")
    shutil.copytree(whole, run)
    for name in checkpoints(run):
        (run / "checkpoints" / name / "rank-00000.safetensors").write_bytes(evil)
        seal(run / "checkpoints" / name)
    said = commands.pretrain(shards, run, full, REFUSED)
    assert "is not safetensors" in said
    assert "Traceback" not in said
    assert not trap.exists()


class Opens:
    """Unpickled, it creates a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_fault_37_clocks_that_disagree(commands, shards, whole, full, run):
    """Time stamps in reverse order, decades apart: the newest checkpoint is the one with most updates."""
    names = checkpoints(run)
    for number, name in enumerate(names):
        for path in (run / "checkpoints" / name, *(run / "checkpoints" / name).iterdir()):
            os.utime(path, (2**32 - 10**9 * number, 2**32 - 10**9 * number))
    for name, when in (("journal.jsonl", 0), ("series.json", 2**32), ("run.json", 0)):
        os.utime(run / name, (when, when))
    assert f"{names[-1]} at update" in commands.pretrain(shards, run, full)
    assert_same_course(whole, run)


def test_fault_42_checkpoint_deleted_while_it_is_loaded(commands, shards, whole, full, run, tmp_path):
    kept = tmp_path / "kept"
    argv = arguments(shards, run, full)
    process = commands.start(PRETRAIN, argv, tmp_path / "log", FAULT_POINT="checkpoint.before_open:1:pause")
    soon(lambda: Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T", "pause")
    before = (run / "journal.jsonl").read_bytes()
    target = newest(run)
    target.rename(kept)
    process.kill(signal.SIGCONT)
    assert process.wait() == REFUSED
    assert target.name in process.said
    assert "Traceback" not in process.said
    assert (run / "journal.jsonl").read_bytes() == before
    kept.rename(target)
    commands.pretrain(shards, run, full)
    assert_same_course(whole, run)


def test_fault_43_latest_and_then_all_checkpoints_gone(commands, shards, whole, full, run):
    (run / "checkpoints" / "latest").unlink()
    assert f"{newest(run).name} at update" in commands.pretrain(shards, run, full)
    assert_same_course(whole, run)
    shutil.rmtree(run / "checkpoints")
    assert "--resume_from_checkpoint false" in commands.pretrain(shards, run, full, REFUSED)
    assert_same_course(whole, run, tolerance=0)
    commands.pretrain(shards, run, {**full, "resume_from_checkpoint": "false"})
    assert_same_course(whole, run)


@pytest.mark.parametrize(
    "state", [{"serial": 10**30}, {"progress": None}, {"fork": "../x"}, {"segment": -1}, {"progress": {"updates": "x"}}]
)
def test_fault_50_a_malformed_file_of_a_run(commands, shards, full, run, state):
    for name in checkpoints(run):
        forge(run / "checkpoints" / name, **state)
    said = commands.pretrain(shards, run, full, REFUSED)
    assert "state.json" in said
    assert "Traceback" not in said


def test_fault_56_a_deleted_and_a_damaged_journal_are_said(commands, shards, whole, full, run, tmp_path):
    shutil.copytree(run, tmp_path / "other")
    (run / "journal.jsonl").unlink()
    said = commands.pretrain(shards, run, full)
    assert "warning: " in said
    assert "journal.jsonl is missing: the new one starts after update" in said
    other, lines = tmp_path / "other", (run.parent / "other" / "journal.jsonl").read_bytes().splitlines(True)
    (other / "journal.jsonl").write_bytes(b"".join(lines[:3]) + b"[1]\n\x00\x00\n" + b"".join(lines[5:]))
    assert "journal.jsonl" in (said := commands.pretrain(shards, other, full))
    assert "warning: " in said
    assert course(other)[3:] == course(whole)[5:]


def test_fault_57_a_lock_that_is_a_link_keeps_its_target(commands, shards, full, run, tmp_path):
    target = tmp_path / "precious"
    target.write_text("precious")
    (run / "run.lock").unlink(missing_ok=True)
    (run / "run.lock").symlink_to(target)
    said = commands.pretrain(shards, run, full, REFUSED)
    assert "run.lock" in said
    assert target.read_text() == "precious"


@pytest.mark.parametrize("later", [False, True])
def test_fault_58_a_branch_that_returns_to_itself_or_to_a_later_checkpoint(
    commands, shards, whole, full, tmp_path, later
):
    run = tmp_path / "run"
    commands.pretrain(shards, run, full, INTERRUPTED, FAULT_POINT="update.before:20:terminate")
    inside = newest(run)
    assert json.loads((inside / "state.json").read_text())["fork"]
    after = f"step-{int(inside.name[5:13]) + 1:08}{inside.name[13:]}"
    if later:
        shutil.copytree(next(path for path in inside.parent.glob("step-*") if path != inside), inside.parent / after)
    forge(inside, fork=after if later else inside.name)
    said = commands.pretrain(shards, run, {**full, "resume_from_checkpoint": inside}, REFUSED)
    reason = "it does not precede this checkpoint in the run" if later else "it is inside a branch itself"
    assert f"{inside.name} is inside a branch that returns to" in said
    assert reason in said
    said = commands.pretrain(shards, run, full)
    if later:  # it is the newest by its name, so the forged one is not looked at
        assert f"{after} at update" in said
    else:
        assert f"checkpoint {inside.name} is skipped: its branch returns to {inside.name}: {reason}" in said
    assert_same_course(whole, run)


def test_fault_62_a_link_in_the_way_of_a_save_is_removed(commands, shards, whole, full, run, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("kept")
    for number in range(30):
        (run / "checkpoints" / f".tmp-step-{number:08d}-000").symlink_to(tmp_path / "elsewhere")
    commands.pretrain(shards, run, full)
    assert_same_course(whole, run)
    assert (tmp_path / "elsewhere" / "file").read_text() == "kept"


@pytest.mark.parametrize("damaged", ["newest", "all"])
def test_fault_63_weights_that_are_not_numbers_in_a_checkpoint(commands, shards, whole, full, run, damaged):
    """With hashes that agree: the checkpoint before it is used; without one, nothing is trained."""
    for name in checkpoints(run)[-1 if damaged == "newest" else 0 :]:
        path = run / "checkpoints" / name / "rank-00000.safetensors"
        tensors = load_file(path)
        first = next(iter(tensors))
        tensors[first].view(-1)[0] = torch.nan
        save_file(tensors, path)
        seal(path.parent)
    said = commands.pretrain(shards, run, full, DONE if damaged == "newest" else REFUSED)
    assert f"is skipped: rank-00000.safetensors: {first!r} holds numbers that are not finite" in said
    assert "Traceback" not in said
    if damaged == "newest":
        assert_same_course(whole, run)
