"""The plan of the cells: checkpoints x tasks x fine-tuning seeds, the controls, and the searches before them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gap.cells.search.grid import Grid
from runtime.plurals import counted

FEWEST_SEEDS = 3
UNIGRAM = "unigram"  # the control that is the lower end of the gap on zero-shot tasks
SELF_PRETRAINED = "self_pretrained"  # the control that was pretrained on the task's own training texts
SEARCH_SEED = 10_000  # of the searches, from here on; no scored cell uses it


@dataclass(frozen=True)
class CellSource:
    """A checkpoint to fine-tune: its path and its place in scores.jsonl."""

    path: str
    kind: str  # raw, annealed, reference, reference_scratch, start
    budget_tokens: int | None
    pretraining_seed: int = 0
    from_scratch: bool = False  # the configuration of `path` with random weights
    control: str | None = None
    task: str | None = None  # the only one that it is fine-tuned on; None: all

    @property
    def is_scratch(self) -> bool:
        return self.budget_tokens == 0 and not self.is_start

    @property
    def is_start(self) -> bool:
        """Whether it is the checkpoint that a continued series starts from: its budget 0, which is not random."""
        return self.kind == "start"

    @property
    def starts_random(self) -> bool:
        """Whether every fine-tuning seed starts from random weights of its own, in the shape of `path`."""
        return self.from_scratch or self.is_scratch

    @property
    def is_outside(self) -> bool:
        """Whether it is the reference from outside the series, or has its architecture."""
        return self.budget_tokens is None


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
    seed: int = SEARCH_SEED

    @property
    def split(self) -> int:
        """The number of the split into training and held-out part; 0 unless it is drawn anew for each seed."""
        return self.seed - SEARCH_SEED


@dataclass(frozen=True)
class PlannedCell:
    """One cell of scores.jsonl."""

    setting: Setting
    finetuning_seed: int
    control: str | None = None
    search_seed: int = SEARCH_SEED
    arguments_of: CellSource | None = None  # whose search decides the rate and the epochs; None: its own
    zero_shot: bool = False  # nothing is trained: there is no search, and the only seed is 0

    @property
    def is_floor(self) -> bool:
        """Whether frequencies are scored in place of a model."""
        return self.control == UNIGRAM

    @property
    def is_scored_scratch(self) -> bool:
        """Whether random weights are scored as they are."""
        return self.zero_shot and not self.is_floor and self.setting.source.is_scratch

    @property
    def shuffled(self) -> bool:
        return self.control == "shuffled_labels"

    @property
    def search(self) -> tuple[Setting, int]:
        """The setting whose search, with this seed, decides the learning rate and the epochs."""
        return replace(self.setting, source=self.arguments_of or self.setting.source), self.search_seed


@dataclass(frozen=True)
class Controls:
    """The controls that are run in addition to the curve, on its tasks."""

    scratch_longer: tuple[float, ...] = ()
    label_fractions: tuple[float, ...] = ()
    shuffled_labels: bool = False
    same_arguments: bool = False

    def __post_init__(self) -> None:
        if any(factor <= 1 for factor in self.scratch_longer):
            raise ValueError(f"--scratch_longer {self.scratch_longer}: factors above 1, such as 2,4,8")
        if any(not 0 < fraction <= 1 for fraction in self.label_fractions):
            raise ValueError(f"--label_fractions {self.label_fractions}: shares above 0 and at most 1, such as 0.125")


@dataclass(frozen=True)
class CellPlan:
    """All jobs that are known before any has run: the first tries of every search, and the cells.

    Where the best of a search's tries is at an edge of its grid, more of them follow: see
    `gap.cells.search.choice.follow`.
    """

    searches: tuple[Search, ...] = ()
    cells: tuple[PlannedCell, ...] = ()
    grid: Grid = field(default_factory=Grid)
    reference_grid: Grid | None = None  # of the reference and its architecture from scratch; None: the same

    def grid_of(self, source: CellSource) -> Grid:
        """The grid of a checkpoint: all of a series have one shape, and so one grid."""
        return self.reference_grid if self.reference_grid is not None and source.is_outside else self.grid

    @property
    def decisions(self) -> list[tuple[Setting, int]]:
        """Every search that cells depend on, as (setting, seed)."""
        return list(dict.fromkeys(cell.search for cell in self.cells if not cell.zero_shot))

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

    A series that continues a checkpoint has that too, once for all of its runs, in front; scratch is the same
    architecture with random weights. Raises ValueError if there is no scratch or no checkpoint of a wanted kind.
    """
    sources = [
        CellSource(str(row["path"]), str(row["kind"]), round(float(row["budget_tokens"])), int(row["pretraining_seed"]))
        for row in series
    ]
    scratch = [source for source in sources if source.is_scratch]
    if not scratch:
        raise ValueError("the series has no checkpoint at budget 0: scratch is one end of the gap; pretrain again")
    if any(row.get("started_from") for row in series):
        first = min(scratch, key=lambda source: source.pretraining_seed)
        sources = [replace(first, kind="start"), *sources]
    missing = [
        kind for kind in kinds if not any(candidate.kind == kind and not candidate.is_scratch for candidate in sources)
    ]
    if missing:
        raise ValueError(f"the series has no {' and no '.join(missing)} checkpoint above budget 0: see --kinds")
    return [source for source in sources if source.budget_tokens == 0 or source.kind in kinds]


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
    zero_shot: Collection[str] = (),
    finetuning_seeds: int,
    task_seeds: Mapping[str, int] | None = None,
    grid: Grid,
    reference_grid: Grid | None = None,
    controls: Controls = Controls(),
    resample_split: bool = False,
) -> CellPlan:
    """Cells of every source on `tasks`, of scratch and the largest budget (or reference) on `tasks_at_ends`.

    The grids have learning rates. With `resample_split` every fine-tuning seed has searches of its own. `task_seeds`
    are the fine-tuning seeds of tasks that have others. A reference from outside and the checkpoint that a series
    starts from, of which there is one run, have at least as many fine-tuning seeds as a series has pretraining runs.
    Those of the tasks that are `zero_shot` have one cell for every checkpoint, and for every pretraining run the
    unigram floor; their only control is an independent run.
    """
    plan = CellPlan(grid=grid, reference_grid=reference_grid)
    assert finetuning_seeds > 0
    assert all(plan.grid_of(source).learning_rates for source in sources)
    cells: list[PlannedCell] = []
    runs = len({source.pretraining_seed for source in sources if not source.is_outside and source.control is None})

    def add(
        source: CellSource,
        task: str,
        control: str | None,
        fraction: float = 1.0,
        factor: float = 1.0,
        arguments_of: CellSource | None = None,
    ) -> None:
        setting = Setting(source, task, fraction, factor)
        resampled = resample_split and plan.grid_of(arguments_of or source).is_searched
        seeds = (task_seeds or {}).get(task, finetuning_seeds)
        if (source.is_outside or source.is_start) and runs >= FEWEST_SEEDS:
            seeds = max(seeds, runs)
        for seed in range(seeds):
            search_seed = SEARCH_SEED + (1 + seed if resampled else 0)
            cells.append(PlannedCell(setting, seed, control, search_seed, arguments_of))

    def add_zero_shot(task: str, own: Sequence[CellSource]) -> None:
        """A cell of each, and the floor of every run; random weights of a reference's shape would say nothing."""
        trained = [source for source in own if not source.from_scratch and source.task in (None, task)]
        cells.extend(PlannedCell(Setting(one, task), 0, one.control, zero_shot=True) for one in trained)
        cells.extend(PlannedCell(Setting(one, task), 0, UNIGRAM, zero_shot=True) for one in scratch)

    outside = [source for source in sources if source.is_outside]
    largest = largest_sources([source for source in sources if source.budget_tokens is not None])
    scratch = [source for source in sources if source.is_scratch]
    start = [source for source in sources if source.is_start]
    for task in tasks:
        if task in zero_shot:
            add_zero_shot(task, sources)
            continue
        for source in sources:
            if source.task in (None, task):
                add(source, task, source.control)
    for task in tasks_at_ends:
        ends = [*start, *scratch, *(outside or largest)]
        if task in zero_shot:
            add_zero_shot(task, ends)
            continue
        for source in ends:
            add(source, task, None)
    for task in [task for task in tasks if task not in zero_shot]:
        for source in scratch:
            for factor in controls.scratch_longer:
                add(source, task, "scratch_longer", factor=factor)
        for source in [*(start or scratch), *largest]:
            for fraction in controls.label_fractions:
                if fraction < 1:  # all labels are the cells of the curve
                    add(source, task, "fewer_labels", fraction=fraction)
            if controls.shuffled_labels:
                add(source, task, "shuffled_labels")
        for source in (start or scratch) if controls.same_arguments else []:
            upper = _upper_end(source, outside, largest)
            if upper is not None:
                add(source, task, "same_arguments", arguments_of=upper)
    plan = replace(plan, cells=tuple(cells))
    searches = [
        Search(setting, rate, epochs, seed)
        for setting, seed in plan.decisions
        if (own := plan.grid_of(setting.source)).is_searched
        for rate, epochs in own.tries
    ]
    return replace(plan, searches=tuple(searches))


def _upper_end(lower: CellSource, outside: Sequence[CellSource], largest: Sequence[CellSource]) -> CellSource | None:
    """The other end of the gap: the reference from outside, else the largest budget of the same pretraining run."""
    ends = [source for source in outside if not source.from_scratch]
    ends += [source for source in largest if source.pretraining_seed == lower.pretraining_seed]
    return ends[0] if ends else None


def too_few_runs(runs: int) -> str:
    """Why a zero-shot task has no interval, with the remedy."""
    return (
        f"{counted(runs, 'pretraining run')}, and a zero-shot task has no fine-tuning seeds: an interval needs "
        f"{FEWEST_SEEDS} runs, so give --series {FEWEST_SEEDS} series.json of pretraining runs of different --seed"
    )


def problems_of(plan: CellPlan, *, intervals: bool, pilot: bool = False) -> list[str]:
    """The questions that this plan cannot answer, with remedies; a pilot itself asks for the runs that are missing."""
    problems = []
    seeds: dict[Setting, set[int]] = {}
    runs: set[int] = set()
    zero_shot = {cell.setting.task: None for cell in plan.cells if cell.zero_shot}
    for cell in plan.cells:
        if cell.setting.source.is_scratch:
            runs.add(cell.setting.source.pretraining_seed)
        if cell.zero_shot:
            continue
        seeds.setdefault(cell.setting, set()).add(cell.finetuning_seed)
    fewest = min((len(own) for own in seeds.values()), default=0 if not zero_shot else FEWEST_SEEDS)
    if intervals and fewest < FEWEST_SEEDS and len(runs) < FEWEST_SEEDS:
        problems.append(
            f"--finetuning_seeds {fewest}: an interval needs {FEWEST_SEEDS}, or so many pretraining runs; give more, "
            "or --intervals false for scores without one"
        )
    if intervals and zero_shot and not pilot and len(runs) < FEWEST_SEEDS:
        problems.append(
            f"{', '.join(zero_shot)}: {too_few_runs(len(runs))}; or --intervals false for scores without one"
        )
    above = {cell.setting.source for cell in plan.cells if cell.setting.source.budget_tokens != 0}
    if not above:
        problems.append("no checkpoint but scratch: a gap has two ends; add budgets or --reference")
    return problems
