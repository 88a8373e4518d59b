"""A study: its list of cells, the scores so far, and which cells are being worked on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from gap.cells.job_list import LIST_NAME, SCORES_NAME, SEARCHES_NAME, JobList, read_jobs
from gap.cells.plan import PlannedCell, Search
from gap.cells.store import Cell, ScoreFile
from gap.watch.owners import Owner, held_inodes, newest, read_owner, stamp_of, state_of_unfinished
from gap.watch.readers.kept_files import KeptFiles
from gap.watch.readers.study_cells import (
    CurveFacts,
    curve_of,
    described,
    grids_of,
    is_on_curve,
    read_curve,
    row_of_done,
    seconds_left,
)
from gap.watch.view import LiveChart, LiveState, LiveTable, RunView
from gap.watch.wording import ago, duration
from runtime.files.json_lines import JsonLines
from runtime.files.lock import LOCK_NAME
from runtime.files.schemas import Name, Schema, Seconds
from runtime.plurals import counted
from runtime.processes.interruption import MARKER_NAME

CLAIM_CHARACTERS = 24  # of a fingerprint, in the name of a claim
MOST_CLAIMS = 10_000
REPORT_NAME, PILOT_NAME, CURVE_NAME, STUDY_NAME = "report.html", "pilot.json", "curve.json", "study.json"
LOOKS_FOLDER, CLUSTER_FOLDER = "until", "slurm"  # cells of a run that looks at itself; logs of an array job
LAST_SHOWN = 6
LARGEST_RECORDS = 256 << 20  # bytes of scores or tries

Record = TypeVar("Record")


class _TryLine(Schema):
    """A line of searches.jsonl."""

    fingerprint: Name
    seconds: Seconds


@dataclass(frozen=True)
class NamedJobs:
    """The jobs of a list by their fingerprints."""

    cells: Mapping[str, PlannedCell]
    searches: Mapping[str, Search]

    @staticmethod
    def of(jobs: JobList) -> NamedJobs:
        """Computes the fingerprints."""
        cells = {jobs.fingerprint(cell): cell for cell in jobs.plan.cells}
        return NamedJobs(cells, {jobs.fingerprint(search): search for search in jobs.plan.searches})


class StudyReader:
    """The reader of a study's folder."""

    def __init__(self, directory: Path, place: str) -> None:
        self.directory, self.place = directory, place
        self.kind = "looks of --until" if directory.name == LOOKS_FOLDER else "study"
        self.files = KeptFiles()
        self.scores = ScoreFile(directory / SCORES_NAME)
        self.tries = JsonLines(directory / SEARCHES_NAME, _TryLine, as_item=dict)

    def view(self) -> RunView:
        """The study as it stands."""
        self.files.begin()
        jobs = self.files.read(self.directory / LIST_NAME, lambda: NamedJobs.of(read_jobs(self.directory)))
        scored = self._records(SCORES_NAME, self.scores.cells)
        tries = self._records(SEARCHES_NAME, self.tries.read)
        planned: Mapping[str, PlannedCell] = {} if jobs is None else jobs.cells
        done = {cell.fingerprint: cell for cell in scored if jobs is None or cell.fingerprint in planned}
        owner = self._owner()
        claims = self._claims(owner)
        names = (LIST_NAME, SCORES_NAME, SEARCHES_NAME, CURVE_NAME, MARKER_NAME)
        changed = max([newest(self.directory / name for name in names), *claims.values()])
        state, reason = self._state(jobs, done, owner, changed, bool(claims))
        running = self._running(jobs, claims, done) if state == LiveState.RUNNING else {}
        workers = len(claims) if state == LiveState.RUNNING else 0  # some may search beyond their grid
        num_planned = len(planned) or len(done)
        left = [] if jobs is None else _left(jobs, done, {str(one["fingerprint"]) for one in tries})
        facts = None
        if state == LiveState.FINISHED:
            facts = self.files.read(self.directory / CURVE_NAME, lambda: read_curve(self.directory / CURVE_NAME))
        return RunView(
            self.place,
            self.kind,
            state,
            changed,
            reason=reason,
            share=len(done) / num_planned if num_planned else None,
            done=f"{len(done)} of {counted(num_planned, 'cell')}",
            seconds_left=seconds_left(left, list(done.values()), tries, running, workers) if workers else None,
            figures=_figures(done, tries, left, running, workers),
            charts=tuple(self._charts(planned, done, facts)),
            grids=tuple(grids_of(planned, done, lambda name: name[:CLAIM_CHARACTERS] in claims and workers > 0)),
            tables=tuple(self._tables(list(done.values()), running)),
            answers=tuple(task.answer for task in facts.tasks if task.answer) if facts is not None else (),
            problems=tuple(self.files.problems),
        )

    def _records(self, name: str, read: Callable[[], list[Record]]) -> list[Record]:
        path = self.directory / name

        def bounded() -> list[Record]:
            if (size := path.stat().st_size) > LARGEST_RECORDS:
                raise ValueError(
                    f"{path} has {size:,} bytes: at most {LARGEST_RECORDS:,} are read here: see its report.html"
                )
            return read()

        return self.files.read(path, bounded) or []

    def _owner(self) -> Owner | None:
        """The process of the study; with an array job it is another machine's, and has long ended."""
        owner = read_owner(self.directory) or (
            read_owner(self.directory.parent) if self.directory.name == LOOKS_FOLDER else None
        )
        on_cluster = (self.directory / CLUSTER_FOLDER).is_dir()
        return replace(owner, lives=None) if owner is not None and on_cluster and not owner.lives else owner

    def _state(
        self, jobs: NamedJobs | None, done: Mapping[str, Cell], owner: Owner | None, changed: float, is_claimed: bool
    ) -> tuple[LiveState, str]:
        broken = LiveState.DAMAGED, "the files named below cannot be read"
        if jobs is None:
            if self.files.problems:
                return broken
            return LiveState.FINISHED, ""  # a copy of a study has its scores and no list
        all_done = len(done) == len(jobs.cells)
        if all_done and (self.kind != "study" or self._is_reported()):
            return LiveState.FINISHED, ""
        if SCORES_NAME in " ".join(self.files.problems):
            return broken
        found = self.files.try_now(lambda: state_of_unfinished(self.directory, owner, changed))
        if found is None:
            return broken
        state, reason = found
        if owner is not None and owner.lives is None and is_claimed and state == LiveState.STALE:
            return (
                LiveState.RUNNING,
                f"an array job or another machine: cells are claimed, it last wrote {ago(time.time() - changed)}",
            )
        if all_done and state == LiveState.RUNNING:
            return state, "all cells are done: the analysis is running"
        if all_done:
            return state, "all cells are done, the report is not written: run the same command again"
        return state, reason

    def _is_reported(self) -> bool:
        """Whether what is written last is newer than the scores."""
        scores = stamp_of(self.directory / SCORES_NAME)
        ends = [stamp_of(self.directory / name) for name in (REPORT_NAME, PILOT_NAME)]
        return scores is not None and any(end is not None and end[0] >= scores[0] for end in ends)

    def _claims(self, owner: Owner | None) -> dict[str, float]:
        """The claimed jobs by the start of their fingerprint, and since when.

        A killed worker leaves its claim: if this machine's list of locks has the study's own, those not in it are old.
        """
        if owner is not None and owner.lives is False:
            return {}
        held, own = held_inodes(), stamp_of(self.directory / LOCK_NAME)
        is_known = held is not None and own is not None and own[2] in held
        claims = {}
        try:
            with os.scandir(self.directory / "claims") as entries:
                for entry in list(entries)[:MOST_CLAIMS]:
                    state = entry.stat(follow_symlinks=False)
                    if not is_known or held is None or state.st_ino in held:
                        claims[entry.name] = state.st_mtime
        except OSError:
            pass  # no claims, or they ended meanwhile
        return claims

    def _running(
        self, jobs: NamedJobs | None, claims: Mapping[str, float], done: Mapping[str, Cell]
    ) -> dict[PlannedCell | Search, float]:
        """Jobs that are worked on, and for how many seconds."""
        if jobs is None:
            return {}
        named: dict[str, PlannedCell | Search] = {**jobs.searches, **jobs.cells}
        now = time.time()
        return {
            job: max(0.0, now - claims[name[:CLAIM_CHARACTERS]])
            for name, job in named.items()
            if name[:CLAIM_CHARACTERS] in claims and name not in done
        }

    def _charts(
        self, planned: Mapping[str, PlannedCell], done: Mapping[str, Cell], facts: CurveFacts | None
    ) -> list[LiveChart]:
        charts = []
        for task in dict.fromkeys([cell.setting.task for cell in planned.values()] or [c.task for c in done.values()]):
            own = [cell for cell in done.values() if cell.task == task]
            expected = sum(cell.setting.task == task and is_on_curve(cell) for cell in planned.values())
            chart = curve_of(task, own, expected or len(own), facts)
            if chart is not None:
                charts.append(chart)
        return charts

    def _tables(self, done: Sequence[Cell], running: Mapping[PlannedCell | Search, float]) -> list[LiveTable]:
        tables = []
        if running:
            rows = [(described(job), duration(seconds)) for job, seconds in list(running.items())[:LAST_SHOWN]]
            tables.append(LiveTable("Running now", ("job", "for"), tuple(rows), numbers=(1,)))
        if done:
            last = [
                (
                    f"{cell.task}, {row_of_done(cell)[2]}, seed {cell.finetuning_seed}",
                    f"{cell.score:.4f}" if cell.status == "done" else f"{cell.score:.4f}, {cell.status}",
                    duration(cell.seconds),
                )
                for cell in reversed(done[-LAST_SHOWN:])
            ]
            tables.append(LiveTable("Last finished", ("cell", "score", "time"), tuple(last), numbers=(1, 2)))
        return tables


def _left(jobs: NamedJobs, done: Mapping[str, Cell], tried: set[str]) -> list[PlannedCell | Search]:
    """The jobs that have yet to end; searches as far as they are planned, if one of their cells is left."""
    cells = [cell for name, cell in jobs.cells.items() if name not in done]
    needed = {cell.search for cell in cells if not cell.zero_shot}
    searches = [
        search
        for name, search in jobs.searches.items()
        if name not in tried and (search.setting, search.seed) in needed
    ]
    return [*searches, *cells]


def _figures(
    done: Mapping[str, Cell],
    tries: Sequence[Mapping[str, Any]],
    left: Sequence[PlannedCell | Search],
    running: Mapping[PlannedCell | Search, float],
    workers: int,
) -> tuple[tuple[str, str], ...]:
    figures = []
    if workers:
        figures.append(("running now", f"{workers}"))
    if to_come := sum(isinstance(job, PlannedCell) and job not in running for job in left):
        figures.append(("cells to come", f"{to_come}"))
    if failed := sum(cell.failed for cell in done.values()):
        figures.append(("failed cells", f"{failed}"))
    searches = sum(isinstance(job, Search) for job in left)
    if tries or searches:
        figures.append(("search tries", f"{len(tries)} done" + (f", {searches} to come" if searches else "")))
    if done:
        mean = sum(cell.seconds for cell in done.values()) / len(done)
        figures.append(("time of a cell", duration(mean)))
    return tuple(figures)
