"""Do plans keep their word? Power planned and found, the pilot's false "yes", more seeds until a gap is resolved.

    python benchmarks/planning.py --simulations 400                    # every world: what benchmarks/planning.md shows
    python benchmarks/planning.py --simulations 400 --only "pilot"     # worlds whose name holds this
    make bench-planning

The worlds are those of benchmarks/coverage.py: answers are made up, so that every true difference is known. A study is
simulated with 100 fine-tuning seeds; what is planned sees the first three, and the analysis as many as were planned.
Everything in between is the project's own: draws, intervals, `plan_of` of the report, `judge_pilot` of `--pilot`, the
looks and their error of `--seeds_until_resolved`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.coverage import Chances, World, chances_of
from gap.analysis.planning import PilotVerdict, judge_pilot, plan_of
from gap.analysis.tables.task_study import TaskStudy
from gap.analysis.tables.task_table import SCRATCH, CheckpointKey, TaskTable
from gap.cells.store import Cell
from gap.intervals.bootstrap import Resampling
from gap.intervals.power import MOST_SEEDS
from gap.intervals.spending import ERROR, SeedLook, seed_look_error, with_look
from gap.intervals.variance import SeedGrid
from gap.measures.ratios import mean_of
from gap.measures.weighted_metrics import ExampleTable
from gap.study.options import GapOptions
from gap.study.seeds import looks_to_come, most_seeds, pilot_look, seed_stages

FEW = 3  # fine-tuning seeds of a pilot, and of the study that is planned from
# Four checkpoints; a single run is given, so that its true scores are those of the world.
SMALL = World(
    scratch=0.6,
    top=0.66,
    budgets=(5e5, 2e6, 8e6),
    pretraining_points=0.0,
    paragraphs=400,
    questions=1,
    own_difficulty=0.3,
)
WIDE = replace(SMALL, paragraphs=1000, finetuning_points=1.0)
RUNS = replace(WIDE, pretraining_points=1.5, finetuning_points=4.0)


@dataclass(frozen=True)
class Planned:
    """A world in which seeds are planned from a finished study of so many runs and three fine-tuning seeds."""

    world: World
    runs: int = 1
    of_budgets: bool = False  # the difference of the two largest budgets, not of both ends
    promised: bool = True


def with_gap(world: World, gap: float) -> World:
    """The world with another true difference of both ends, where no run fails."""
    if world.outside is not None:
        return replace(world, outside=world.scratch + gap)
    share = float(world.expected(np.array([world.budgets[-1]]))[0] - world.scratch) / (world.top - world.scratch)
    return replace(world, top=world.scratch + gap / share)


PLANNED = {
    "plan: gap of 6, 400 examples": Planned(with_gap(SMALL, 0.06)),
    "plan: gap of 3, 2,000 examples": Planned(with_gap(replace(WIDE, paragraphs=2000), 0.03)),
    "plan: gap of 6, seeds vary by 3 points": Planned(with_gap(replace(WIDE, finetuning_points=3.0), 0.06)),
    "plan: gap of 6, unequal spreads": Planned(with_gap(replace(WIDE, finetuning_points=2.5, unequal=0.4), 0.06)),
    "plan: gap of 6, very unequal spreads": Planned(with_gap(replace(WIDE, finetuning_points=2.5, unequal=0.8), 0.06)),
    "plan: gap of 5, examples in groups of ten": Planned(with_gap(replace(WIDE, paragraphs=150, questions=10), 0.05)),
    "plan: two budgets 5 points apart": Planned(
        replace(WIDE, scratch=0.45, top=0.57857, middle_tokens=2e6, finetuning_points=2.5), of_budgets=True
    ),
    "plan: gap of 12, three runs": Planned(with_gap(RUNS, 0.12), runs=3),
    "plan: gap of 8, five runs": Planned(with_gap(RUNS, 0.08), runs=5),
    "plan: gap of 12, 1 run in 4 of its end fails": Planned(
        replace(with_gap(WIDE, 0.12), failing=0.25, failing_at=3), promised=False
    ),
}
PILOTS = {
    "pilot: 400 examples": SMALL,
    "pilot: 1,000 examples, seeds vary by 3 points": replace(WIDE, finetuning_points=3.0),
    "pilot: examples in groups of ten": replace(WIDE, paragraphs=150, questions=10),
    "pilot: unequal spreads": replace(WIDE, finetuning_points=2.0, unequal=0.4),
    "pilot: 200 examples, seeds vary by 0.5 points": replace(SMALL, paragraphs=200, finetuning_points=0.5),
    "pilot: outside reference": replace(WIDE, finetuning_points=2.0, outside=0.6),
}
UNTIL = {
    "until: 1,000 examples, seeds vary by 3 points": replace(WIDE, finetuning_points=3.0),
    "until: 400 examples": SMALL,
    "until: unequal spreads": replace(WIDE, finetuning_points=2.5, unequal=0.4),
}
GAPS = (0.0, 0.03, 0.06)
MOST = 10  # of --seeds_until_resolved


class Simulated:
    """A study of so many runs, whose fine-tuning seeds are answered as more and more of them are asked for."""

    def __init__(self, world: World, runs: int, number: int):
        self.world, self.number, self.random = world, number, np.random.default_rng([17, runs, number])
        self.chances: Chances = chances_of(world, runs, MOST_SEEDS, self.random)
        self.answers = self.chances.answers(self.random, slice(0, FEW))  # [C, P, F, N]

    def study(
        self, seeds: int, *, draws: int, confidence: float = 0.95, columns: Sequence[int] | None = None
    ) -> TaskStudy:
        """The first fine-tuning seeds, of all checkpoints or of these columns."""
        world, there = self.world, self.answers.shape[2]
        if there < seeds:
            more = self.chances.answers(self.random, slice(there, seeds))
            self.answers = np.concatenate([self.answers, more], axis=2)
        keys = [SCRATCH, *(CheckpointKey("annealed", round(budget)) for budget in world.budgets)]
        if world.outside is not None:
            keys.append(CheckpointKey("reference", None))
        keys = keys if columns is None else [keys[column] for column in columns]
        scored = self.answers[:, :, :seeds] if columns is None else self.answers[list(columns), :, :seeds]
        grids: list[SeedGrid] = []
        cells: list[Cell] = []
        rows = []
        for key, values in zip(keys, scored, strict=True):
            kind = "annealed" if key == SCRATCH else key.kind
            runs = 1 if kind == "reference" else len(values)
            rows.append(values[:runs].reshape(runs * seeds, -1))
            places = range(len(cells), len(cells) + runs * seeds)
            grids.append(SeedGrid(tuple(range(runs)), tuple(range(seeds)), tuple(places), group=key.group))
            for place, score in zip(places, rows[-1].mean(axis=-1, dtype=np.float64).tolist(), strict=True):
                run, seed = divmod(place - places.start, seeds)
                cells.append(Cell(str(place), "task", kind, key.budget_tokens, run, seed, "em", score))
        flat = np.concatenate(rows)
        size = flat.shape[1]
        evaluate, units = mean_of(flat, np.arange(size))
        names, clean = tuple(map(str, range(size))), np.zeros(size, dtype=bool)
        # What is planned for examples counts them, not the groups that they stand in.
        examples = ExampleTable(evaluate, size * world.questions, size, units, flat, clean, names, None, {})
        table = TaskTable("task", "em", tuple(keys), tuple(grids), tuple(cells), examples, ())
        drawn = table.draws(Resampling(draws=draws, seed=self.number))
        return TaskStudy(table, drawn, (), confidence, 0, len(keys) - 1)


def share(found: Sequence[bool]) -> str:
    """Percent of what was found, with its standard error."""
    if not found:
        return "-"
    part = float(np.mean(found))
    return f"{100 * part:.1f} ± {100 * np.sqrt(part * (1 - part) / len(found)):.1f}"


@dataclass
class PlansFound:
    """What became of the plans of one world."""

    promised: list[float]
    seeds: list[int]
    kept: list[bool]
    unresolved: list[bool]  # `kept`, of the studies whose own interval had not shown the difference
    none: int = 0  # studies that were told that no number of seeds suffices

    def row(self, name: str) -> str:
        low, middle, high = np.quantile(self.seeds, [0.1, 0.5, 0.9], method="nearest")
        return (
            f"| {name} | {middle} ({low} to {high}) | {100 * np.mean(self.promised):.1f} | {share(self.kept)} | "
            f"{share(self.unresolved)} | {self.none} |"
        )


def plans(planned: Planned, simulations: int, draws: int) -> PlansFound:
    """Plan from the first three seeds for the true difference, and see whether the planned seeds show it."""
    world, found = planned.world, PlansFound([], [], [], [])
    last = len(world.scores) - 1
    pair = (last - 1, last) if planned.of_budgets else (0, last)
    for number in range(simulations):
        simulated = Simulated(world, planned.runs, number)
        study = simulated.study(FEW, draws=draws)
        difference = float(simulated.chances.expected[pair[1]] - simulated.chances.expected[pair[0]])
        gap = study.difference(study.reference, study.scratch)
        plan = plan_of(study, gap, planned.of_budgets, difference)
        assert plan is not None
        if plan.finetuning_seeds is None or plan.power is None:
            found.none += 1
            continue
        seen = simulated.study(plan.finetuning_seeds, draws=draws)
        found.promised.append(plan.power)
        found.seeds.append(plan.finetuning_seeds)
        found.kept.append((seen.difference(pair[1], pair[0]).low or 0.0) > 0)
        if (study.difference(pair[1], pair[0]).low or 0.0) <= 0:
            found.unresolved.append(found.kept[-1])
    return found


def pilots(world: World, gap: float, simulations: int, draws: int) -> Iterator[tuple[PilotVerdict, bool | None]]:
    """The verdict of each pilot, and whether a study with the seeds that it names resolves the gap upwards.

    None where the pilot names no seeds: it resolved the gap itself, saw none, or asks for more examples.
    """
    world = with_gap(world, gap)
    options, ends = GapOptions(pilot=True), [0, len(world.scores) - 1]
    own = pilot_look(options, [], FEW, 1)
    coming = looks_to_come(options, [own], 1)
    for number in range(simulations):
        simulated = Simulated(world, 1, number)
        study = simulated.study(FEW, draws=draws, confidence=1 - own.error, columns=ends)
        verdict = judge_pilot(study, study_seeds=max(coming), confidences=coming)
        followed = None
        if verdict.verdict == "resolvable" and gap:
            seeds = verdict.finetuning_seeds or FEW
            confidence = 1 - seed_look_error([own], seeds, seeds)
            whole = simulated.study(seeds, draws=draws, confidence=confidence, columns=ends)
            followed = (whole.difference(1, 0).low or 0.0) > 0
        yield verdict, followed


def pilot_row(name: str, gap: float, found: Sequence[tuple[PilotVerdict, bool | None]]) -> str:
    said = [verdict.verdict for verdict, _ in found]
    yes = share([one != "not seen" for one in said])
    kinds = " ".join(f"{100 * np.mean([one == kind for one in said]):.0f}" for kind in ("resolved", "resolvable"))
    examples = f"{100 * np.mean([one == 'needs examples' for one in said]):.0f}"
    kept = [followed for _, followed in found if followed is not None]
    return f"| {name} | {100 * gap:g} | {yes} | {kinds} {examples} | {share(kept)} |"


@dataclass(frozen=True)
class Stopped:
    """How one study with `--seeds_until_resolved` ended."""

    resolved: bool
    upwards: bool
    seeds: int


def until_resolved(world: World, gap: float, simulations: int, draws: int) -> Iterator[tuple[Stopped, Stopped]]:
    """Each study with its looks, and the same study analysed once, with the most seeds at 95 %."""
    world = with_gap(world, gap)
    options = GapOptions(seeds_until_resolved=MOST)
    most, last = most_seeds(options), len(world.scores) - 1
    for number in range(simulations):
        simulated = Simulated(world, 1, number)
        looks: list[SeedLook] = []
        resolved, seeds, study = False, 0, None
        for seeds in seed_stages(options):
            error = seed_look_error(looks, seeds, most)
            study = simulated.study(seeds, draws=draws, confidence=1 - error)
            resolved = study.p_value(last, 0) <= error
            looks = with_look(looks, SeedLook(seeds, error, {"task": resolved}))
            if resolved:
                break
        assert study is not None
        stopped = Stopped(resolved, study.draws.observed[last] > study.draws.observed[0], seeds)
        whole = simulated.study(most, draws=draws)
        once = whole.p_value(last, 0) <= ERROR
        yield stopped, Stopped(once, whole.draws.observed[last] > whole.draws.observed[0], most)


def until_row(name: str, gap: float, found: Sequence[tuple[Stopped, Stopped]]) -> str:
    # Without a gap, either sign is wrong.
    shares = [share([one.resolved and (one.upwards or not gap) for one in ones]) for ones in zip(*found, strict=True)]
    return f"| {name} | {100 * gap:g} | {shares[0]} | {shares[1]} | {np.mean([one.seeds for one, _ in found]):.1f} |"


PLAN_HEADER = (
    "| world | planned seeds (10 to 90 %) | promised power | found power | of those not resolved before | no plan |\n"
    "|---|---|---|---|---|---|"
)
PILOT_HEADER = (
    "| world | true gap | says yes | resolved, resolvable, needs examples | resolved with the seeds named |\n"
    "|---|---|---|---|---|"
)
UNTIL_HEADER = f"| world | true gap | resolved | once, with {MOST} seeds | mean seeds |\n|---|---|---|---|---|"


def rows(simulations: int, draws: int, only: str, gaps: Sequence[float]) -> Iterator[tuple[str, str]]:
    """Header and row of every world whose name holds `only`."""
    for name, planned in PLANNED.items():
        if only in name:
            yield PLAN_HEADER, plans(planned, simulations, draws).row(name.removeprefix("plan: "))
    for name, world in PILOTS.items():
        for gap in gaps if only in name else ():
            found = list(pilots(world, gap, simulations, draws))
            yield PILOT_HEADER, pilot_row(name.removeprefix("pilot: "), gap, found)
    for name, world in UNTIL.items():
        for gap in gaps if only in name else ():
            ended = list(until_resolved(world, gap, simulations, draws))
            yield UNTIL_HEADER, until_row(name.removeprefix("until: "), gap, ended)


def tables(simulations: int, draws: int, only: str = "", gaps: Sequence[float] = GAPS) -> Iterator[str]:
    """The lines of up to three tables, of the worlds whose name holds `only`."""
    before = ""
    for header, row in rows(simulations, draws, only, gaps):
        if header != before:
            yield f"\n{header}" if before else header
        before = header
        yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--simulations", type=int, default=100)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--only", default="", help="only worlds whose name holds this")
    parser.add_argument("--gaps", default="0,0.03,0.06", help="true gaps of pilots and of looks at more seeds")
    options = parser.parse_args()
    gaps = [float(gap) for gap in options.gaps.split(",")]
    for line in tables(options.simulations, options.draws, options.only, gaps):
        print(line, flush=True)


if __name__ == "__main__":
    main()
