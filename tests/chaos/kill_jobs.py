"""A command that is to be killed: under a real launcher, or as ranks forked from a process that has the imports done.

Under a launcher a start takes from ten seconds to minutes of a busy machine, nearly all of it imports; forked, about
one. Both run the same script with the same environment.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pretraining_runs as runs

from tests.faults.commands import Command, CommandServer, start_server

PRELOADED = ("pretraining.engines.deepspeed_engine",)
_servers: list[CommandServer] = []


class Job(Protocol):
    """The processes of one start of a command."""

    def poll(self) -> int | None:
        """The exit status once all that was started is over; of several ranks the first that is not zero."""

    def members(self) -> list[int]:
        """Its running processes, data workers included."""

    def launcher(self) -> list[int]: ...

    def ranks(self) -> dict[int, int]:
        """Pid by rank."""

    def stop(self) -> None:
        """Kill what is left."""


class LaunchedJob:
    """A command in a process of its own, which may start others."""

    def __init__(self, command: Sequence[str], log: Path, folder: Path, variables: Mapping[str, str]) -> None:
        self.process: subprocess.Popen[Any] = runs.spawn(command, log, folder, variables)

    def poll(self) -> int | None:
        return self.process.poll()

    def members(self) -> list[int]:
        self.process.poll()
        return runs.members(self.process.pid)

    def launcher(self) -> list[int]:
        return [self.process.pid]

    def ranks(self) -> dict[int, int]:
        return {rank: pid for pid in self.members() if (rank := rank_of(pid)) is not None and pid != self.process.pid}

    def stop(self) -> None:
        runs.stop_session(self.process)


class ForkedJob:
    """The ranks of a script, without a launcher."""

    def __init__(self, argv: Sequence[str], log: Path, folder: Path, number: int) -> None:
        if not _servers:
            _servers.append(start_server(PRELOADED))
        world = {"WORLD_SIZE": str(number), "LOCAL_WORLD_SIZE": str(number), "MASTER_ADDR": "127.0.0.1"}
        world["MASTER_PORT"] = str(runs.free_port())
        self.commands: list[Command] = [
            _servers[0].start(argv[0], argv[1:], log, folder=folder, RANK=str(rank), LOCAL_RANK=str(rank), **world)
            for rank in range(number)
        ]
        self.statuses: dict[int, int] = {}

    def poll(self) -> int | None:
        for rank, command in enumerate(self.commands):
            if rank not in self.statuses and (status := command.wait(0.002)) is not None:
                self.statuses[rank] = status
        if len(self.statuses) < len(self.commands):
            return None
        return next((status for status in self.statuses.values() if status), 0)

    def members(self) -> list[int]:
        self.poll()
        return [pid for command in self.commands for pid in command.session()]

    def launcher(self) -> list[int]:
        return []

    def ranks(self) -> dict[int, int]:
        return {rank: command.pid for rank, command in enumerate(self.commands) if rank not in self.statuses}

    def stop(self) -> None:
        for pid in self.members():
            os.kill(pid, 9)
        while self.poll() is None:
            time.sleep(0.01)


def rank_of(pid: int) -> int | None:
    """The rank of a process that a launcher started itself; its data workers have their rank's variables too."""
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        parent = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        of_parent = Path(f"/proc/{parent}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    named = [next((int(each[5:]) for each in each_of if each.startswith(b"RANK=")), None)
             for each_of in (variables, of_parent)]  # fmt: skip
    return named[0] if named[1] is None else None


def close_servers() -> None:
    while _servers:
        _servers.pop().close()
