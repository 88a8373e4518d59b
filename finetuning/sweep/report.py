"""A whole sweep from its file to its table: lock, smoke run, cells, CSV, Markdown and overlaid curves."""

from __future__ import annotations

import signal
from pathlib import Path

from finetuning.loop.run_log import JOURNAL_NAME
from finetuning.run.figures import draw_curves
from finetuning.run.finished import read_results
from finetuning.sweep.metric import require_given_metric
from finetuning.sweep.runner import Runner, cell_directory, outcome, smoke_cell, visible_devices
from finetuning.sweep.sweep import Sweep, read_sweep
from finetuning.sweep.table import as_csv, as_markdown, metrics_of_rows, table_rows
from runtime.files.lock import Ownership
from runtime.files.whole_files import write_text
from runtime.options.exit_status import DONE, FAILED
from runtime.processes.interruption import Interrupted


class SweepLog:
    """Writes lines to the terminal and to sweep.log; the sweep continues if the terminal is gone."""

    def __init__(self, directory: Path) -> None:
        self.file = (directory / "sweep.log").open("a", encoding="utf-8")
        self.has_terminal = True

    def say(self, text: str) -> None:
        """Write a line to both."""
        self.file.write(text + "\n")
        self.file.flush()
        if self.has_terminal:
            try:
                print(text, flush=True)
            except OSError:
                self.has_terminal = False


def run_sweep(
    sweep_file: Path,
    output_dir: Path,
    *,
    max_parallel: int | None = None,
    smoke: bool = False,
    smoke_samples: int = 256,
    compare_with: str = "baseline",
) -> int:
    """Run every unfinished cell and write sweep.csv, sweep.md and curves; the exit status, 1 where a cell failed.

    Raises ValueError for a bad sweep file and when another sweep owns `output_dir`. A hang-up is ignored (by the cells
    too); SIGTERM, SIGINT and SIGUSR1 let the running cells save, and raise Interrupted: the same command continues.
    """
    sweep = read_sweep(sweep_file)
    output_dir.mkdir(parents=True, exist_ok=True)
    ownership = Ownership(output_dir)
    ownership.take()
    try:
        log = SweepLog(output_dir)
        runner = Runner(sweep, visible_devices(max_parallel), log.say)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, runner.stop)
        log.say(f"{len(sweep.cells)} cells, {len(sweep.rows)} settings x {len(sweep.seeds)} seeds of {sweep.recipe}")
        _require_metric_of_finished(sweep, output_dir)
        if smoke and not _smoke(sweep, runner, output_dir, smoke_samples, log):
            return _failed_unless_stopped(runner)
        failed = runner.run(sweep.cells, lambda cell: cell_directory(output_dir, cell))
        report(sweep, output_dir, compare_with=compare_with, log=log)
        return _failed_unless_stopped(runner) if failed or runner.stopping else DONE
    finally:
        ownership.release()


def _failed_unless_stopped(runner: Runner) -> int:
    """Return status 1; raises Interrupted if cells did not run or finish because of a request to stop."""
    if runner.stopping:
        raise Interrupted("asked to stop", together=False)
    return FAILED


def report(sweep: Sweep, output_dir: Path, *, compare_with: str, log: SweepLog) -> None:
    """Write the tables and curves of the cells finished so far."""
    outcomes = {cell.fingerprint: outcome(cell_directory(output_dir, cell), cell) for cell in sweep.cells}
    metrics = metrics_of_rows(sweep, outcomes)
    if not any(metrics):
        log.say("no cell has finished: no table yet")
        return
    rows = table_rows(sweep, outcomes, metrics=metrics, compare_with=compare_with)
    text = as_markdown(sweep, rows, outcomes, metrics=metrics)
    write_text(output_dir / "sweep.csv", as_csv(rows))
    write_text(output_dir / "sweep.md", text)
    log.say(text)
    drawn: dict[str, list[Path]] = {}
    for cell in sweep.cells:
        if (cell_directory(output_dir, cell) / JOURNAL_NAME).is_file():
            drawn.setdefault(sweep.setting(cell.row), []).append(cell_directory(output_dir, cell))
    if drawn:
        metric = next(name for name in metrics if name).removeprefix("eval_")
        draw_curves(drawn, output_dir / "curves.png", title=f"{sweep.recipe} sweep", metric=metric)


def _smoke(sweep: Sweep, runner: Runner, output_dir: Path, samples: int, log: SweepLog) -> bool:
    """Run every cell for one epoch, in separate directories; False if any fails or the sweep is asked to stop."""
    log.say("smoke run: every cell for one epoch")
    unfinished = [
        cell for cell in sweep.cells if outcome(cell_directory(output_dir, cell), cell).status in ("waiting", "failed")
    ]
    cells = [smoke_cell(cell, samples) for cell in unfinished]
    failed = runner.run(cells, lambda cell: cell_directory(output_dir, cell) / "smoke")
    if failed:
        log.say(f"{len(failed)} of {len(cells)} cells failed the smoke run: the sweep was not started")
    return not failed and not runner.stopping


def _require_metric_of_finished(sweep: Sweep, output_dir: Path) -> None:
    for cell in sweep.cells:
        where = cell_directory(output_dir, cell)
        if outcome(where, cell).scores:
            require_given_metric(sweep.metric, read_results(where), where)
            return
