"""The plan of the cells: checkpoints x tasks x fine-tuning seeds, the controls, and the searches before them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

FEWEST_SEEDS = 3
SEARCH_SEED = 10_000  # of the searches; no scored cell uses it


@dataclass(frozen=True)
class CellSource:
    """A checkpoint to fine-tune: its path and its place in scores.jsonl."""

    path: str
    kind: str  # raw, annealed, reference, reference_scratch
    budget_tokens: int | None
    pretraining_seed: int = 0
    from_scratch: bool = False  # the configuration of `path` with random weights
    control: str | None = None

    @property
    def is_scratch(self) -> bool:
        return self.budget_tokens == 0


@dataclass(frozen=True)
class Setting:
    """How a checkpoint is fine-tuned on a task; every setting has its own search, all of the same cost."""

    source: CellSource
    task: str
    label_fraction: float = 1.0
    epochs_factor: float = 1.0


@dataclass(frozen=True)
class Search:
    """One try of a setting: a learning rate and a number of epochs, judged on the held-out part of training."""

    setting: Setting
    learning_rate: float
    epochs: float


@dataclass(frozen=True)
class PlannedCell:
    """One cell of scores.jsonl."""

    setting: Setting
    finetuning_seed: int
    control: str | None = None

    @property
    def shuffled(self) -> bool:
        return self.control == "shuffled_labels"


@dataclass(frozen=True)
class Grid:
    """The tries of every search."""

    learning_rates: tuple[float, ...] = (1e-4,)
    epochs: tuple[float, ...] = (3.0,)

    def __post_init__(self) -> None:
        if not self.learning_rates or not self.epochs or min(*self.learning_rates, *self.epochs) <= 0:
            raise ValueError(f"learning rates {self.learning_rates}, epochs {self.epochs}: one or more, above 0")

    @property
    def tries(self) -> list[tuple[float, float]]:
        return [(rate, epochs) for rate in self.learning_rates for epochs in self.epochs]


@dataclass(frozen=True)
class Controls:
    """The controls that are run in addition to the curve, on its tasks."""

    scratch_longer: tuple[float, ...] = ()
    label_fractions: tuple[float, ...] = ()
    shuffled_labels: bool = False

    def __post_init__(self) -> None:
        if any(factor <= 1 for factor in self.scratch_longer):
            raise ValueError(f"--scratch_longer {self.scratch_longer}: factors above 1, such as 2,4,8")
        if any(not 0 < fraction <= 1 for fraction in self.label_fractions):
            raise ValueError(f"--label_fractions {self.label_fractions}: shares above 0 and at most 1, such as 0.125")


@dataclass(frozen=True)
class CellPlan:
    """All jobs, in the order in which they start: a setting's searches, then its cells."""

    searches: tuple[Search, ...] = ()
    cells: tuple[PlannedCell, ...] = ()
    grid: Grid = field(default_factory=Grid)

    @property
    def settings(self) -> list[Setting]:
        return list(dict.fromkeys(cell.setting for cell in self.cells))

    def jobs(self) -> Iterator[Search | PlannedCell]:
        """Searches and cells, setting by setting."""
        by_setting: dict[Setting, list[Search | PlannedCell]] = {}
        everything: list[Search | PlannedCell] = [*self.searches, *self.cells]
        for job in everything:
            by_setting.setdefault(job.setting, []).append(job)
        for setting in by_setting:
            yield from by_setting[setting]


def sources_of(series: Sequence[Mapping[str, Any]], kinds: Sequence[str]) -> list[CellSource]:
    """The checkpoints of a series as `checkpoints.series.read_series` gives them: scratch and the wanted kinds.

    Raises ValueError if there is no scratch or no checkpoint of a wanted kind.
    """
    sources = [
        CellSource(str(row["path"]), str(row["kind"]), round(float(row["budget_tokens"])), int(row["pretraining_seed"]))
        for row in series
    ]
    if not any(source.is_scratch for source in sources):
        raise ValueError("the series has no checkpoint at budget 0: scratch is one end of the gap; pretrain again")
    missing = [
        kind for kind in kinds if not any(candidate.kind == kind and not candidate.is_scratch for candidate in sources)
    ]
    if missing:
        raise ValueError(f"the series has no {' and no '.join(missing)} checkpoint above budget 0: see --kinds")
    return [source for source in sources if source.is_scratch or source.kind in kinds]


def reference_sources(reference: str | None) -> list[CellSource]:
    """An outside reference and its own architecture from scratch; none for None."""
    if reference is None:
        return []
    return [
        CellSource(reference, "reference", None),
        CellSource(reference, "reference_scratch", None, from_scratch=True),
    ]


def largest_sources(sources: Sequence[CellSource]) -> list[CellSource]:
    """For each pretraining seed, the reference of its series: the largest budget, annealed if available."""
    largest = {}
    for seed in sorted({source.pretraining_seed for source in sources}):
        own = [
            candidate
            for candidate in sources
            if candidate.pretraining_seed == seed and candidate.budget_tokens and candidate.control is None
        ]
        if own:
            largest[seed] = max(own, key=lambda candidate: (candidate.kind == "annealed", candidate.budget_tokens))
    return list(largest.values())


def make_plan(
    sources: Sequence[CellSource],
    tasks: Sequence[str],
    *,
    tasks_at_ends: Sequence[str] = (),
    finetuning_seeds: int,
    grid: Grid,
    controls: Controls = Controls(),
) -> CellPlan:
    """Cells of every source on `tasks`, of scratch and the largest budget (or reference) on `tasks_at_ends`."""
    assert finetuning_seeds > 0
    cells: list[PlannedCell] = []

    def add(source: CellSource, task: str, control: str | None, fraction: float = 1.0, factor: float = 1.0) -> None:
        setting = Setting(source, task, fraction, factor)
        cells.extend(PlannedCell(setting, seed, control) for seed in range(finetuning_seeds))

    outside = [source for source in sources if source.budget_tokens is None]
    largest = largest_sources([source for source in sources if source.budget_tokens is not None])
    scratch = [source for source in sources if source.is_scratch]
    for task in tasks:
        for source in sources:
            add(source, task, source.control)
    for task in tasks_at_ends:
        for source in [*scratch, *(outside or largest)]:
            add(source, task, None)
    for task in tasks:
        for source in scratch:
            for factor in controls.scratch_longer:
                add(source, task, "scratch_longer", factor=factor)
        for source in [*scratch, *largest]:
            for fraction in controls.label_fractions:
                if fraction < 1:  # all labels are the cells of the curve
                    add(source, task, "fewer_labels", fraction=fraction)
            if controls.shuffled_labels:
                add(source, task, "shuffled_labels")
    settings = dict.fromkeys(cell.setting for cell in cells)
    tries = grid.tries if len(grid.tries) > 1 else []
    searches = tuple(Search(setting, rate, epochs) for setting in settings for rate, epochs in tries)
    return CellPlan(searches, tuple(cells), grid)


def problems_of(plan: CellPlan, *, finetuning_seeds: int, intervals: bool) -> list[str]:
    """The questions that this plan cannot answer, with remedies."""
    problems = []
    if intervals and finetuning_seeds < FEWEST_SEEDS:
        problems.append(
            f"--finetuning_seeds {finetuning_seeds}: an interval needs {FEWEST_SEEDS}; give more, or --intervals false "
            "for scores without one"
        )
    above = {cell.setting.source for cell in plan.cells if not cell.setting.source.is_scratch}
    if not above:
        problems.append("no checkpoint but scratch: a gap has two ends; add budgets or --reference")
    return problems
