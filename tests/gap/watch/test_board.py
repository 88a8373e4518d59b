"""All runs together: their order, what happens when files vanish, and that nothing is written or locked."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from gap.watch.board import REST_SECONDS, Board
from gap.watch.page.cards import Cards
from gap.watch.terminal import lines_of
from gap.watch.view import LiveState


def places(state):
    return [(run.view.place, str(run.view.state)) for run in state.runs]


def many_runs(written):
    written.pretraining("b-running")
    written.pretraining("a-running", updates=3)
    written.pretraining("finished", exported=4, owner="gone")
    written.pretraining("stale", owner="gone")
    written.study("study", done=3)
    written.finetuning("qa", results={"metric": "f1", "eval_f1": 0.5})
    written.sweep("sweep", ["finished", "failed"], total=2, owner="gone")
    written.build("shards")
    written.build("half", owner="gone")
    return Board(written.root, every=0.0)


def fingerprint(root):
    """Names, bytes, times and locks' content of everything below."""
    found = {}
    for folder, _, files in os.walk(root):
        for name in (*files, "."):
            path = os.path.join(folder, name)
            state = os.stat(path)
            content = "" if name == "." else hashlib.sha256(Path(path).read_bytes()).hexdigest()
            found[path] = (state.st_mtime_ns, state.st_ctime_ns, state.st_size, state.st_ino, content)
    return found


def test_running_ones_come_first_then_what_needs_attention(written):
    state = many_runs(written).look()
    assert [place for place, _ in places(state)][:4] == ["a-running", "b-running", "study", "sweep"]
    assert {place for place, found in places(state)[4:6]} == {"stale", "half"}
    assert {found for _, found in places(state)[6:]} == {"finished"}
    assert state.summary == "3 running, 1 failed, 2 stale, 3 finished"


def test_looking_writes_nothing_and_changes_no_time(written):
    board = many_runs(written)
    before = fingerprint(written.root)
    for _ in range(3):
        state = board.look()
        Cards().fragments(state)
        [Cards().body(run) for run in state.runs]
        lines_of(state)
    assert fingerprint(written.root) == before


def test_runs_that_come_and_go(written):
    board = Board(written.root, every=0.0)
    assert board.look().summary == "no runs below this folder yet"
    folder = written.pretraining("a")
    board._find_at = 0.0
    assert places(board.look()) == [("a", "running")]
    name = board.look().runs[0].id
    assert board.run(name).view.place == "a"
    assert board.run("b") is None
    shutil.rmtree(folder)
    assert len(board.look().runs) == 1  # until it is searched for again
    board._find_at = 0.0
    assert board.look().runs == ()


def test_a_finished_run_rests_for_a_while_and_then_is_looked_at_again(written, monkeypatch):
    folder = written.pretraining("a", updates=100, exported=4, owner="gone")
    board = Board(written.root, every=0.0)
    assert board.look().runs[0].view.state == LiveState.FINISHED
    (folder / "series.json").unlink()
    assert board.look().runs[0].view.state == LiveState.FINISHED
    monkeypatch.setattr("gap.watch.board.time.monotonic", lambda: board._looked + REST_SECONDS + 1)
    assert board.look().runs[0].view.state == LiveState.STALE


def test_a_look_that_is_fresh_is_not_repeated(written):
    written.pretraining("a")
    board = Board(written.root, every=60.0)
    assert board.look() is board.look()


def test_a_reader_that_cannot_read_is_a_damaged_run(written, monkeypatch):
    written.pretraining("a")
    board = Board(written.root, every=0.0)

    def fails(self):
        raise PermissionError(13, "Permission denied", "journal.jsonl")

    monkeypatch.setattr("gap.watch.readers.pretraining_run.PretrainingReader.view", fails)
    (run,) = board.look().runs
    assert run.view.state == LiveState.DAMAGED
    assert "Permission denied" in run.view.problems[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_named(written):
    folder = written.pretraining("a")
    (folder / "run.json").chmod(0)
    (run,) = Board(written.root, every=0.0).look().runs
    assert "run.json" in run.view.problems[0]
