"""Failures of a run: it loses nothing, reports the reason, and ends in bounded time.

Resumed runs are compared with uninterrupted ones by their journals: segment, update, rows and loss of every update.
All of it in this process; `tests/faults/` starts the commands and the launchers, and kills them.
"""

from __future__ import annotations

import json
import shutil

import pytest
from pretraining_runs import (
    assert_same_course,
    checkpoints,
    course,
    in_process,
    journal,
    same_series,
    write_shards,
)

FULL = {"series": 2, "save_steps": 4}
DROPOUT = {
    "model": "bert-tiny",
    "config_overrides": "num_hidden_layers=1,hidden_size=32,num_attention_heads=2,intermediate_size=48",
}
INTERRUPTED, FAILED, WRONG = 75, 1, 2


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(shards, tmp_path_factory):
    """The run that nothing happened to."""
    output = tmp_path_factory.mktemp("whole") / "run"
    in_process(shards, output, FULL)
    return output


@pytest.mark.parametrize("update", [2, 10, 12, 18, 22])
def test_stopped_at_an_update_and_resumed_it_is_the_same_run(shards, whole, tmp_path, update):
    """On the trunk, inside either branch, at the end of an epoch (updates 17 and 18) and in the second one."""
    output = tmp_path / "run"
    in_process(shards, output, FULL, fault=f"update.before:{update}:terminate", status=INTERRUPTED)
    marker = json.loads((output / "INTERRUPTED.json").read_text())
    assert marker["reason"] == "SIGTERM"
    assert len(journal(output)) <= len(journal(whole))
    in_process(shards, output, FULL)
    assert not (output / "INTERRUPTED.json").exists()
    assert_same_course(whole, output)
    same_series(whole, output)


def test_resumed_twice_with_dropout_it_is_the_same_run(shards, tmp_path):
    in_process(shards, tmp_path / "whole", {**FULL, **DROPOUT})
    for update in (7, 6):
        in_process(
            shards, tmp_path / "run", {**FULL, **DROPOUT}, fault=f"update.before:{update}:terminate", status=INTERRUPTED
        )
    in_process(shards, tmp_path / "run", {**FULL, **DROPOUT})
    assert_same_course(tmp_path / "whole", tmp_path / "run", tolerance=1e-6)
    same_series(tmp_path / "whole", tmp_path / "run")


def test_resumed_with_another_micro_batch_it_is_the_same_run(shards, whole, tmp_path):
    options = {**FULL, "per_device_train_batch_size": 5}
    in_process(shards, tmp_path / "run", options, fault="update.before:12:terminate", status=INTERRUPTED)
    in_process(shards, tmp_path / "run", {**FULL, "per_device_train_batch_size": 12})
    assert_same_course(whole, tmp_path / "run")


def test_a_finished_run_has_nothing_left_to_do(shards, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    in_process(shards, tmp_path / "run", FULL)
    assert_same_course(whole, tmp_path / "run", tolerance=0)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"global_batch_rows": 24}, "global_batch_rows: 12 there, 24 here"),
        ({"seed": 3}, "seed: 0 there, 3 here"),
        ({"resume_from_checkpoint": "false"}, "holds checkpoints: use another --output_dir"),
    ],
)
def test_another_run_in_the_same_directory_is_refused_with_the_reason(shards, whole, tmp_path, capsys, options, reason):
    before = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.name != "run.lock")
    in_process(shards, whole, {**FULL, **options}, status=WRONG)
    assert reason in capsys.readouterr().err
    assert sorted(path.relative_to(whole) for path in whole.rglob("*") if path.name != "run.lock") == before


def test_an_explicit_checkpoint_is_resumed_from(shards, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / checkpoints(whole)[0]
    in_process(shards, tmp_path / "run", {**FULL, "resume_from_checkpoint": path})
    assert_same_course(whole, tmp_path / "run")


def test_latest_gone_the_newest_is_found_by_its_name(shards, whole, tmp_path, capsys):
    output = tmp_path / "run"
    in_process(shards, output, FULL, fault="update.before:14:terminate", status=INTERRUPTED)
    (output / "checkpoints" / "latest").unlink()
    capsys.readouterr()
    in_process(shards, output, FULL)
    assert f"resuming from {output / 'checkpoints'}" in capsys.readouterr().out
    assert_same_course(whole, output)


def test_a_flipped_bit_the_one_before_is_resumed_from_and_said(shards, whole, tmp_path, capsys):
    output = tmp_path / "run"
    in_process(shards, output, FULL, fault="update.before:14:terminate", status=INTERRUPTED)
    newest = output / "checkpoints" / checkpoints(output)[-1]
    weights = newest / "rank-00000.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 4
    weights.write_bytes(content)
    in_process(shards, output, FULL)
    assert f"checkpoint {newest.name} is skipped" in capsys.readouterr().out
    assert_same_course(whole, output)


def test_a_branch_with_a_damaged_fork_is_left_for_the_checkpoint_before_it(shards, whole, tmp_path, capsys):
    output = tmp_path / "run"
    in_process(shards, output, FULL, fault="update.before:20:terminate", status=INTERRUPTED)
    folder = output / "checkpoints"
    inside = folder / checkpoints(output)[-1]
    fork = folder / json.loads((inside / "state.json").read_text())["fork"]
    (fork / "rank-00000.safetensors").write_bytes(b"")
    capsys.readouterr()
    in_process(shards, output, FULL)
    said = capsys.readouterr().out
    assert f"checkpoint {inside.name} is skipped: its branch returns to {fork.name}" in said
    assert f"checkpoint {inside.name} is later than the one resumed from" in said
    assert_same_course(whole, output)
    same_series(whole, output)


def test_checkpoints_gone_nothing_starts_from_zero_unasked(shards, whole, tmp_path, capsys):
    output = tmp_path / "run"
    shutil.copytree(whole, output)
    shutil.rmtree(output / "checkpoints")
    in_process(shards, output, FULL, status=WRONG)
    assert "--resume_from_checkpoint false" in capsys.readouterr().err
    assert_same_course(whole, output, tolerance=0)
    in_process(shards, output, {**FULL, "resume_from_checkpoint": "false"})
    assert_same_course(whole, output, tolerance=1e-6)


@pytest.mark.parametrize(
    "state",
    [
        {"fork": "../../../outside"},
        {"segment": 77},
        {"progress": {"updates": 1}},
    ],
)
def test_a_forged_state_is_refused(shards, whole, tmp_path, capsys, state):
    import hashlib

    output = tmp_path / "run"
    shutil.copytree(whole, output)
    for name in checkpoints(output):
        path = output / "checkpoints" / name
        content = json.dumps({**json.loads((path / "state.json").read_text()), **state}).encode()
        (path / "state.json").write_bytes(content)
        manifest = json.loads((path / "MANIFEST.json").read_text())
        for entry in manifest["files"]:
            if entry["name"] == "state.json":
                entry.update(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
        (path / "MANIFEST.json").write_text(json.dumps(manifest))
    in_process(shards, output, FULL, status=WRONG)
    assert "state.json" in capsys.readouterr().err


def test_one_loss_that_is_not_a_number_is_skipped_and_said(shards, whole, tmp_path, capsys):
    in_process(shards, tmp_path / "run", FULL, fault="update.loss:17:nan")  # the fifth update: four micro-batches each
    skipped = [line for line in journal(tmp_path / "run") if line.get("skipped")]
    assert [line["rows"] for line in skipped] == [[48, 59]]
    assert [line["gradient_norm"] for line in skipped] == [None]
    assert "update 5 was skipped (not finite): rows [48, 59]" in capsys.readouterr().out
    before, after = course(whole), course(tmp_path / "run")
    assert before[:5] == after[:5]
    assert before[5] != after[5]
    assert [entry[:3] for entry in before] == [entry[:3] for entry in after]


def test_a_poisoned_run_ends_and_nothing_is_saved_after(shards, tmp_path, capsys):
    options = {**FULL, "max_skipped_updates": 3}
    in_process(shards, tmp_path / "run", options, fault="update.loss:17:nan_on", status=FAILED)
    said = capsys.readouterr().err
    assert "updates in a row had a loss or gradient that is not finite" in said
    assert "--learning_rate" in said
    assert checkpoints(tmp_path / "run") == ["step-00000004-000"]


def test_a_full_disk_ends_the_run_and_keeps_the_last_checkpoint(shards, whole, tmp_path, capsys):
    in_process(shards, tmp_path / "run", FULL, fault="checkpoint.after_write:2:fail", status=FAILED)
    assert "No space left" in capsys.readouterr().err
    left = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert left == ["latest", "step-00000004-000"]
    in_process(shards, tmp_path / "run", FULL)
    assert_same_course(whole, tmp_path / "run")


def test_out_of_memory_says_what_to_lower(shards, tmp_path, capsys):
    in_process(shards, tmp_path / "run", FULL, fault="update.before:3:oom", status=FAILED)
    said = capsys.readouterr().err
    for part in ("can't allocate memory", "--per_device_train_batch_size 1", "--gradient_checkpointing true", "GB"):
        assert part in said


def test_contradictions_end_a_dry_run_and_a_run_alike(shards, tmp_path, capsys):
    for dry_run in ("true", "false"):
        options = {"dry_run": dry_run, "series": "1e9", "gradient_accumulation_steps": 7}
        in_process(shards, tmp_path / "run", options, status=WRONG)
        said = capsys.readouterr().err
        assert "contradiction: --series 1e9" in said
        assert "contradiction: --gradient_accumulation_steps 7" in said
    assert not (tmp_path / "run").exists()


def test_the_gate_refuses_a_rate_at_which_one_batch_cannot_be_learnt(shards, tmp_path, capsys):
    in_process(shards, tmp_path / "run", {"overfit_gate": "true", "learning_rate": 1e-7}, status=WRONG)
    assert "one batch cannot be overfitted" in capsys.readouterr().err
    assert not (tmp_path / "run" / "journal.jsonl").exists()
