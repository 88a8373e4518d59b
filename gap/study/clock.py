"""The time of a study by part: pretraining, cells and overhead."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PROCESS = Path("/proc/self/stat")


@dataclass
class Clock:
    """Wall time since it was made (or since its process started), and how much of it went into the series."""

    started: float = field(default_factory=time.perf_counter)
    pretraining_seconds: float = 0.0

    @staticmethod
    def of_process() -> Clock:
        """A clock that counts from the start of this process, imports included (Linux; elsewhere from now)."""
        now = time.perf_counter()
        if not PROCESS.is_file():
            return Clock(now)
        ticks = int(PROCESS.read_text(encoding="utf-8").rpartition(")")[2].split()[19])  # since boot; see proc(5)
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
        return Clock(now - max(0.0, age))

    @contextmanager
    def pretraining(self) -> Iterator[None]:
        """Counts the time in the block as pretraining."""
        mark = time.perf_counter()
        yield
        self.pretraining_seconds += time.perf_counter() - mark

    def line(self, busy_seconds: float, workers: int) -> str:
        """Total, the series, cells (training and evaluating, over all workers) and the rest, which is overhead."""
        total, cells = time.perf_counter() - self.started, busy_seconds / workers
        rest = max(0.0, total - self.pretraining_seconds - cells)
        return (
            f"{total:.0f} s in total: {self.pretraining_seconds:.0f} s shards and pretraining, {cells:.0f} s cells "
            f"(on {workers} worker{'s' * (workers > 1)}), {rest:.0f} s ({rest / total:.1%}) everything else"
        )
