"""One run to one output directory."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from pretraining.ownership import Ownership, is_dead

HOLDER = """
import os, sys, time
from pathlib import Path
from pretraining.ownership import Ownership
lock = Ownership(Path(sys.argv[1]))
lock.take()
if sys.argv[2] == "with a worker" and os.fork() == 0:
    time.sleep(1.5)  # a data worker inherits the lock and outlives its parent a little
    os._exit(0)
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(project_root):
    started = []

    def hold(directory, how="alone"):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(directory), how], cwd=project_root, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in started:
        process.kill()
        process.wait()


def test_the_second_refuses_at_once_and_names_the_owner(tmp_path, holder):
    owner = holder(tmp_path)
    before = time.monotonic()
    with pytest.raises(ValueError, match=rf"pid {owner.pid} on .*use another --output_dir"):
        Ownership(tmp_path).take()
    assert time.monotonic() - before < 10


@pytest.mark.parametrize("how", ["alone", "with a worker"])
def test_a_killed_owner_s_lock_is_recovered(tmp_path, holder, how):
    owner = holder(tmp_path, how)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    lock = Ownership(tmp_path)
    lock.take()
    assert re.fullmatch(rf"pid {os.getpid()} on \S+ since .*\n", lock.path.read_text())
    lock.release()


def test_released_it_can_be_taken_again(tmp_path):
    first, second = Ownership(tmp_path / "new"), Ownership(tmp_path / "new")
    first.take()
    with pytest.raises(ValueError, match="belongs to a running job"):
        second.take()
    first.release()
    second.take()
    second.release()
    second.release()


def test_only_a_process_of_this_machine_can_be_known_to_be_dead():
    assert not is_dead("pid 999999999 on another-machine since now")
    assert not is_dead("another process")
    assert not is_dead("")
