"""Row 44: kill -9 of what has data workers: they end too, and the same command goes on at once."""

from __future__ import annotations

import os
import signal
import time

import pytest
from pretraining_runs import (
    ROOT,
    assert_same_course,
    checkpoints,
    journal,
    members,
    ranks_of,
    run,
    start,
    stop_session,
    wait_for,
)

OPTIONS = {"series": 2, "dataloader_num_workers": 2, "save_steps": 2}
HANG = {"FAULT_POINT": "update.before:8:hang"}
# torchrun waits 30 s for the other ranks, which wait for the killed one while its sockets are open.
PROMPT_SECONDS = 20.0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_fault_44_a_killed_owner_takes_its_data_workers_with_it(shards, whole, tmp_path):
    output = tmp_path / "run"
    process = start("python", shards, output, OPTIONS, variables=HANG)
    try:
        wait_for(lambda: len(checkpoints(output)) > 1 and len(members(process.pid)) == 3, "workers", process=process)
        process.kill()
        process.wait()
        wait_for(lambda: not members(process.pid), "end of the workers", seconds=5)
        run("python", shards, output, OPTIONS)
    finally:
        stop_session(process)
    assert_same_course(whole, output)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("engine", "killed"), [("torchrun", 0), ("torchrun", 1), ("deepspeed", 1), ("deepspeed zero3", 0)]
)
def test_fault_44_a_killed_rank_takes_its_data_workers_with_it(shards, whole, tmp_path, engine, killed):
    output = tmp_path / "run"
    engine, _, stage = engine.partition(" ")
    config = ROOT / "ds_configs" / f"{stage or 'zero2'}.json" if engine == "deepspeed" else None
    options = {**OPTIONS, "deepspeed": config}
    process = start(engine, shards, output, options, variables={**HANG, "FAULT_RANK": str(killed)})
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
