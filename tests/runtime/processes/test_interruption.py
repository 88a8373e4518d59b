"""Being asked to stop."""

import ast
import math
import os
import signal
import subprocess
import sys
import time

import pytest

from runtime.processes.interruption import (
    MARKER_NAME,
    Interrupted,
    Interruption,
    arm_watchdog,
    disarm_watchdog,
    forget_interruption,
    stopping_at_once,
)
from runtime.processes.liveness import is_alive, start_time

WAITING = """
import sys, time
from runtime.processes.interruption import Interruption
asked = Interruption()
asked.install()
print("ready", flush=True)
while True:
    time.sleep(0.05)
    if asked.requested():
        print(asked.reason, flush=True)
        if "once" in sys.argv: sys.exit(75)
        asked.requested = lambda: False
"""


def waiting(project_root, *arguments):
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING, *arguments], cwd=project_root, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


def test_the_main_rank_removes_the_file_of_an_earlier_interruption(tmp_path, monkeypatch):
    (tmp_path / MARKER_NAME).write_text("{}")
    for rank, is_there in (("1", True), ("0", False), ("0", False)):
        for name, value in {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2"}.items():
            monkeypatch.setenv(name, value)
        forget_interruption(tmp_path)
        assert (tmp_path / MARKER_NAME).exists() == is_there
    forget_interruption(tmp_path / "missing")
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_is_noted_and_named(project_root, number):
    process = waiting(project_root, "once")
    process.send_signal(number)
    assert process.stdout.readline() == f"{number.name}\n"
    assert process.wait(20) == 75


def test_a_second_signal_ends_at_once(project_root):
    process = waiting(project_root)
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "SIGTERM\n"
    time.sleep(1.2)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 128 + signal.SIGINT


def test_a_signal_that_a_launcher_passes_on_counts_once(monkeypatch):
    """Ctrl-C reaches the ranks from the terminal and from torchrun within milliseconds: they still save."""
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    asked = Interruption()
    asked._on_signal(signal.SIGINT, None)
    asked._on_signal(signal.SIGTERM, None)
    assert (asked.reason, ended) == ("SIGINT", [])


def test_the_launcher_s_death_is_a_wish_to_stop_and_a_signal_after_it_the_first(monkeypatch):
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    asked = Interruption()
    assert not asked.requested()
    asked._ancestors = [(os.getpid(), "the start time of a process that had this pid before")]
    assert asked.requested()
    assert asked.reason == "the launcher is gone"
    asked._on_signal(signal.SIGTERM, None)
    assert ended == []


def test_launchers_among_the_ancestors_are_found(project_root, tmp_path):
    script = tmp_path / "torchrun_like.py"
    script.write_text(
        "import subprocess, sys\n"
        "code = 'import os; from runtime.processes.interruption import launchers_above as f; print(f(os.getpid()))'\n"
        f"print(subprocess.check_output([sys.executable, '-c', code], text=True, cwd={str(project_root)!r}))\n"
    )
    named = tmp_path / "torchrun"
    named.write_text(script.read_text())
    process = subprocess.run([sys.executable, str(named)], capture_output=True, text=True, check=True)
    assert len(ast.literal_eval(process.stdout.strip())) >= 1


@pytest.mark.parametrize("seconds", [0.0, 1e30, math.inf])
def test_a_timeout_may_be_as_long_as_one_likes(seconds):
    arm_watchdog(seconds)
    disarm_watchdog()


def test_a_pid_used_again_is_another_process():
    own = start_time(os.getpid())
    assert is_alive(os.getpid(), own)
    assert not is_alive(os.getpid(), str(int(own) + 1))
    assert start_time(1 << 30) is None


def test_a_shell_whose_command_names_a_launcher_is_none(project_root):
    code = "import os; from runtime.processes.interruption import launchers_above as f; print(len(f(os.getpid())))"
    printed = [
        subprocess.run(
            ["bash", "-c", f"{sys.executable} -c '{code}'; : {word}"],
            cwd=project_root, capture_output=True, text=True, check=True,
        ).stdout
        for word in ("nothing", "torchrun")
    ]  # fmt: skip
    assert int(printed[0]) == int(printed[1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_work_that_survives_a_kill_stops_where_it_is(number):
    before = signal.getsignal(number)

    def work():
        with stopping_at_once():
            os.kill(os.getpid(), number)
            time.sleep(10)

    with pytest.raises(Interrupted, match=number.name) as caught:
        work()
    assert not caught.value.together  # the other ranks are elsewhere
    assert signal.getsignal(number) == before
