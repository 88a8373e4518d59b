"""Uploads in the background, and the lock of a store."""

import threading

import pytest

from runtime.files.lock import LOCK_NAME
from runtime.stores.store import Store
from runtime.stores.store_lock import StoreLock
from runtime.stores.uploader import Uploader


@pytest.fixture
def said():
    return []


def test_failed_work_is_repeated_and_warned_of_and_holds_up_nobody(said):
    uploader, done, failures = Uploader(said.append, first_pause=0.01), [], [OSError("cut"), OSError("cut")]

    def work():
        if failures:
            raise failures.pop()
        done.append("a")

    uploader.submit("a", work)
    uploader.submit("b", lambda: done.append("b"))
    assert uploader.close(20) == []
    assert done == ["a", "b"]
    assert [text.startswith("warning: a is not uploaded yet (cut)") for text in said] == [True, True]


def test_a_later_checkpoint_takes_the_place_of_one_that_waits(said):
    uploader, done, go = Uploader(said.append), [], threading.Event()
    uploader.submit("checkpoint 1", lambda: (go.wait(20), done.append(1)))
    while uploader.unfinished != ["checkpoint 1"] or uploader._waiting:
        pass
    uploader.submit("checkpoint 2", lambda: done.append(2), replacing="checkpoint ")
    uploader.submit("export", lambda: done.append("export"))
    uploader.submit("checkpoint 3", lambda: done.append(3), replacing="checkpoint ")
    assert uploader.unfinished == ["checkpoint 1", "checkpoint 3", "export"]
    go.set()
    assert uploader.close(20) == []
    assert done == [1, 3, "export"]


def test_work_that_is_submitted_again_is_done_after_what_waits(said):
    """The list of exports as it was at the start must not follow that of an export that is made again."""
    uploader, done, go = Uploader(said.append), [], threading.Event()
    uploader.submit("first", lambda: go.wait(20))
    uploader.submit("export", lambda: done.append("export"))
    uploader.submit("list", lambda: done.append("list"))
    uploader.submit("export", lambda: done.append("export made again"))
    go.set()
    assert uploader.close(20) == []
    assert done == ["list", "export made again"]


def test_what_was_given_up_is_made_up_for_by_a_later_one_of_its_kind_alone(said):
    uploader = Uploader(said.append)

    def gone():
        raise FileNotFoundError("x")

    def step(name, work, **how):
        uploader.submit(name, work, **how)
        while uploader.pending:
            pass

    step("checkpoint 1", gone, replacing="checkpoint ")
    step("export 1", gone)
    step("export 2", gone)
    assert (uploader.pending, uploader.unfinished) == ([], ["checkpoint 1", "export 1", "export 2"])
    step("checkpoint 2", lambda: None, replacing="checkpoint ")
    step("export 2", lambda: None)
    assert uploader.close(20) == ["export 1"]


def test_the_end_waits_for_so_long_and_says_what_is_not_uploaded(said):
    uploader, go = Uploader(said.append), threading.Event()
    uploader.submit("a", lambda: go.wait(20))
    uploader.submit("b", lambda: pytest.fail("begun after the end"))
    assert uploader.close(0.05) == ["a", "b"]
    go.set()
    uploader._thread.join(20)


def test_work_whose_files_are_gone_or_wrong_is_given_up_and_said(said):
    uploader = Uploader(said.append)

    def gone():
        raise FileNotFoundError("x")

    def wrong():
        raise ValueError("another job has taken over")

    uploader.submit("a 1", gone)
    uploader.submit("b 1", wrong)
    assert uploader.close(20) == ["a 1", "b 1"]
    assert said == [
        "warning: a 1 is not uploaded: a file is gone (x)",
        "warning: b 1 is not uploaded: another job has taken over",
    ]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def test_a_running_owner_is_refused_and_one_that_fell_silent_is_replaced(store, said):
    first, second = StoreLock(store, said.append, seconds=0.05), StoreLock(store, said.append, seconds=0.2)
    first.take()
    with pytest.raises(ValueError, match=r"belongs to a running job \(pid \d+ on .*--upload"):
        second.take()
    first._ended.set()  # as one whose machine has stopped
    second.take()
    second.release()
    assert store.sizes() == {}


def test_an_owner_that_was_replaced_notices(store, said):
    first = StoreLock(store, said.append, seconds=0.02)
    first.take()
    store.write(LOCK_NAME, b"pid 1 on another machine\n\nothertoken 1\n")
    first._thread.join(20)
    assert first.lost
    assert "pid 1 on another machine" in said[-1]
    first.release()
    assert store.read(LOCK_NAME, 100).startswith(b"pid 1")


def test_the_lock_of_a_dead_process_of_this_machine_is_free_at_once(store, said):
    import subprocess
    import sys

    script = (
        "import sys; from runtime.stores.store import Store; from runtime.stores.store_lock import StoreLock;"
        "StoreLock(Store(sys.argv[1])).take()"
    )
    subprocess.run([sys.executable, "-c", script, str(store)], check=True)
    lock = StoreLock(store, said.append, seconds=100)
    lock.take()
    assert said == []
    lock.release()
