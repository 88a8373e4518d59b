"""Rows of docs/reliability.md that need ranks of a real launcher: kills, signals, hangs, and who may write where."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time

import pytest
from pretraining_runs import (
    ROOT,
    arguments,
    assert_same_course,
    checkpoints,
    environment,
    in_process,
    journal,
    launcher,
    log_of,
    members,
    ranks_of,
    run,
    same_series,
    start,
    stop_session,
    wait_for,
)

from tests.faults.commands import FAILED, INTERRUPTED

BOTH = ["torchrun", pytest.param("deepspeed", marks=pytest.mark.long)]  # its processes take twice as long to start
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
FULL = {"series": 2, "save_steps": 4}
ZERO2 = {**FULL, "deepspeed": ROOT / "ds_configs" / "zero2.json"}
DROPOUT = {
    "model": "bert-tiny",
    "config_overrides": "num_hidden_layers=1,hidden_size=32,num_attention_heads=2,intermediate_size=48",
}
WORKERS = {"series": 2, "dataloader_num_workers": 2, "save_steps": 2}
HANG_LATER = {"FAULT_POINT": "update.before:8:hang"}
# torchrun waits 30 s for the other ranks, which wait for the killed one while its sockets are open.
PROMPT_SECONDS = 20.0
# Beyond --hang_timeout_seconds, from the last line of the journal: the hanging update, the stacks, the launcher's end.
HANG_MARGIN_SECONDS = 30.0


def killed(engine, shards, output, options, point, *, rank=1, num_ranks=2):
    """Run until a rank kills itself; the launcher must end soon and no process may be left."""
    variables = {"FAULT_POINT": point, "FAULT_RANK": str(rank)}
    process = start(engine, shards, output, options, num_ranks=num_ranks, variables=variables)
    try:
        assert process.wait(240) != 0, log_of(output).read_text()[-3000:]
        wait_for(lambda: not ranks_of(process.pid), "end of the peers", seconds=60)
    finally:
        stop_session(process)


@pytest.mark.parametrize(
    ("engine", "options", "update"),
    [
        ("deepspeed", ZERO2, 6),
        ("torchrun", FULL, 11),  # inside the first branch
        pytest.param(
            "deepspeed", {**ZERO2, "deepspeed": ROOT / "ds_configs" / "zero3.json"}, 15, marks=pytest.mark.long
        ),
    ],
)
def test_fault_01_a_rank_killed_within_an_update(shards, whole, tmp_path, engine, options, update):
    """Between the last backward pass and the step: this update's gradients exist, its weights do not."""
    killed(engine, shards, tmp_path / "run", options, f"update.backward:{update}:kill")
    assert len(journal(tmp_path / "run")) < len(journal(whole))
    run(engine, shards, tmp_path / "run", options)
    assert_same_course(whole, tmp_path / "run")
    same_series(whole, tmp_path / "run")


@pytest.mark.long
def test_fault_01_a_rank_killed_with_dropout(shards, tmp_path):
    options = {**ZERO2, **DROPOUT}
    run("deepspeed", shards, tmp_path / "whole", options)
    killed("deepspeed", shards, tmp_path / "run", options, "update.backward:7:kill")
    run("deepspeed", shards, tmp_path / "run", options)
    assert_same_course(tmp_path / "whole", tmp_path / "run")


@pytest.mark.long
def test_fault_16_another_world_size_stage_and_engine_at_every_start(shards, whole, tmp_path):
    """ZeRO-2 on two ranks, ZeRO-3 on three, FSDP2 on two, one process: nothing lost, nothing repeated."""
    output, point = tmp_path / "run", "update.before:3:terminate"
    stop = {"FAULT_POINT": point}
    run("deepspeed", shards, output, ZERO2, variables=stop, status=None)
    zero3 = {**FULL, "deepspeed": ROOT / "ds_configs" / "zero3.json"}
    run("deepspeed", shards, output, zero3, num_ranks=3, variables=stop, status=None)
    run("torchrun", shards, output, FULL, variables=stop, status=None)
    in_process(shards, output, FULL)
    assert {line["world_size"] for line in journal(output)} == {1, 2, 3}
    assert_same_course(whole, output)
    same_series(whole, output)


@pytest.mark.parametrize("engine", ["deepspeed", "torchrun"])
def test_fault_04_sigterm_to_the_launcher(shards, tmp_path, engine):
    saves_and_ends(shards, tmp_path / "run", engine, of_rank=None)


@pytest.mark.parametrize("engine", BOTH)
def test_fault_05_sigterm_to_one_rank(shards, tmp_path, engine):
    code = saves_and_ends(shards, tmp_path / "run", engine, of_rank=1)
    if engine == "deepspeed":
        assert code == INTERRUPTED


def saves_and_ends(shards, output, engine, *, of_rank):
    """SIGTERM to a rank or the launcher: saved within 30 s, all ended within 45 s; the launcher's exit status."""
    options = {**(ZERO2 if engine == "deepspeed" else FULL), "budget_tokens": 2_000_000, "series": 0, "save_steps": 0}
    process = start(engine, shards, output, options)
    try:
        wait_for(lambda: len(journal(output)) > 2, "first updates", process=process)
        ranks = ranks_of(process.pid)
        assert sorted(ranks) == [0, 1]
        os.kill(process.pid if of_rank is None else ranks[of_rank], signal.SIGTERM)
        sent = time.monotonic()
        wait_for(lambda: (output / "INTERRUPTED.json").exists(), "marker file", seconds=30)
        wait_for(lambda: not ranks_of(process.pid), "end of the ranks", seconds=30)
        assert time.monotonic() - sent < 45
        code = process.wait(60)
    finally:
        stop_session(process)
    assert code != 0
    saved = json.loads((output / "INTERRUPTED.json").read_text())["progress"]["updates"]
    state = json.loads((output / "checkpoints" / checkpoints(output)[-1] / "state.json").read_text())
    assert state["progress"]["updates"] == saved == journal(output)[-1]["update"]
    return code


@pytest.mark.parametrize("engine", BOTH)
def test_fault_06_a_second_signal_to_the_ranks_of_a_launcher(shards, whole, tmp_path, engine):
    """Rank 1 hangs, so the first signal cannot be obeyed; the second ends both at once; the run is resumed later."""
    output, options = tmp_path / "run", {**(ZERO2 if engine == "deepspeed" else FULL), "save_steps": 2}
    hang = {"FAULT_POINT": "update.before:7:hang", "FAULT_RANK": "1"}
    process = start(engine, shards, output, options, variables=hang)
    try:
        # Its ranks have met after update 6 and saved: they would meet again after the one that hangs.
        saving = output / "checkpoints" / ".tmp-step-00000006-000"
        wait_for(lambda: saving.exists() or "step-00000006-000" in checkpoints(output), "save", process=process)
        ranks = ranks_of(process.pid)
        for pid in ranks.values():
            os.kill(pid, signal.SIGTERM)
        time.sleep(1.5)
        assert sorted(ranks_of(process.pid)) == [0, 1]
        for pid in ranks.values():
            os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not ranks_of(process.pid), "end of the ranks", seconds=10)
        assert process.wait(60) != 0
    finally:
        stop_session(process)
    assert not (output / "INTERRUPTED.json").exists()
    in_process(shards, output, FULL)
    assert_same_course(whole, output)


def test_fault_08_one_rank_cannot_write(shards, whole, tmp_path):
    variables = {"FAULT_POINT": "checkpoint.before_write:2:fail", "FAULT_RANK": "1"}
    before = time.monotonic()
    printed = run("torchrun", shards, tmp_path / "run", FULL, variables=variables, status=None)
    assert time.monotonic() - before < 200
    assert "No space left" in printed
    assert "rank 1 failed while writing" in printed
    assert checkpoints(tmp_path / "run") == ["step-00000004-000"]
    assert not list((tmp_path / "run" / "checkpoints").glob(".tmp-*"))
    in_process(shards, tmp_path / "run", FULL)
    assert_same_course(whole, tmp_path / "run")


def test_fault_21_one_rank_hangs(shards, whole, tmp_path):
    variables = {"FAULT_POINT": "update.before:4:hang", "FAULT_RANK": "1"}
    options = {**FULL, "hang_timeout_seconds": 15}
    printed = run("torchrun", shards, tmp_path / "run", options, variables=variables, status=None)
    ended = time.time() - (tmp_path / "run" / "journal.jsonl").stat().st_mtime
    assert "Timeout (0:00:15)!" in printed
    assert "fault_point" in printed  # where it hung
    assert len(journal(tmp_path / "run")) <= 4
    assert ended < 15 + HANG_MARGIN_SECONDS
    in_process(shards, tmp_path / "run", FULL)
    assert_same_course(whole, tmp_path / "run")


def test_fault_22_a_data_worker_is_killed(shards, tmp_path):
    output = tmp_path / "run"
    options = {"dataloader_num_workers": 1, "budget_tokens": 2_000_000, "report_to": "none"}
    process = start("python", shards, output, options)
    try:
        wait_for(lambda: len(journal(output)) > 2, "first updates", process=process)
        workers = [pid for pid in members(process.pid) if pid != process.pid]
        assert workers
        os.kill(workers[0], signal.SIGKILL)
        assert process.wait(60) == FAILED
    finally:
        stop_session(process)
    assert "worker" in log_of(output).read_text()


def test_fault_36_two_runs_in_one_output_directory(shards, tmp_path):
    output = tmp_path / "run"
    process = start("python", shards, output, {"budget_tokens": 2_000_000})
    try:
        wait_for(lambda: journal(output), "first update", process=process)
        lines = len(journal(output))
        printed = run("torchrun", shards, output, {"budget_tokens": 2_000_000}, status=None)
        assert f"belongs to a running job (pid {process.pid} on {socket.gethostname()}" in printed
        assert len(journal(output)) >= lines
    finally:
        stop_session(process)
    # Its owner killed, the directory is free and the run continues.
    in_process(shards, output, {"budget_tokens": 2_000_000}, fault="update.before:3:terminate", status=INTERRUPTED)


def test_fault_40_port_in_use(shards, tmp_path):
    with socket.socket() as holder:
        holder.bind(("", 0))
        holder.listen()
        port = holder.getsockname()[1]
        command = launcher("deepspeed", 2)
        command[command.index("--master_port") + 1] = str(port)
        command += [str(ROOT / "launch" / "pretrain.py"), *arguments(shards, tmp_path / "run", ZERO2)]
        ended = subprocess.run(
            command,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=240,
            start_new_session=True,
            cwd=tmp_path,
        )
    assert ended.returncode != 0
    assert f":{port}" in ended.stdout + ended.stderr
    assert "--master_port" in ended.stdout + ended.stderr


def test_fault_44_a_killed_owner_takes_its_data_workers_with_it(shards, whole, tmp_path):
    output = tmp_path / "run"
    process = start("python", shards, output, WORKERS, variables=HANG_LATER)
    try:
        wait_for(lambda: len(checkpoints(output)) > 1 and len(members(process.pid)) == 3, "workers", process=process)
        process.kill()
        process.wait()
        wait_for(lambda: not members(process.pid), "end of the workers", seconds=5)
        run("python", shards, output, WORKERS)
    finally:
        stop_session(process)
    assert_same_course(whole, output)


@pytest.mark.parametrize(
    ("engine", "killed"),
    [
        ("torchrun", 0),
        pytest.param("torchrun", 1, marks=pytest.mark.long),
        ("deepspeed", 1),
        pytest.param("deepspeed zero3", 0, marks=pytest.mark.long),
    ],
)
def test_fault_44_a_killed_rank_takes_its_data_workers_with_it(shards, whole, tmp_path, engine, killed):
    output = tmp_path / "run"
    engine, _, stage = engine.partition(" ")
    config = ROOT / "ds_configs" / f"{stage or 'zero2'}.json" if engine == "deepspeed" else None
    options = {**WORKERS, "deepspeed": config}
    process = start(engine, shards, output, options, variables={**HANG_LATER, "FAULT_RANK": str(killed)})
    try:
        wait_for(lambda: len(journal(output)) > 5, "updates", process=process)
        os.kill(ranks_of(process.pid)[killed], signal.SIGKILL)
        sent = time.monotonic()
        assert process.wait(60) != 0
        assert time.monotonic() - sent < PROMPT_SECONDS
        assert not members(process.pid)
        run(engine, shards, output, options)
    finally:
        stop_session(process)
    assert_same_course(whole, output)


@pytest.mark.parametrize("engine", BOTH)
def test_fault_68_a_launcher_killed_while_its_ranks_import(shards, whole, tmp_path, engine):
    output, options = tmp_path / "run", FULL if engine == "torchrun" else ZERO2
    process = start(engine, shards, output, options)
    try:
        wait_for(lambda: len(ranks_of(process.pid)) == 2, "the ranks", process=process)
        process.kill()
        process.wait()
        assert not (output / "journal.jsonl").exists()
        wait_for(lambda: not members(process.pid), "end of the ranks", seconds=60)
        run(engine, shards, output, options)
    finally:
        stop_session(process)
    assert_same_course(whole, output)
