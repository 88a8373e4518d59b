"""How an unfinished run stands: by its lock, by INTERRUPTED.json, and by when it last wrote."""

import fcntl
import json
import os
import time

import pytest

from gap.watch.owners import QUIET_SECONDS, held_inodes, read_owner, state_of_unfinished
from gap.watch.view import LiveState
from runtime.files.lock import Ownership

NOW, EARLIER = 0.0, QUIET_SECONDS + 60  # seconds ago


@pytest.mark.parametrize(
    ("owner", "marker", "ago", "state"),
    [
        ("here", False, EARLIER, LiveState.RUNNING),
        ("here", True, EARLIER, LiveState.RUNNING),  # it goes on, and has yet to remove the marker
        ("gone", False, NOW, LiveState.STALE),
        ("gone", True, NOW, LiveState.INTERRUPTED),
        ("elsewhere", False, NOW, LiveState.RUNNING),
        ("elsewhere", False, EARLIER, LiveState.STALE),
        ("elsewhere", True, NOW, LiveState.INTERRUPTED),
        (None, False, NOW, LiveState.RUNNING),
        (None, False, EARLIER, LiveState.STALE),
    ],
)
def test_the_state_of_an_unfinished_run(written, owner, marker, ago, state):
    written.lock(written.root, owner)
    if marker:
        (written.root / "INTERRUPTED.json").write_text(json.dumps({"reason": "SIGTERM", "progress": {}}))
    found, reason = state_of_unfinished(written.root, read_owner(written.root), time.time() - ago)
    assert found == state
    assert (reason == "") == (owner == "here")
    assert ("SIGTERM" in reason) == (state == LiveState.INTERRUPTED)


def test_a_run_s_own_lock_is_read_and_not_taken(tmp_path):
    owner = Ownership(tmp_path)
    owner.take()
    found = read_owner(tmp_path)
    assert found is not None
    assert found.lives
    assert f"pid {os.getpid()}" in found.words
    owner.release()
    owner.take()  # nobody else holds it


def test_a_lock_that_is_none_says_nothing(tmp_path):
    assert read_owner(tmp_path) is None
    os.mkfifo(tmp_path / "run.lock")
    owner = read_owner(tmp_path)  # does not wait for a writer
    assert owner is None or owner.lives is None


def test_the_kernel_tells_which_files_are_locked(tmp_path):
    if held_inodes() is None:
        pytest.skip("this system has no /proc/locks")
    with (tmp_path / "claim").open("w") as file:
        inode = os.fstat(file.fileno()).st_ino
        assert inode not in held_inodes()
        fcntl.flock(file, fcntl.LOCK_EX)
        assert inode in held_inodes()
