"""One run to one output directory."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from runtime.files import lock as lock_module
from runtime.files.lock import Ownership, is_dead
from runtime.processes.liveness import pid_space, start_time

HOLDER = """
import os, sys, time
from pathlib import Path
from runtime.files.lock import Ownership
lock = Ownership(Path(sys.argv[1]))
lock.take()
if sys.argv[2] == "with a forked child" and os.fork() == 0:
    time.sleep(60)
if sys.argv[2] == "with a child that keeps the lock":
    os.set_inheritable(lock._lock._descriptor, True)
    os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(project_root):
    started = []

    def hold(directory, how="alone"):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(directory), how],
            cwd=project_root,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def kill(owner):
    owner.send_signal(signal.SIGKILL)
    owner.wait()


def test_the_second_refuses_at_once_and_names_the_owner(tmp_path, holder):
    owner = holder(tmp_path)
    before = time.monotonic()
    with pytest.raises(ValueError, match=rf"pid {owner.pid} on .*\): .*use another --output_dir"):
        Ownership(tmp_path).take()
    assert time.monotonic() - before < 1


@pytest.mark.parametrize("how", ["alone", "with a forked child", "with a child that keeps the lock"])
def test_a_killed_owner_s_lock_is_free_whatever_it_left_running(tmp_path, holder, caplog, how):
    owner = holder(tmp_path, how)
    kill(owner)
    lock = Ownership(tmp_path)
    before = time.monotonic()
    lock.take()
    assert time.monotonic() - before < (5 if "keeps" in how else 1)
    assert re.fullmatch(rf"pid {os.getpid()} on \S+ since .*\n.*\n", lock.path.read_text())
    assert (f"(pid {owner.pid} on" in caplog.text) == ("keeps" in how)
    with pytest.raises(ValueError, match=f"pid {os.getpid()} on"):
        Ownership(tmp_path).take()
    lock.release()


def test_of_many_that_take_over_a_dead_owner_s_lock_one_gets_it(tmp_path, holder):
    kill(holder(tmp_path, "with a child that keeps the lock"))
    with ThreadPoolExecutor(4) as pool:
        others = list(pool.map(lambda _: _try_in_a_process(tmp_path), range(4)))
    assert sorted(others) == ["held", "refused", "refused", "refused"]


def _try_in_a_process(directory):
    script = """
import sys, time
from pathlib import Path
from runtime.files.lock import Ownership
try:
    Ownership(Path(sys.argv[1])).take()
except ValueError:
    print("refused")
else:
    print("held", flush=True)
    time.sleep(6)
"""
    command = [sys.executable, "-c", script, str(directory)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_released_it_can_be_taken_again(tmp_path):
    first, second = Ownership(tmp_path / "new"), Ownership(tmp_path / "new")
    first.take()
    with pytest.raises(ValueError, match="belongs to a running job"):
        second.take()
    first.release()
    second.take()
    second.release()
    second.release()


def test_a_lock_that_another_thread_took_is_held(tmp_path):
    owner = Ownership(tmp_path)
    thread = threading.Thread(target=owner.take)
    thread.start()
    thread.join()
    with pytest.raises(ValueError, match=f"pid {os.getpid()} on"):
        Ownership(tmp_path).take()
    owner.release()


def test_only_a_process_of_this_machine_can_be_known_to_be_dead(monkeypatch):
    gone = "pid 999999999 on this-machine since now"
    assert is_dead(f"{gone}\n{pid_space()} 12\n")
    assert is_dead(f"pid {os.getpid()} on this-machine since now\n{pid_space()} 12\n")  # the pid was given anew
    assert not is_dead(f"pid {os.getpid()} on this-machine since now\n{pid_space()} {start_time(os.getpid())}\n")
    for record in (f"{gone}\nanother-boot/pid:[1] 12\n", gone, f"{gone}\n{pid_space()}\n", "another process", ""):
        assert not is_dead(record)
    monkeypatch.setattr(lock_module, "pid_space", lambda: "")  # a system that does not tell
    assert not is_dead(f"{gone}\n{pid_space()} 12\n")


@pytest.mark.parametrize("kind", ["link", "link to nothing", "text", "folder", "hard link"])
def test_what_is_no_lock_is_refused_and_stays_as_it_is(tmp_path, kind):
    directory, precious = tmp_path / "run", tmp_path / "precious.txt"
    path = directory / "run.lock"
    directory.mkdir()
    precious.write_text("years of work\n")
    if kind == "folder":
        path.mkdir()
    elif kind == "hard link":
        path.hardlink_to(precious)
    elif kind == "text":
        path.write_text("years of work\n")
    else:
        path.symlink_to(precious if kind == "link" else tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"run\.lock is not a .*move it away"):
        Ownership(directory).take()
    assert precious.read_text() == "years of work\n"
    assert not (tmp_path / "nothing").exists()
    assert kind != "text" or path.read_text() == "years of work\n"
