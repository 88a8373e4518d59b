"""Row 69 of docs/reliability.md: ranks of a real launcher, killed while a checkpoint is written in the background."""

from __future__ import annotations

import json
import os
import signal

import pytest
from pretraining_runs import (
    ROOT,
    assert_same_course,
    checkpoints,
    journal,
    log_of,
    members,
    ranks_of,
    run,
    same_series,
    start,
    stop_session,
    wait_for,
)

from runtime.files.whole_files import sha256_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
FULL = {"series": 2, "save_steps": 4}
ENGINES = {"torchrun fsdp": None, "deepspeed zero2": "zero2.json", "deepspeed zero3": "zero3.json"}


@pytest.fixture(scope="module")
def whole_of(shards, tmp_path_factory):
    """The uninterrupted run of an engine on two ranks."""
    made = {}

    def of(engine):
        if engine not in made:
            made[engine] = tmp_path_factory.mktemp("whole") / "run"
            run(engine.split()[0], shards, made[engine], options_of(engine))
        return made[engine]

    return of


def options_of(engine):
    return {**FULL, "deepspeed": ENGINES[engine] and ROOT / "ds_configs" / ENGINES[engine]}


def weights(output):
    """The sha256 of the exported weights, by their place."""
    found = sorted(output.glob("series/*/*.safetensors"))
    return {path.relative_to(output).as_posix(): sha256_of(path) for path in found}


def resumed(engine, shards, output, whole):
    """Run it to its end: the same updates, losses and weights, bit for bit."""
    run(engine.split()[0], shards, output, options_of(engine))
    assert not list((output / "checkpoints").glob(".tmp-*"))
    state = json.loads((output / "checkpoints" / checkpoints(output)[-1] / "state.json").read_text())
    assert state["serial"] == journal(output)[-1]["serial"]  # the last save was waited for
    assert_same_course(whole, output, tolerance=0)
    same_series(whole, output)
    assert weights(output) == weights(whole)
    assert len(weights(output)) > 2


@pytest.mark.parametrize(
    ("engine", "victim"),
    [
        ("torchrun fsdp", "rank 1"),
        pytest.param("torchrun fsdp", "all", marks=pytest.mark.long),
        ("deepspeed zero2", "all"),
        pytest.param("deepspeed zero3", "rank 1", marks=pytest.mark.long),
    ],
)
def test_fault_69_killed_while_a_checkpoint_is_written_in_the_background(shards, whole_of, tmp_path, engine, victim):
    """Rank 1 never ends its share of the second checkpoint; both train on until the third, and are killed then."""
    output = tmp_path / "run"
    variables = {"FAULT_POINT": "checkpoint.before_write:2:hang", "FAULT_RANK": "1"}
    process = start(engine.split()[0], shards, output, options_of(engine), variables=variables)
    try:
        wait_for(lambda: len(journal(output)) > 8, "update after the save", process=process)
        assert (output / "checkpoints" / ".tmp-step-00000008-000").is_dir()
        found = ranks_of(process.pid)
        for pid in [found[1]] if victim == "rank 1" else [process.pid, *members(process.pid)]:
            os.kill(pid, signal.SIGKILL)
        assert process.wait(120) != 0
    finally:
        stop_session(process)
    assert checkpoints(output) == ["step-00000004-000"]
    resumed(engine, shards, output, whole_of(engine))


@pytest.mark.parametrize("engine", ["torchrun fsdp", pytest.param("deepspeed zero2", marks=pytest.mark.long)])
def test_fault_69_the_main_rank_killed_while_it_commits(shards, whole_of, tmp_path, engine):
    output = tmp_path / "run"
    variables = {"FAULT_POINT": "checkpoint.before_rename:2:kill", "FAULT_RANK": "0"}
    process = start(engine.split()[0], shards, output, options_of(engine), variables=variables)
    try:
        assert process.wait(240) != 0, log_of(output).read_text()[-3000:]
    finally:
        stop_session(process)
    assert checkpoints(output) == ["step-00000004-000"]
    resumed(engine, shards, output, whole_of(engine))
