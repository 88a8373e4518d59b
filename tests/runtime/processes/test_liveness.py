"""Processes that end with the one that started them."""

import os
import subprocess
import sys
import time

import pytest

from runtime.processes.liveness import start_time

PARENT = """
import multiprocessing, os, sys, threading, time
from runtime.processes import liveness as processes

def child(parent, by_thread):
    processes.end_or_watch(parent, started_by_thread=by_thread)
    print(os.getpid(), flush=True)
    time.sleep(60)

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    by_thread = sys.argv[2] == "thread"
    start = context.Process(target=child, args=(os.getpid(), by_thread)).start
    if by_thread:
        thread = threading.Thread(target=start)
        thread.start()
        thread.join()
    else:
        start()
    time.sleep(60)
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("starter", ["main", "thread"])
def test_a_child_ends_with_its_killed_parent_and_not_with_the_thread_that_started_it(
    tmp_path, project_root, method, starter
):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen(
        [sys.executable, str(script), method, starter],
        env={**os.environ, "PYTHONPATH": str(project_root)},
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        time.sleep(0.7)
        assert start_time(child) is not None
        parent.kill()
    deadline = time.monotonic() + 5
    while start_time(child) is not None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert start_time(child) is None


def test_one_whose_parent_is_gone_already_ends_at_once(project_root):
    script = "import time; from runtime.processes.liveness import end_or_watch; end_or_watch(999999999); time.sleep(60)"
    began = time.monotonic()
    assert subprocess.run([sys.executable, "-c", script], cwd=project_root).returncode == 137
    assert time.monotonic() - began < 20
