"""The worker process: runs jobs from the shared list until none is left. The executor starts one per device.

    python gap/cells/worker.py DIRECTORY [WORKERS_ON_THIS_MACHINE | wait]

The directory holds cells.json. A job is claimed by a lock that the kernel frees when its owner dies, so a killed
worker's job is taken over by another worker or by the next run. With `wait` the list is yet to be written: a line on
standard input (the number of workers and the id of the process that wrote the list) says that it is ready; the end of
the input says that there is nothing to do.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # launched as a file: the project's root takes the place of this folder on the path
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from finetuning.run.starting_point import quieten_transformers
from gap.cells.code_identity import code_version, probe_version
from gap.cells.job_list import SCORES_NAME, SEARCHES_NAME, JobList, is_probe, read_jobs
from gap.cells.plan import PlannedCell, Search, Setting
from gap.cells.running import Workbench, finished_cell, run_cell, run_search, run_zero_shot
from gap.cells.search.choice import Trail, append_search, follow, search_lines
from gap.cells.search.notes import setting_text
from gap.cells.store import Cell, ScoreFile
from gap.probe.probed_task import probe_task
from gap.tasks.contamination import read_contaminated
from runtime.machine import is_out_of_memory
from runtime.options.exit_status import run_command
from runtime.plurals import counted
from runtime.processes.failures import Failed
from runtime.processes.liveness import end_or_watch
from runtime.processes.ranks import Ranks, choose_device

POLL_SECONDS = 0.5
MEMORY_REMEDY = (
    "lower --per_device_train_batch_size, --per_device_eval_batch_size or --max_parallel (none changes a score), and "
    "rerun the command to continue with this cell; lowering --max_seq_length also helps, but all cells are then run "
    "again"
)
Say = Callable[[str], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Work through the list; the exit status is 0 once nothing is left to do."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return run_command(lambda: run(arguments), memory_remedy=MEMORY_REMEDY)


def run(arguments: Sequence[str]) -> int:
    """Run the command with its arguments: a directory, and the number of workers or `wait`."""
    if not arguments:
        raise ValueError("no directory: name the one that holds cells.json")
    code_version(), probe_version()  # of the imported sources: called before the wait for the list
    of_workers, parent = arguments[1] if len(arguments) > 1 else "1", os.getppid()
    if of_workers == "wait":
        start = sys.stdin.readline().split()
        if not start:
            return 0
        of_workers, parent = start[0], int(start[1])
    end_or_watch(parent)  # so that a killed study can be restarted at once, with no cell still claimed
    ranks = Ranks(local_world_size=int(of_workers))  # without a GPU: a share of the cores
    work(Path(arguments[0]), ranks=ranks, alive=lambda: os.getppid() == parent)
    return 0


def print_now(text: str) -> None:
    """Print without waiting for a full buffer: a reader of the pipe or log file sees each cell once it is done."""
    print(text, flush=True)


class Records:
    """The records of a study in its directory; each line is parsed once, however often they are read."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.scores = ScoreFile(directory / SCORES_NAME)
        self._searches = search_lines(directory / SEARCHES_NAME)

    def searches(self) -> dict[str, dict[str, Any]]:
        """The searches that are done, by fingerprint."""
        return {str(record["fingerprint"]): record for record in self._searches.read()}

    def finished(self) -> set[str]:
        """Fingerprints of the searches and cells that are done."""
        return {cell.fingerprint for cell in self.scores.cells()} | set(self.searches())


def remaining(jobs: JobList, directory: Path, records: Records | None = None) -> list[Search | PlannedCell]:
    """Jobs that have yet to run, the longest first; a search whose cells are all done is not among them.

    A search's tries beyond the edges of its grid are among them as soon as those before them are done.
    Cells with many epochs, if taken last, would leave all workers but one idle at the end; short ones fill the gaps.
    """
    records = records or Records(directory)
    done, searched = records.finished(), records.searches()
    cells = [cell for cell in jobs.plan.cells if jobs.fingerprint(cell) not in done]
    by_setting: dict[Setting, list[Search | PlannedCell]] = {}
    for search in dict.fromkeys(cell.search for cell in cells if not (cell.zero_shot or is_probe(cell))):
        by_setting.setdefault(search[0], []).extend(follow(jobs, *search, searched).missing)
    for cell in cells:
        by_setting.setdefault(cell.setting, []).append(cell)
    left = [job for own in by_setting.values() for job in own]
    return sorted(left, key=lambda job: -job.setting.epochs_factor * job.setting.label_fraction)


def work(
    directory: Path,
    *,
    ranks: Ranks | None = None,
    say: Say = print_now,
    alive: Callable[[], bool] = lambda: True,
) -> float:
    """Run every job that is ready and not claimed; returns the seconds spent training and evaluating.

    Ends when all jobs are done, or when `alive` is false. ValueError if the list was planned with other code.
    """
    jobs = read_jobs(directory)
    for planned, own in ((jobs.code, code_version()), (jobs.probe_code or probe_version(), probe_version())):
        if planned != own:
            raise ValueError(
                f"{directory}: the cells were planned with other code (sources {planned[:16]}, here {own[:16]}): run "
                "again the command that planned them"
            )
    quieten_transformers()
    bench = Workbench(jobs, choose_device(ranks or Ranks()))
    records, busy = Records(directory), 0.0
    while alive():
        waiting = remaining(jobs, directory, records)
        if not waiting:
            break
        started = busy
        for job in waiting:
            if not alive():
                break
            with claim(directory, jobs.fingerprint(job)) as mine:
                if mine and jobs.fingerprint(job) not in records.finished():
                    with memory_explained(job):
                        busy += _run(bench, job, records, say)
        if busy == started:
            time.sleep(POLL_SECONDS)  # the remaining jobs are claimed by others, or wait for their searches
    return busy


@contextmanager
def memory_explained(job: Search | PlannedCell) -> Iterator[None]:
    """Turn a failed allocation into Failed, which names the job and what to lower; other errors pass through."""
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        reason = (str(error) or "no memory left").splitlines()[0]
        raise Failed(f"{describe(job)}: out of memory ({reason}): {MEMORY_REMEDY}") from error


@contextmanager
def claim(directory: Path, fingerprint: str) -> Iterator[bool]:
    """Whether this process may run the job; the claim ends with the block or with the process."""
    path = directory / "claims" / fingerprint[:24]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            path.unlink(missing_ok=True)


def _run(bench: Workbench, job: Search | PlannedCell, records: Records, say: Say) -> float:
    """Run one job and record it, returning its seconds; 0.0 if it waits for searches that are not done."""
    jobs, directory = bench.jobs, records.directory
    if isinstance(job, Search):
        result = run_search(bench, job)
        append_search(directory / SEARCHES_NAME, jobs, job, result)
        say(f"search  {describe(job)}: {result.held_out:.3f} held out, {result.seconds:.1f} s")
        return result.seconds
    contaminated = read_contaminated(directory, job.setting.task)
    details: dict[str, Any] = {"model": jobs.model_digests[job.setting.source.path]}
    if job.zero_shot:
        cell = run_zero_shot(bench, job, directory, contaminated=contaminated, details=details)
    elif is_probe(job):
        cell = run_probe(bench, job, directory, contaminated=contaminated, details=details)
    else:
        trail = follow(jobs, *job.search, records.searches())
        if (choice := trail.choice) is None:
            return 0.0
        details |= {"held_out_score": choice.held_out, "peeking_gain": choice.peeking_gain}
        details["search_seconds"] = search_share(jobs, job, trail, records.searches())
        chosen = (choice.learning_rate, choice.epochs)
        cell = run_cell(bench, job, chosen, directory, contaminated=contaminated, details=details)
    try:
        records.scores.append(cell)
    except ValueError:
        if cell.fingerprint not in records.finished():  # without working locks, another worker may have been faster
            raise
    done, total = len(records.finished() & jobs.cell_names()), len(jobs.plan.cells)
    say(f"cell {done}/{total}  {describe(job)}: {cell.metric} {cell.score:.3f}, {cell.status}, {cell.seconds:.1f} s")
    return cell.seconds


def search_share(jobs: JobList, cell: PlannedCell, trail: Trail, searched: Mapping[str, Mapping[str, Any]]) -> float:
    """Seconds of a search, divided by the number of the list's cells that it decides."""
    total = sum(float(searched[jobs.fingerprint(search)]["seconds"]) for search in trail.tries)
    sharing = sum(other.search == cell.search and not is_probe(other) for other in jobs.plan.cells)
    return total / max(1, sharing)


def run_probe(
    bench: Workbench,
    cell: PlannedCell,
    directory: Path,
    *,
    contaminated: Collection[str] = (),
    details: Mapping[str, Any] | None = None,
) -> Cell:
    """A linear probe on the encoder with which the cell's fine-tuning run begins; its predictions are written.

    `details` as in `run_cell`.
    """
    setting, seed, options = cell.setting, cell.finetuning_seed, bench.jobs.options
    probed = probe_task(
        bench.task(setting.task),
        bench.rows(setting),
        lambda head: bench.load(setting.source, head, seed).fresh(seed),
        label_fraction=setting.label_fraction,
        pooling=options.rows.pooling,
        batch_rows=options.per_device_eval_batch_size,
        device=bench.device,
        bf16=options.bf16 == "true",
        contaminated=contaminated,
    )
    more = {**probed.details, **(details or {})}
    return finished_cell(bench, cell, directory, probed.records, probed.metrics, probed.status, probed.seconds, more)


def describe(job: Search | PlannedCell) -> str:
    """The job in a few words."""
    words = [setting_text(job.setting)]
    if isinstance(job, Search):
        words += [f"split {job.split}"] if job.split else []
        return ", ".join(
            [*words, f"rate {job.learning_rate:g}, {counted(job.epochs, 'epoch', written=f'{job.epochs:g}')}"]
        )
    if job.is_floor:
        words.append("frequencies of tokens alone")
    elif job.control not in (None, "scratch_longer", "fewer_labels"):
        words.append(str(job.control).replace("_", " "))
    return ", ".join(words if job.zero_shot else [*words, f"seed {job.finetuning_seed}"])


if __name__ == "__main__":
    sys.exit(main())
