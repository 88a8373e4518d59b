"""Starts the project's commands without repeating their imports: each is forked from a process that has them loaded.

A command is then a process of its own as under `python launch/pretrain.py ...`: it has a pid, a session, limits, a
working directory, an environment and an exit status, and can be killed. Requests and answers are lines of JSON.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import resource
import runpy
import sys
import time
from typing import Any

if __name__ == "__main__":
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import torch.distributed
import transformers

import finetuning.classification
import finetuning.qa
import gap.study.study
import launch.build_shards
import launch.pretrain
import launch.sweep
from runtime.processes import fault_points

LOADED = (torch, transformers, finetuning, gap, launch)  # what a command need not import again


def serve() -> dict[str, Any]:
    """Answer requests until the input ends; returns only in a new process, with what it is to run."""
    usages: dict[int, Any] = {}
    with contextlib.redirect_stdout(sys.stderr):  # what libraries say then is no answer
        for name in sys.argv[1:]:
            importlib.import_module(name)
    gc.freeze()  # else the garbage collector of each child writes to all of this memory and so copies it
    for line in sys.stdin:
        request = json.loads(line)
        if "argv" in request:
            pid = os.fork()
            if not pid:
                return dict(request)
            answer: dict[str, Any] = {"pid": pid}
        else:
            answer = _wait(request["wait"], request["seconds"], usages)
        print(json.dumps(answer), flush=True)
    os._exit(0)


def _wait(pid: int, seconds: float, ended: dict[int, Any]) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while pid not in ended and time.monotonic() < deadline:
        number, status, usage = os.wait4(pid, os.WNOHANG)
        if number:
            ended[pid] = {
                "status": os.waitstatus_to_exitcode(status),
                "peak_kilobytes": usage.ru_maxrss,
                "cpu_seconds": usage.ru_utime + usage.ru_stime,
            }
        else:
            time.sleep(0.01)
    return dict(ended.get(pid, {"status": None}))


def become(request: dict[str, Any]) -> None:
    """Run a script in this process as the interpreter would."""
    os.setsid()
    # Tiny models gain nothing from a second thread, and threads that wait for each other cost a busy machine much.
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[os.getpid() % len(cores)]})
    os.chdir(request["folder"])
    for source, target in ((os.open(os.devnull, os.O_RDONLY), 0), (_log(request["log"]), 1)):
        os.dup2(source, target)
    os.dup2(1, 2)
    for name, most in request["limits"].items():
        resource.setrlimit(getattr(resource, name), (most, most))
    os.environ.update(request["variables"])
    fault_points._specification = os.environ.get("FAULT_POINT", "")
    sys.argv = list(request["argv"])
    sys.path[0] = os.path.dirname(sys.argv[0])
    sys.stdin = os.fdopen(0, closefd=False)
    runpy.run_path(sys.argv[0], run_name="__main__")


def _log(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)


if __name__ == "__main__":
    become(serve())
