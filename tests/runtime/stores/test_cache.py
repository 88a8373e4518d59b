"""The cache: the least recently used files go first, one in use never, and readers never notice."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time

import pytest

from runtime.stores import cache
from runtime.stores.cache import hold, make_room, one_at_a_time


@pytest.fixture
def files(tmp_path):
    """Five files of 10 bytes, used one second after the other, in two folders, beside files that are no shards."""
    paths = []
    for number in range(5):
        path = tmp_path / f"corpus {number % 2}" / f"train-{number}.tar"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"0123456789")
        os.utime(path, (1000 + number, 500))
        paths.append(path)
    (tmp_path / "corpus 0" / "manifest.json").write_bytes(b"x" * 1000)
    return paths


def left(files):
    return [path.exists() for path in files]


def test_the_least_recently_used_files_of_all_corpora_go_first(files, tmp_path):
    assert make_room(tmp_path, 50, 0)
    assert left(files) == [True] * 5
    assert make_room(tmp_path, 50, 15)
    assert left(files) == [False, False, True, True, True]
    assert (tmp_path / "corpus 0" / "manifest.json").exists()


def test_a_file_in_use_stays_and_a_used_one_goes_last(files, tmp_path):
    held = hold(files[1])
    used = hold(files[0])
    used.close()
    assert make_room(tmp_path, 30, 0)
    assert left(files) == [True, True, False, False, True]
    assert not make_room(tmp_path, 5, 0)
    assert left(files) == [False, True, False, False, False]
    held.close()
    assert make_room(tmp_path, 5, 0)
    assert left(files) == [False] * 5
    assert hold(files[1]) is None


def test_the_time_of_change_by_which_readers_know_a_file_is_kept(files):
    before = files[0].stat().st_mtime_ns
    hold(files[0]).close()
    assert files[0].stat().st_mtime_ns == before
    assert time.time() - files[0].stat().st_atime < 100


def test_another_process_keeps_its_file_in_use_as_long_as_it_lives(files, tmp_path):
    script = (
        "import sys; from pathlib import Path; from runtime.stores.cache import hold; file = hold(Path(sys.argv[1]));"
        "print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(files[0])], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    assert not make_room(tmp_path, 5, 0)
    assert left(files) == [True, False, False, False, False]
    process.kill()
    process.wait()
    assert make_room(tmp_path, 5, 0)


def test_a_network_file_system_locks_only_what_is_open_for_writing(files, tmp_path, monkeypatch):
    flock = fcntl.flock

    def nfs(file, kind):
        number = file if isinstance(file, int) else file.fileno()
        if kind & fcntl.LOCK_EX and fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        flock(file, kind)

    monkeypatch.setattr(cache.fcntl, "flock", nfs)
    held = hold(files[0])
    assert not make_room(tmp_path, 5, 0)
    assert left(files) == [True, False, False, False, False]
    held.close()


def test_where_it_cannot_be_known_no_file_is_removed_that_may_be_in_use(files, tmp_path, monkeypatch):
    def none(file, kind):
        if kind & fcntl.LOCK_NB:
            raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(cache.fcntl, "flock", none)
    assert not make_room(tmp_path, 5, 0)
    assert left(files) == [True] * 5


def test_only_one_at_a_time_fetches_a_file(tmp_path):
    inside, most, lock = [], [], threading.Lock()

    def fetch():
        with one_at_a_time(tmp_path / "train-0.tar"):
            with lock:
                inside.append(1)
                most.append(len(inside))
            time.sleep(0.002)
            with lock:
                inside.pop()

    threads = [threading.Thread(target=fetch) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8
    assert list(tmp_path.iterdir()) == []
    assert cache.DEFAULT_GB > 0
