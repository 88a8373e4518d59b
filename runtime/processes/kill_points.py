"""Fault points: where a test lets the process die as by `kill -9`."""

from __future__ import annotations

import os
import signal

VARIABLE = "SHARDS_FAULT"


class FaultPoints:
    """Counts how often each named point is passed; `SHARDS_FAULT=NAME:N` kills the process at the Nth passage."""

    def __init__(self) -> None:
        self.passed: dict[str, int] = {}

    def reach(self, name: str) -> None:
        """Pass a point."""
        wanted = os.environ.get(VARIABLE)
        if not wanted:
            return
        self.passed[name] = self.passed.get(name, 0) + 1
        if wanted == f"{name}:{self.passed[name]}":
            os.kill(os.getpid(), signal.SIGKILL)
