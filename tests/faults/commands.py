"""Runs the project's commands for tests of faults: output, exit status, and processes left running."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pretraining_runs as runs

ROOT = Path(__file__).resolve().parents[2]
PRETRAIN, BUILD, QA = "launch/pretrain.py", "launch/build_shards.py", "finetuning/qa.py"
LONGEST_SECONDS = 120.0
MOST_SECONDS = 20.0  # of CPU, where a row says "within seconds": a busy machine does not change them
DONE, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 75


@dataclass
class Command:
    """A command that was started: a process, the first of its session."""

    pid: int
    log: Path
    server: CommandServer
    peak_kilobytes: int = 0
    cpu_seconds: float = 0.0

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait(self, seconds: float = LONGEST_SECONDS) -> int | None:
        """The exit status, negative for a signal; None when it has not ended within `seconds`."""
        answer = self.server.ask({"wait": self.pid, "seconds": seconds})
        self.peak_kilobytes = answer.get("peak_kilobytes", 0)
        self.cpu_seconds = answer.get("cpu_seconds", 0.0)
        return answer["status"]

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)

    def session(self) -> list[int]:
        """Running processes of its session, itself included."""
        return [pid for pid, (state, session) in _processes() if session == self.pid and state not in "ZX"]


def _processes() -> list[tuple[int, tuple[str, int]]]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        found.append((int(entry.name), (fields[0], int(fields[3]))))
    return found


@dataclass
class CommandServer:
    """The process that commands are forked from."""

    process: subprocess.Popen[str]
    started: list[Command] = field(default_factory=list)

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return dict(json.loads(self.process.stdout.readline()))

    def start(
        self,
        script: str,
        argv: Sequence[Any],
        log: Path,
        *,
        folder: Path | None = None,
        limits: Mapping[str, int] | None = None,
        **variables: str,
    ) -> Command:
        """Start `script`; what it prints is added to `log`. `variables` are of its environment."""
        log.parent.mkdir(parents=True, exist_ok=True)
        request = {
            "argv": [str(ROOT / script), *map(str, argv)],
            "folder": str(folder or log.parent),
            "log": str(log),
            "limits": dict(limits or {}),
            "variables": variables,
        }
        command = Command(self.ask(request)["pid"], log, self)
        self.started.append(command)
        return command

    def run(self, script: str, argv: Sequence[Any], log: Path, status: int | None = DONE, **more: Any) -> str:
        """Run a command to its end and return what it printed this time. Fails unless it ends with `status`."""
        before = len(log.read_bytes()) if log.exists() else 0
        command = self.start(script, argv, log, **more)
        ended = command.wait()
        said = log.read_bytes()[before:].decode(errors="replace")
        assert ended == status, f"exit status {ended}:\n{said[-4000:]}"
        return said

    def pretrain(
        self,
        shards: Path,
        output: Path,
        options: Mapping[str, Any] | None = None,
        status: int | None = DONE,
        **more: Any,
    ) -> str:
        argv = runs.arguments(shards, output, {"report_to": "none", **(options or {})})
        return self.run(PRETRAIN, argv, runs.log_of(output), status, **more)

    def start_pretraining(self, shards: Any, output: Path, options: Mapping[str, Any], **more: Any) -> Command:
        return self.start(PRETRAIN, runs.arguments(shards, output, options), runs.log_of(output), **more)

    def pretrain_ranks(
        self,
        number: int,
        shards: Path,
        output: Path,
        options: Mapping[str, Any],
        status: int | None = DONE,
        **more: str,
    ) -> str:
        """Pretrain on several ranks, each started as a launcher would; returns what all of them printed."""
        world = {"WORLD_SIZE": str(number), "LOCAL_WORLD_SIZE": str(number), "MASTER_ADDR": "127.0.0.1"}
        world |= {"MASTER_PORT": str(runs.free_port()), **more}
        ranks = [
            self.start(
                PRETRAIN,
                runs.arguments(shards, output, options),
                output.with_name(f"{output.name}-{rank}.log"),
                RANK=str(rank),
                LOCAL_RANK=str(rank),
                **world,
            )
            for rank in range(number)
        ]
        statuses = [rank.wait() for rank in ranks]
        said = "".join(rank.said for rank in ranks)
        assert statuses == [status] * number, f"{statuses}:\n{said[-4000:]}"
        return said

    def refused(
        self, script: str, argv: Sequence[Any], log: Path, *parts: str, status: int = REFUSED, **more: Any
    ) -> str:
        """A refusal: its status, no traceback, and every one of `parts` in the message."""
        said = self.run(script, argv, log, status, **more)
        assert "Traceback" not in said, said
        for part in parts:
            assert part in said, f"{part!r} is not in:\n{said[-3000:]}"
        return said

    def close(self) -> None:
        """Kill the remaining processes, the server last."""
        sessions = {command.pid for command in self.started}
        for pid, (_, session) in _processes():
            if session in sessions:
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()


def start_server(preloaded: Sequence[str] = ()) -> CommandServer:
    """The server; `preloaded` are modules that commands find imported, besides those that all need."""
    variables = runs.environment({"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""})
    command = [sys.executable, str(ROOT / "tests" / "faults" / "command_server.py"), *preloaded]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=variables
    )
    return CommandServer(process)


def soon(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    """Poll until `condition()` is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.01)
    raise AssertionError(f"no {what} within {seconds} s")
