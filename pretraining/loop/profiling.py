"""`--profile N`: where the time of N updates goes, by stage, and a trace of every operation.

The loop is left as it is: its stream and its engine are wrapped, and the wrappers note when a stage begins and ends.
A stage ends when the device has done its work, which the loop does not wait for otherwise: a profiled update is
somewhat slower. Communication that an engine starts within a pass or a step counts as part of that stage.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from runtime.files.whole_files import whole_file, write_text
from runtime.plurals import counted
from runtime.processes.ranks import Ranks

WARM_UPDATES = 10  # before the first profiled one: caches are filled
STAGES = ("data", "forward", "backward", "optimizer")
OTHER = "exchange and other"
TABLE_NAME, TRACE_NAME = "profile.txt", "profile-trace.json"


class Profiler:
    """Profiles `num_updates` updates of a loop, from the end of the last warm one on; 0: none.

    It waits while the loop `is_settling`: a compilation that auto decides on, and the measurement of its gain.
    """

    def __init__(
        self,
        num_updates: int,
        directory: Path,
        ranks: Ranks,
        device: torch.device,
        *,
        is_settling: Callable[[], bool] = lambda: False,
    ) -> None:
        self.num_updates, self.directory, self.ranks, self.device = num_updates, directory, ranks, device
        self._is_settling, self._first = is_settling, 0
        self.seconds = dict.fromkeys((*STAGES, OTHER), 0.0)
        self.table: str | None = None  # once the updates are profiled
        self._updates = 0
        self._started = 0.0
        self._trace: Any = None

    def wrapped(self, engine: Any, stream: Any) -> tuple[Any, Any]:
        """Engine and stream as the loop is to use them."""
        return (_Engine(engine, self), _Stream(stream, self)) if self.num_updates else (engine, stream)

    def missed(self) -> str | None:
        """A warning once the training has ended, where it was too short."""
        if self.table is not None or not self.num_updates:
            return None
        return (
            f"--profile {self.num_updates}: nothing was profiled, this start made {counted(self._updates, 'update')} "
            f"and {WARM_UPDATES + self.num_updates} are needed"
        )

    def close(self) -> None:
        """End a profile that the run's end cut off; nothing of it is written."""
        if self._trace is not None:
            trace, self._trace = self._trace, None
            trace.__exit__(None, None, None)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the block's time towards a stage."""
        if self._trace is None:
            yield
            return
        began = time.perf_counter()
        with record_function(f"stage: {name}"):
            yield
            self._wait()
        self.seconds[name] += time.perf_counter() - began

    def update_ended(self) -> None:
        self._updates += 1
        if self._trace is not None and self._updates == self._first + self.num_updates:
            self._end()
        elif self._trace is None and self.table is None and self._updates >= WARM_UPDATES and not self._is_settling():
            self._first = self._updates
            self._begin()

    def _begin(self) -> None:
        kinds = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if self.device.type == "cuda" else [])
        self._trace = profile(activities=kinds)
        self._trace.__enter__()
        self._wait()
        self._started = time.perf_counter()

    def _end(self) -> None:
        elapsed = time.perf_counter() - self._started
        self.seconds[OTHER] = max(0.0, elapsed - sum(self.seconds[name] for name in STAGES))
        trace = self._trace
        self.close()
        self.table = stage_table(self.seconds, self.num_updates)
        if self.ranks.is_main:
            with whole_file(self.directory / TRACE_NAME) as file:
                trace.export_chrome_trace(file.name)
            write_text(self.directory / TABLE_NAME, self.table + "\n")
            print(f"{self.table}\ntrace: {self.directory / TRACE_NAME} (chrome://tracing or ui.perfetto.dev)")

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def stage_table(seconds: dict[str, float], num_updates: int) -> str:
    """Seconds an update and share of each stage."""
    whole = sum(seconds.values()) or 1.0
    lines = [f"{'stage':<20} {'s an update':>12} {'share':>6}   ({counted(num_updates, 'update')} of this rank)"]
    lines += [f"{name:<20} {spent / num_updates:>12.4f} {spent / whole:>6.1%}" for name, spent in seconds.items()]
    return "\n".join([*lines, f"{'sum':<20} {whole / num_updates:>12.4f} {1:>6.1%}"])


class _Engine:
    """An engine whose passes and steps are stages; everything else is the engine's own."""

    def __init__(self, engine: Any, profiler: Profiler) -> None:
        self._engine, self._profiler = engine, profiler

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def __call__(self, **inputs: Any) -> Any:
        with self._profiler.stage("forward"):
            return self._engine(**inputs)

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        with self._profiler.stage("backward"):
            self._engine.backward(loss, last=last)

    def step(self, learning_rate: float) -> torch.Tensor:
        with self._profiler.stage("optimizer"):
            norm: torch.Tensor = self._engine.step(learning_rate)
        self._profiler.update_ended()
        return norm


class _Stream:
    """A stream whose batches are waited for in a stage."""

    def __init__(self, stream: Any, profiler: Profiler) -> None:
        self._stream, self._profiler = stream, profiler

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def batches(self, first_row: int, num_workers: int = 0) -> Iterator[Any]:
        batches = self._stream.batches(first_row, num_workers)
        while True:
            with self._profiler.stage("data"):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch
