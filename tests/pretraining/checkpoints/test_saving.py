"""Saving in the background: what training waits for, when a checkpoint is committed, and how a failure is told."""

import json
import threading
import time
from pathlib import Path

import pytest
import torch
from pretraining_runs import assert_same_course, checkpoints, in_process, journal, on_forked_ranks, series, write_shards

from pretraining.checkpoints import saving
from pretraining.checkpoints.checkpoint import committed, newest_checkpoint, read_state
from pretraining.checkpoints.saving import CheckpointSaver
from pretraining.publishing.publication import Publisher
from runtime.processes import fault_points
from runtime.processes.ranks import Ranks, read_ranks

ONE = Ranks()
FIRST, SECOND, THIRD = (f"step-0000000{number}-000" for number in (1, 2, 3))
SECONDS = 20.0


class Gate:
    """Holds a function of `saving` back until it is opened."""

    def __init__(self, monkeypatch, name):
        self.opened, self.reached = threading.Event(), threading.Event()
        self.work = getattr(saving, name)
        monkeypatch.setattr(saving, name, self)

    def __call__(self, *given):
        self.reached.set()
        assert self.opened.wait(SECONDS)
        return self.work(*given)

    def open_later(self, seconds=0.3):
        threading.Timer(seconds, self.opened.set).start()


def tensors(value):
    return [("a/weight", torch.full((3, 4), value)), ("a/exp_avg", torch.full((3, 4), -value))]


def save(saver, name, value):
    saver.save(name, tensors=tensors(value), state={"value": value})


def inject(monkeypatch, fault):
    monkeypatch.setattr(fault_points, "_specification", fault)
    monkeypatch.setattr(fault_points, "_passed", fault_points.Counter())


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_training_goes_on_while_the_copy_is_written(tmp_path, monkeypatch):
    gate, saver, live = Gate(monkeypatch, "_write_share"), CheckpointSaver(tmp_path, ONE), torch.ones(3)
    saver.save(FIRST, tensors=[("a/weight", live)], state={})
    assert gate.reached.wait(SECONDS)
    live += 1  # the next update
    saver.poll()
    assert saver.pending == FIRST
    assert committed(tmp_path) == []
    gate.opened.set()
    saver.wait()
    assert saver.pending is None
    assert newest_checkpoint(tmp_path, ONE).read("a/weight").equal(torch.ones(3))
    saver.wait()
    saver.poll()
    assert saver.num_saves == 1


def test_it_is_committed_without_being_waited_for(tmp_path):
    saver = CheckpointSaver(tmp_path, ONE)
    save(saver, FIRST, 1.0)
    deadline = time.monotonic() + SECONDS
    while saver.pending and time.monotonic() < deadline:
        saver.poll()
    assert names(tmp_path) == ["latest", FIRST]


def test_a_save_waits_for_the_one_before_and_uses_its_memory(tmp_path, monkeypatch):
    gate, saver = Gate(monkeypatch, "_write_share"), CheckpointSaver(tmp_path, ONE)
    save(saver, FIRST, 1.0)
    before = {name: copy.data_ptr() for name, copy in saver._copies.items()}
    gate.open_later()
    save(saver, SECOND, 2.0)
    assert saver.stalled >= 0.2
    assert (tmp_path / FIRST).is_dir()
    saver.wait()
    assert {name: copy.data_ptr() for name, copy in saver._copies.items()} == before
    assert newest_checkpoint(tmp_path, ONE).read("a/weight")[0, 0] == 2.0


def test_the_copy_follows_the_tensors(tmp_path):
    """Before the first update there are no moments; a type that changed is not converted silently."""
    saver = CheckpointSaver(tmp_path, ONE)
    saver.save(FIRST, tensors=tensors(1.0)[:1], state={})
    saver.save(SECOND, tensors=tensors(2.0), state={})
    saver.wait()
    assert newest_checkpoint(tmp_path, ONE).names == {"a/weight", "a/exp_avg"}
    saver.save(THIRD, tensors=[("a/weight", torch.zeros(2, dtype=torch.float64))], state={})
    saver.wait()
    with pytest.raises(ValueError, match=r"torch\.float64 \[2\]"):
        newest_checkpoint(tmp_path, ONE).read("a/weight")


def test_without_the_background_it_is_committed_at_once_and_no_memory_is_kept(tmp_path):
    saver = CheckpointSaver(tmp_path, ONE, in_background=False)
    save(saver, FIRST, 1.0)
    assert saver.pending is None
    assert saver._copies == {}
    assert names(tmp_path) == ["latest", FIRST]


PLACES = ("before_write", "after_write", "before_manifest", "before_rename")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("call", ["poll", "wait", "save"])
def test_a_failure_surfaces_at_the_next_call_and_leaves_the_earlier_checkpoint(tmp_path, monkeypatch, place, call):
    saver = CheckpointSaver(tmp_path, ONE)
    save(saver, FIRST, 1.0)
    saver.wait()
    inject(monkeypatch, f"checkpoint.{place}:1:fail")
    save(saver, SECOND, 2.0)
    saver._save.task.exception()
    with pytest.raises(OSError, match="No space left"):
        save(saver, THIRD, 3.0) if call == "save" else getattr(saver, call)()
    assert names(tmp_path) == ["latest", FIRST]
    assert saver.pending is None
    save(saver, THIRD, 3.0)
    saver.wait()
    assert (tmp_path / "latest").read_text() == THIRD + "\n"


def test_nothing_is_removed_before_the_new_one_is_committed(tmp_path, monkeypatch):
    saver = CheckpointSaver(tmp_path, ONE, keep=1)
    save(saver, FIRST, 1.0)
    saver.wait()
    gate = Gate(monkeypatch, "_commit")
    save(saver, SECOND, 2.0)
    assert gate.reached.wait(SECONDS)
    assert [path.name for path in committed(tmp_path)] == [FIRST]
    gate.opened.set()
    saver.wait()
    assert names(tmp_path) == ["latest", SECOND]


def test_what_must_be_on_the_disk_first_is_written_after_the_share_and_before_the_manifest(tmp_path):
    seen = []
    saver = CheckpointSaver(tmp_path, ONE, before_commit=lambda: seen.append(names(tmp_path / f".tmp-{FIRST}")))
    save(saver, FIRST, 1.0)
    saver.wait()
    assert seen == [["rank-00000.safetensors"]]


def test_after_a_failure_elsewhere_the_thread_is_let_end(tmp_path, monkeypatch):
    gate, saver = Gate(monkeypatch, "_write_share"), CheckpointSaver(tmp_path, ONE)
    save(saver, FIRST, 1.0)
    gate.open_later()
    saver.close()
    assert names(tmp_path) == ["latest", FIRST]  # one rank has nobody to agree with
    saver.close()


# Two ranks.


def of_two_ranks(folder, rank):
    """A failure on rank 1 while writing, then on rank 0 while committing, then none."""
    said = []
    saver = CheckpointSaver(folder / "checkpoints", read_ranks())
    for number, fault in enumerate(["before_write:1:fail", "before_manifest:1:fail", ""], start=1):
        guilty = 1 if "write" in fault else 0
        fault_points._specification = f"checkpoint.{fault}" if fault and rank == guilty else ""
        fault_points._passed.clear()
        save(saver, f"step-0000000{number}-000", float(number))
        deadline, polls = time.monotonic() + SECONDS, 0
        try:
            while saver.pending and time.monotonic() < deadline:
                saver.poll()
                polls += 1
            said.append("committed")
        except Exception as error:
            said.append(f"{type(error).__name__}: {error}")
    return said


def test_two_ranks_fail_together_and_say_who_failed(tmp_path):
    first, second = on_forked_ranks(lambda rank: of_two_ranks(tmp_path, rank), tmp_path, num_ranks=2)
    folder = tmp_path / "checkpoints"
    full = "[Errno 28] No space left on device: 'checkpoint."
    assert first == [
        f"PeerFailed: rank 1 failed while writing {folder / FIRST}: {full}before_write'",
        f"OSError: {full}before_manifest'",
        "committed",
    ]
    assert second == [
        f"OSError: {full}before_write'",
        f"PeerFailed: rank 0 failed while committing {folder / SECOND}: {full}before_manifest'",
        "committed",
    ]
    assert names(folder) == ["latest", THIRD]
    opened = newest_checkpoint(folder, ONE)
    assert opened.read("a/weight")[0, 0] == 3.0
    assert opened.read("a/exp_avg")[0, 0] == -3.0


def of_a_slow_rank(folder, rank):
    """Rank 1 needs a while to write; what rank 0 sees of it at each step of a training that goes on."""
    write, gate = saving._write_share, threading.Event()

    def slowly(*given):
        assert gate.wait(SECONDS)
        return write(*given)

    if rank == 1:
        saving._write_share = slowly
    saver = CheckpointSaver(folder / "checkpoints", read_ranks())
    save(saver, FIRST, 1.0)
    for _ in range(5):
        saver.poll()
    before = [saver.pending, len(committed(folder / "checkpoints"))]
    gate.set()
    saver.wait()
    return [*before, saver.pending, len(committed(folder / "checkpoints"))]


def test_nothing_is_committed_before_every_rank_has_written(tmp_path):
    found = on_forked_ranks(lambda rank: of_a_slow_rank(tmp_path, rank), tmp_path, num_ranks=2)
    assert found == [[FIRST, 0, None, 1]] * 2


# A whole run.

FULL = {"series": 2, "save_steps": 4}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("data"))


@pytest.fixture
def slow_disk(monkeypatch):
    """Every share takes half a second to write: an update takes a few milliseconds."""
    write = saving._write_share

    def slowly(*given):
        time.sleep(0.5)
        return write(*given)

    monkeypatch.setattr(saving, "_write_share", slowly)


def test_a_run_saves_the_same_in_the_background_and_says_how_long_it_stood_still(shards, tmp_path, capsys, slow_disk):
    in_process(shards, tmp_path / "at once", {**FULL, "async_save": "false"})
    in_process(shards, tmp_path / "run", FULL)
    assert_same_course(tmp_path / "at once", tmp_path / "run", tolerance=0)
    assert checkpoints(tmp_path / "at once") == checkpoints(tmp_path / "run")
    for run in ("at once", "run"):
        stalls = [line["save_stall_seconds"] for line in journal(tmp_path / run) if "save_stall_seconds" in line]
        assert len(stalls) >= 3
        # The first save waits for none before it: on a slow disk only the synchronous one takes as long as the disk.
        assert (stalls[0] >= 0.5) == (run == "at once")
    assert "training stood still for" in capsys.readouterr().out


def test_a_stop_and_the_end_wait_for_the_last_checkpoint(shards, tmp_path, slow_disk):
    in_process(shards, tmp_path / "run", FULL, fault="update.before:14:terminate", status=75)
    newest = tmp_path / "run" / "checkpoints" / checkpoints(tmp_path / "run")[-1]
    assert read_state(newest)["serial"] == journal(tmp_path / "run")[-1]["serial"]
    in_process(shards, tmp_path / "run", FULL)
    newest = tmp_path / "run" / "checkpoints" / checkpoints(tmp_path / "run")[-1]
    assert read_state(newest)["serial"] == journal(tmp_path / "run")[-1]["serial"]


def test_a_run_that_ends_for_its_loss_keeps_the_checkpoint_that_was_being_written(shards, tmp_path, slow_disk):
    options = {**FULL, "max_skipped_updates": 3}
    in_process(shards, tmp_path / "run", options, fault="update.loss:17:nan_on", status=1)
    assert checkpoints(tmp_path / "run") == ["step-00000004-000"]


def test_nothing_is_listed_in_the_series_before_its_checkpoint_is_there(shards, tmp_path, monkeypatch, slow_disk):
    """A series without a checkpoint would be refused when the run is resumed."""
    publish, seen = Publisher.publish, []

    def spied(publisher, segment, progress):
        folder = Path(publisher.directory) / "checkpoints"
        seen.append((progress.updates, len(committed(folder)), len(list(folder.glob(".tmp-*")))))
        return publish(publisher, segment, progress)

    monkeypatch.setattr(Publisher, "publish", spied)
    in_process(shards, tmp_path / "run", FULL)
    assert len(seen) == len(series(tmp_path / "run")) > 2
    assert all(there and not under_way for updates, there, under_way in seen if updates)


def test_a_failure_in_the_background_ends_the_run_at_the_next_exchange(shards, tmp_path, capsys):
    in_process(shards, tmp_path / "run", FULL, fault="checkpoint.before_rename:2:fail", status=1)
    said = capsys.readouterr().err
    assert "No space left" in said
    assert "run the same command again" in said
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == ["latest", "step-00000004-000"]
    assert json.loads((tmp_path / "run" / "run.json").read_text())
    in_process(shards, tmp_path / "run", FULL)
