"""What a study will do and how long it takes: printed before anything runs, and in part in the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetuning.model.checkpoint_files import load_config
from gap.cells.estimate import estimated_seconds, model_of, time_rows, work_of
from gap.cells.job_list import SCORES_NAME, SEARCHES_NAME, JobList, is_probe
from gap.cells.plan import SEARCH_SEED, Search, Setting
from gap.cells.search.choice import follow, read_searches
from gap.cells.search.grid import Grid
from gap.cells.store import Cell, read_scores
from gap.cells.worker import remaining
from gap.study.experiment import UNKNOWN
from gap.tasks.kinds.task_data import TaskData
from runtime.plurals import counted
from runtime.processes.ranks import Ranks, choose_device

ZERO_SHOT_METHOD = (
    "nothing is fine-tuned. A pair is right if its acceptable sentence has the higher pseudo-log-likelihood, each "
    "token masked together with the later tokens of its word (Kauf and Ivanova 2023); ties count half. The gap begins"
    " at the unigram floor, the frequencies of the tokens in the pretraining corpus: from random weights, which score"
    " lower and have a row of their own, it would count those as learnt."
)


@dataclass(frozen=True)
class Outlook:
    """The remaining jobs and the estimated time for them; `most_` if every search goes on as far as it may."""

    cells: int
    searches: int
    finished: int
    device_seconds: float
    devices: int
    price_per_hour: float = 0.0
    currency: str = "$"
    most_searches: int = 0
    most_seconds: float = 0.0

    def line(self) -> str:
        further = self.most_searches - self.searches
        beyond = (
            f"; at most {counted(further, 'search')} more, where a choice is at the edge of its grid: then about "
            f"{self._time(self.most_seconds)}"
        )
        return (
            f"{counted(self.cells, 'cell')} and {counted(self.searches, 'search')} to run, "
            f"{counted(self.finished, 'cell')} already finished: about {self._time(self.device_seconds)}"
            + (beyond if further > 0 else "")
        )

    def _time(self, seconds: float) -> str:
        hours, wall = seconds / 3600, seconds / self.devices
        price = f", {self.currency}{hours * self.price_per_hour:.2f}" if self.price_per_hour else ""
        shown = f"{wall / 60:.1f} minutes" if wall < 7200 else f"{wall / 3600:.1f} hours"
        return f"{shown} on {self.devices} device{'s' * (self.devices > 1)} at a time ({hours:.2f} device-hours{price})"


def outlook(
    jobs: JobList,
    data: Mapping[str, TaskData],
    directory: Path,
    *,
    devices: int,
    config: Any = None,
    price_per_hour: float = 0.0,
    currency: str = "$",
) -> Outlook:
    """Count and estimate the remaining jobs; `config` replaces a model that is yet to be pretrained."""
    left = remaining(jobs, directory)
    finished = finished_cells(jobs, directory)
    planned = set(jobs.plan.cells)
    cells = [job for job in left if job in planned]
    seconds = most = 0.0
    further: list[Search] = []
    if left:
        device = choose_device(Ranks(local_world_size=devices))
        work = {name: work_of(task, jobs.options) for name, task in data.items()}
        models = {(job.setting.task, model_of(job.setting.source)): job.setting.source.path for job in left}
        speed = {
            key: time_rows(
                config if path == UNKNOWN else load_config(path), work[key[0]].row_tokens, jobs.options, device
            )
            for key, path in models.items()
        }
        records = read_searches(directory / SEARCHES_NAME)
        expected: dict[tuple[Setting, int], float] = {}
        longest: dict[tuple[Setting, int], float] = {}
        for search in dict.fromkeys(cell.search for cell in cells if not (cell.zero_shot or is_probe(cell))):
            trail = follow(jobs, *search, records)
            further += trail.further
            grid = jobs.plan.grid_of(search[0].source)
            expected[search] = max(grid.epochs) if trail.choice is None else trail.choice.epochs
            longest[search] = max([expected[search], *(more.epochs for more in trail.further)])
        seconds = estimated_seconds(left, finished, work, speed, expected)
        most = estimated_seconds([*left, *further], finished, work, speed, longest)
    searches = len(left) - len(cells)
    return Outlook(
        *(len(cells), searches, len(finished), seconds, devices, price_per_hour, currency),
        most_searches=searches + len(further),
        most_seconds=most,
    )


def grid_lines(jobs: JobList) -> list[str]:
    """The grid of the searches, and how far beyond its edges they may go; of the reference too, if it has its own."""
    grid, own, lines = jobs.plan.grid, jobs.plan.reference_grid, []
    lines.append(f"{'grid' if own is None else 'grid of the series'}: {_grid_text(grid)}")
    if own is not None:
        lines.append(f"grid of the reference and of its architecture from scratch: {_grid_text(own)}")
    if draws := len({seed for _, seed in jobs.plan.decisions} - {SEARCH_SEED}):
        lines.append(f"--resample_split: {counted(draws, 'search')} of each setting, one for every fine-tuning seed")
    return lines


def _grid_text(grid: Grid) -> str:
    rates, epochs = (", ".join(f"{one:g}" for one in values) for values in (grid.learning_rates, grid.epochs))
    text = f"learning rate{'s' * (len(grid.learning_rates) > 1)} {rates}, epochs {epochs}"
    if not grid.is_searched:
        return f"{text}; nothing is searched"
    further = grid.further(grid.tries)
    if not further:
        return f"{text}: {counted(len(grid.tries), 'try')} for every checkpoint"
    longest = f", up to {max(further):g} epochs" if max(further) > max(grid.epochs) else ""
    return (
        f"{text}: {len(grid.tries)} tries for every checkpoint, and at most {len(further)} more where the choice is at "
        f"an edge{longest}"
    )


def method_notes(jobs: JobList) -> list[str]:
    """Notes for the report on how the cells were made."""
    grid, own = jobs.plan.grid, jobs.plan.reference_grid
    zero_shot = dict.fromkeys(cell.setting.task for cell in jobs.plan.cells if cell.zero_shot)
    notes = [f"{name}: {ZERO_SHOT_METHOD}" for name in zero_shot]
    if not _is_trained(jobs):
        return notes
    if not grid.is_searched and own in (None, grid):
        epochs = counted(grid.epochs[0], "epoch", written=f"{grid.epochs[0]:g}")
        notes.append(
            f"Learning rate {grid.learning_rates[0]:g} and {epochs} for every checkpoint, scratch included: nothing "
            "was searched, so the gap is with the same arguments for all."
        )
    else:
        draws = any(seed != SEARCH_SEED for _, seed in jobs.plan.decisions)
        notes.append(
            f"Learning rate and epochs were searched in the same way for every checkpoint, scratch included, on a "
            f"held-out fifth of its training examples{', drawn anew for each fine-tuning seed' * draws}; the chosen "
            "ones were then trained on all of them, without looking at the scored examples. "
            + ". ".join(f"{line[:1].upper()}{line[1:]}" for line in grid_lines(jobs)[: 2 if own else 1])
            + "."
        )
    notes.append("Every fine-tuning seed of scratch starts from random weights of its own.")
    return notes


def busy_seconds(directory: Path, jobs: JobList) -> float:
    """Seconds that training and evaluating the list's finished searches and cells took, over all workers."""
    records = read_searches(directory / SEARCHES_NAME)
    tries = (search for own in jobs.plan.decisions for search in follow(jobs, *own, records).tries)
    names = {jobs.fingerprint(search) for search in tries}
    searched = sum(float(record["seconds"]) for name, record in records.items() if name in names)
    return searched + sum(cell.seconds for cell in finished_cells(jobs, directory))


def finished_cells(jobs: JobList, directory: Path) -> list[Cell]:
    """The cells of the list that are done."""
    path = directory / SCORES_NAME
    names = jobs.cell_names()
    return [cell for cell in read_scores(path) if cell.fingerprint in names] if path.is_file() else []


def set_lines(data: Mapping[str, TaskData]) -> list[str]:
    """For each task its examples and their clusters, which stay on one side of a split and are resampled whole."""
    lines = []
    for name, task in data.items():
        parts = []
        sets = [(task.train, task.train_clusters, "for training"), (task.scored, task.scored_clusters, "scored")]
        for examples, clusters, of in sets[1:] if task.zero_shot else sets:
            parts.append(
                f"{counted(len(examples), 'example')} in {counted(len(set(clusters.values())), task.grouping)} {of}"
            )
        lines.append(f"{name}: {', '.join(parts)}")
    return lines


def plan_lines(jobs: JobList) -> list[str]:
    """A line for each task with the number of its cells by kind, then the grids."""
    counts: dict[str, dict[str, int]] = {}
    for cell in jobs.plan.cells:
        source = cell.setting.source
        kind = cell.control or ("scratch" if source.is_scratch else source.kind)
        of_task = counts.setdefault(cell.setting.task, {})
        of_task[kind] = of_task.get(kind, 0) + 1
    lines = []
    for task, kinds in counts.items():
        by_kind = ", ".join(f"{kind} {number}" for kind, number in kinds.items())
        lines.append(f"{task}: {counted(sum(kinds.values()), 'cell')} ({by_kind})")
    return [*lines, *(grid_lines(jobs) if _is_trained(jobs) else ())]


def _is_trained(jobs: JobList) -> bool:
    """Whether any cell is fine-tuned."""
    return not all(cell.zero_shot for cell in jobs.plan.cells)
