"""Run the cells of a sweep, as many at once as there are devices; finished cells are never run again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from finetuning.run.finished import RESULTS_NAME, read_results
from finetuning.run.option_checks import options_class
from finetuning.sweep.cell_file import CELL_NAME, read_record
from finetuning.sweep.metric import require_given_metric
from finetuning.sweep.options import state_of
from finetuning.sweep.sweep import Sweep, SweepCell
from finetuning.sweep.table import CellOutcome
from runtime.files.whole_files import write_json
from runtime.machine import usable_cores
from runtime.model_places import forget_places
from runtime.options.command_line import as_arguments
from runtime.processes.interruption import EXIT_CODE
from runtime.processes.liveness import end_with_parent, is_alive, start_time
from runtime.processes.ranks import without_launcher

PROJECT_ROOT = Path(__file__).resolve().parents[2]
SCHEMA_VERSION = 1
POLL_SECONDS = 0.2
GRACE_SECONDS = 30.0
LOG_TAIL_LINES = 5
SMOKE_EPOCHS = 1


@dataclass
class Running:
    """A cell's process and its device."""

    cell: SweepCell
    process: subprocess.Popen[bytes]
    device: str | None
    directory: Path
    started: float = field(default_factory=time.monotonic)


def cell_directory(output_dir: Path, cell: SweepCell) -> Path:
    """A cell's directory, named by the start of its fingerprint."""
    return output_dir / "cells" / cell.fingerprint[:16]


def command(recipe: str, options: Mapping[str, Any], directory: Path) -> list[str]:
    """The argument list that runs one cell, without a shell."""
    script = str(PROJECT_ROOT / "finetuning" / f"{recipe}.py")
    return [sys.executable, script, *as_arguments(options, options_class(recipe)), "--output_dir", str(directory)]


def outcome(directory: Path, cell: SweepCell) -> CellOutcome:
    """The outcome in a cell's directory: finished only with this cell's fingerprint and an all_results.json."""
    record = read_record(directory)
    if record is None:
        return CellOutcome("waiting", {})
    if record.fingerprint != cell.fingerprint:
        raise ValueError(f"{directory}: belongs to another cell; use another --output_dir, or move the directory away")
    if record.status == "finished" and (directory / RESULTS_NAME).is_file():
        results = read_results(directory)
        scores = {name: value for name, value in results.items() if isinstance(value, int | float)}
        metric = f"eval_{results['metric']}" if "metric" in results else None
        return CellOutcome(str(results.get("status", "done")), scores, float(results.get("seconds") or 0.0), metric)
    return CellOutcome("failed" if record.status == "failed" else "waiting", {})


def smoke_cell(cell: SweepCell, samples: int) -> SweepCell:
    """The same cell for one epoch of at most `samples` training examples (0: as many as the cell's own)."""
    shorter: dict[str, Any] = {"num_train_epochs": SMOKE_EPOCHS, "save_model": False}
    if samples:
        for name in ("max_train_samples", "max_eval_samples"):
            own = cell.options.get(name)
            shorter[name] = samples if own is None else min(own, samples)
    return replace(cell, options={**cell.options, **shorter})


class Runner:
    """Keeps every device busy until no cell is left; after a signal it lets the running ones save and stops."""

    def __init__(self, sweep: Sweep, devices: Sequence[str | None], say: Callable[[str], None]) -> None:
        self.sweep, self.say = sweep, say
        self.free, self.num_devices = list(devices), len(devices)
        self.running: list[Running] = []
        self.stopping = False
        self.has_metric = False  # a cell has finished with the score that the sweep is sorted by

    def stop(self, *_: Any) -> None:
        """Signal handler: start no more cells and pass the request on."""
        self.stopping = True

    def run(self, cells: Iterable[SweepCell], directory_of: Callable[[SweepCell], Path]) -> list[SweepCell]:
        """Run unfinished cells; returns those that failed. Cells that failed in an earlier call are tried again."""
        waiting = [cell for cell in cells if outcome(directory_of(cell), cell).status in ("waiting", "failed")]
        failed: list[SweepCell] = []
        total = len(waiting)
        try:
            while (waiting or self.running) and not self.stopping:
                while waiting and self.free:
                    self.running.append(self._start(waiting[0], directory_of(waiting[0])))
                    waiting.pop(0)
                time.sleep(POLL_SECONDS)
                for running in [running for running in self.running if running.process.poll() is not None]:
                    self.running.remove(running)
                    self.free.append(running.device)
                    if not self._finish(running):
                        failed.append(running.cell)
                    self.say(f"{total - len(waiting) - len(self.running)}/{total} {self._progress_line(running)}")
        finally:
            self._end_running()
        return failed

    def _start(self, cell: SweepCell, directory: Path) -> Running:
        """ValueError if a file changed since the sweep was read: the cell's fingerprint would be wrong."""
        forget_places()
        changed = [name for name, state in cell.files.items() if state_of(name) != state]
        if changed:
            raise ValueError(
                f"{changed[0]} changed or disappeared since the sweep began: restore it, or run the same command again "
                "(cells that name it then run anew, and the other finished cells stay)"
            )
        directory.mkdir(parents=True, exist_ok=True)
        wait_for_live_cell(directory, self.say)
        device = self.free.pop(0)
        environment = without_launcher() | {"PYTHONUNBUFFERED": "1"}  # keeps a killed cell's last lines
        if device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = device
        if self.num_devices > 1:
            threads = max(1, usable_cores() // self.num_devices)
            environment.setdefault("OMP_NUM_THREADS", str(threads))
        _record(directory, cell, self.sweep.recipe, status="running")
        with (directory / "log.txt").open("ab") as log:
            process = subprocess.Popen(
                command(self.sweep.recipe, cell.options, directory),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # closing the terminal ends only the sweep, if anything
                preexec_fn=partial(end_with_parent, os.getpid(), signal.SIGTERM),  # a sweep is killed: its cell saves
            )
        _record(directory, cell, self.sweep.recipe, status="running", pid=process.pid, start=start_time(process.pid))
        return Running(cell, process, device, directory)

    def _finish(self, running: Running) -> bool:
        """Record how a cell ended; False if it failed. A cell that was asked to stop stops the whole sweep.

        ValueError if the first to finish lacks the score that the sweep is sorted by: the others would lack it too.
        """
        code = running.process.returncode
        if code == EXIT_CODE:
            self.stopping = True
            _record(running.directory, running.cell, self.sweep.recipe, status="interrupted")
            return True
        whole = code == 0 and (running.directory / "all_results.json").is_file()
        _record(
            running.directory,
            running.cell,
            self.sweep.recipe,
            status="finished" if whole else "failed",
            exit_code=code,
            seconds=time.monotonic() - running.started,
        )
        if whole and not self.has_metric:
            require_given_metric(self.sweep.metric, read_results(running.directory), running.directory)
            self.has_metric = True
        return whole

    def _progress_line(self, running: Running) -> str:
        cell_text = self.sweep.cell_text(running.cell)
        if running.process.returncode in (0, EXIT_CODE):
            ended = "interrupted" if running.process.returncode else outcome(running.directory, running.cell).status
            return f"{cell_text}: {ended}"
        lines = (
            (running.directory / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL_LINES:]
        )
        return (
            f"{cell_text}: FAILED with exit code {running.process.returncode} ({running.directory}/log.txt)\n  "
            + "\n  ".join(lines)
        )

    def _end_running(self) -> None:
        """Ask the cells to save and end; they resume when the sweep is run again."""
        for running in self.running:
            running.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        for running in self.running:
            try:
                running.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                running.process.kill()
                running.process.wait()
            _record(running.directory, running.cell, self.sweep.recipe, status="interrupted")
            self.free.append(running.device)
        self.running.clear()


def wait_for_live_cell(directory: Path, say: Callable[[str], None]) -> None:
    """Wait until the process of an earlier, killed sweep has saved its cell; ValueError if it runs on for too long."""
    record = read_record(directory)
    if record is None or record.pid is None or record.start is None or not is_alive(record.pid, record.start):
        return
    pid, start = record.pid, record.start
    say(f"waiting for process {pid} of an earlier sweep, which is still working on {directory}")
    deadline = time.monotonic() + GRACE_SECONDS
    while is_alive(pid, start):
        if time.monotonic() > deadline:
            raise ValueError(
                f"{directory}: process {pid} of an earlier sweep is still working on it; wait for it or stop it"
            )
        time.sleep(POLL_SECONDS)


def visible_devices(max_parallel: int | None) -> list[str | None]:
    """One entry per GPU (its index or name); on the CPU, `max_parallel` entries of None, by default one."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        return [None] * (max_parallel or 1)
    asked = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    names: list[str | None] = [*(asked or [str(number) for number in range(count)])]
    return names[: max_parallel or count]


def _record(directory: Path, cell: SweepCell, recipe: str, **state: Any) -> None:
    write_json(
        directory / CELL_NAME,
        {
            "schema_version": SCHEMA_VERSION,
            "fingerprint": cell.fingerprint,
            "recipe": recipe,
            "options": json.loads(json.dumps(dict(cell.options))),
            **state,
        },
    )
