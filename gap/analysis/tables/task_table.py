"""The table of one task's cells, checkpoints x seeds, with scores and examples, for resampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gap.analysis.tables.packed_predictions import PackedPredictions, packed_or_own
from gap.cells.plan import SELF_PRETRAINED, UNIGRAM, too_few_runs
from gap.cells.store import LINEAR_PROBE, Cell
from gap.intervals.bootstrap import Draws, Resampling, resample
from gap.intervals.variance import Floats, SeedGrid, Weights
from gap.measures.effective_labels import share_text
from gap.measures.weighted_metrics import ExampleTable, tabulate_examples
from gap.tasks.contamination import not_searched, read_contaminated, texts_too_short
from runtime.plurals import counted

FEWEST_SEEDS = 3


@dataclass(frozen=True)
class CheckpointKey:
    """The key of a table column: checkpoint and setting of fine-tuning. Scratch has budget 0 and kind `scratch`.

    The checkpoint that a continued series starts from has budget 0 and kind `start`.
    """

    kind: str
    budget_tokens: int | None
    control: str | None = None
    label_fraction: float = 1.0
    epochs_factor: float = 1.0

    @staticmethod
    def of(cell: Cell) -> CheckpointKey:
        kind = "scratch" if cell.kind in ("raw", "annealed") and cell.budget_tokens == 0 else cell.kind
        return CheckpointKey(kind, cell.budget_tokens, cell.control, cell.label_fraction, cell.epochs_factor)

    @property
    def is_floor(self) -> bool:
        """Whether it is the frequencies of tokens, and no model."""
        return self.control == UNIGRAM

    @property
    def on_the_curve(self) -> bool:
        return self.control is None and self.label_fraction == 1.0 and self.epochs_factor == 1.0

    @property
    def group(self) -> str:
        """Checkpoints whose fine-tuning seeds may vary alike: with all labels, and with fewer or shuffled ones."""
        if self.control == LINEAR_PROBE:
            return self.control
        return "labels" if self.label_fraction == 1.0 and self.control != "shuffled_labels" else "other labels"

    @property
    def has_one_optimum(self) -> bool:
        """Whether a fine-tuning seed changes nothing: a linear probe on weights that are not random."""
        return self.control == LINEAR_PROBE and self.kind not in ("scratch", "reference_scratch")


SCRATCH = CheckpointKey("scratch", 0)
FLOOR = CheckpointKey("scratch", 0, UNIGRAM)
START = CheckpointKey("start", 0)


@dataclass(frozen=True)
class TaskTable:
    """One task's cells; `cells` are in the order of the grids and of the examples' rows."""

    task: str
    metric: str
    checkpoints: tuple[CheckpointKey, ...]
    grids: tuple[SeedGrid, ...]
    cells: tuple[Cell, ...]
    examples: ExampleTable | None
    notes: tuple[str, ...]
    not_searched: str | None = None  # why the pretraining corpus was not searched; None: searched
    too_short: int | None = None  # scored texts that the search left out as too short; None: not on record

    @property
    def cell_scores(self) -> Floats:
        return np.array([cell.score for cell in self.cells], dtype=np.float64)

    def find(self, checkpoint: CheckpointKey) -> int | None:
        """The checkpoint's column, None if it was not run."""
        return self.checkpoints.index(checkpoint) if checkpoint in self.checkpoints else None

    def cells_of(self, column: int) -> list[Cell]:
        return [self.cells[number] for number in self.grids[column].cells]

    @property
    def zero_shot(self) -> bool:
        """Whether the checkpoints were scored as they are."""
        return all(cell.details.get("zero_shot") is True for cell in self.cells)

    @property
    def cluster(self) -> str:
        """What a cluster of examples is, in the singular."""
        kinds = {str(cell.details.get("clusters") or "cluster") for cell in self.cells}
        return kinds.pop() if len(kinds) == 1 else "cluster"

    def refusal(self, columns: Sequence[int]) -> str | None:
        """Why no interval is given for a statistic of these checkpoints; None if one is.

        The seeds of several pretraining runs suffice, with one fine-tuning seed each; a single run needs several,
        unless they would all score the same. On a zero-shot task a reference from outside, and the checkpoint that a
        series continues, are one fixed model, without any seed.
        """
        if self.zero_shot:
            given = ("reference", START.kind)
            own = [self.grids[column] for column in columns if self.checkpoints[column].kind not in given]
            fewest = min((len(grid.pretraining_seeds) for grid in own), default=FEWEST_SEEDS)
            return too_few_runs(fewest) if fewest < FEWEST_SEEDS else None
        varied = [column for column in columns if not self.checkpoints[column].has_one_optimum]
        single = [self.grids[column] for column in varied if not self.grids[column].has_runs]
        fewest = min((len(grid.finetuning_seeds) for grid in single), default=FEWEST_SEEDS)
        if fewest < FEWEST_SEEDS:
            return f"{counted(fewest, 'fine-tuning seed')}: an interval needs {FEWEST_SEEDS}"
        return None

    @property
    def units(self) -> list[Weights] | None:
        """Per checkpoint the values [P, F, G] of its cells by cluster of examples; None where the metric is no mean."""
        if self.examples is None or self.examples.units is None:
            return None
        return [self.examples.units[list(grid.cells)].reshape(*map(len, grid.seeds), -1) for grid in self.grids]

    def draws(self, resampling: Resampling) -> Draws:
        """Resample the task's seeds and examples."""
        return resample(
            self.grids,
            self.cell_scores,
            None if self.examples is None else self.examples.evaluate,
            num_clusters=0 if self.examples is None else self.examples.num_clusters,
            resampling=resampling,
            units=self.units,
        )


def tabulate(task: str, cells: Sequence[Cell], folder: Path) -> TaskTable:
    """The table of one task; predictions are read relative to the folder of scores.jsonl.

    Seeds are crossed: a fine-tuning seed that some pretraining runs of a checkpoint lack is left out, and noted.
    """
    metrics = sorted({cell.metric for cell in cells})
    if len(metrics) != 1:
        raise ValueError(f"task {task} was scored by {', '.join(metrics)}: give a task one metric; keep the runs apart")
    by_checkpoint: dict[CheckpointKey, list[Cell]] = {}
    for cell in cells:
        by_checkpoint.setdefault(CheckpointKey.of(cell), []).append(cell)
    ordered: list[Cell] = []
    grids, notes = [], []
    checkpoints = sorted(by_checkpoint, key=_order)
    for checkpoint in checkpoints:
        members = {(cell.pretraining_seed, cell.finetuning_seed): cell for cell in by_checkpoint[checkpoint]}
        pretraining = sorted({first for first, _ in members})
        per_run = [{second for first, second in members if first == seed} for seed in pretraining]
        finetuning = sorted(set.intersection(*per_run))
        if not finetuning:  # no seed is shared by all runs: keep the run with the most cells
            best = max(range(len(pretraining)), key=lambda number: len(per_run[number]))
            pretraining, finetuning = [pretraining[best]], sorted(per_run[best])
        left_out = len(members) - len(pretraining) * len(finetuning)
        if left_out:
            notes.append(
                f"{describe(checkpoint)}: {left_out} of {counted(len(members), 'cell')} left out, their seeds are not "
                "crossed"
            )
        start = len(ordered)
        ordered += [members[first, second] for first in pretraining for second in finetuning]
        places = tuple(range(start, len(ordered)))
        grids.append(SeedGrid(tuple(pretraining), tuple(finetuning), places, group=checkpoint.group))
    examples = None
    if all(cell.predictions for cell in ordered):
        packed = PackedPredictions(folder)
        records = [packed_or_own(cell, folder, packed) for cell in ordered]
        examples = tabulate_examples(metrics[0], records, read_contaminated(folder, task))
    else:
        notes.append("some cells have no per-example predictions: the examples are held fixed, intervals are too short")
    return TaskTable(
        task,
        metrics[0],
        tuple(checkpoints),
        tuple(grids),
        tuple(ordered),
        examples,
        tuple(notes),
        not_searched(folder, task),
        texts_too_short(folder, task),
    )


def describe(checkpoint: CheckpointKey) -> str:
    """The checkpoint as text, such as `annealed at 1,000,000 tokens, 1/8 of the labels`."""
    if checkpoint.is_floor:
        return "unigram floor"
    if checkpoint.kind in ("scratch", "reference"):
        words = [checkpoint.kind]
    elif checkpoint.kind == "reference_scratch":
        words = ["reference architecture from scratch"]
    elif checkpoint.kind == "start":
        words = ["your starting checkpoint"]
    elif checkpoint.control == SELF_PRETRAINED:
        words = [f"the task's own texts, {checkpoint.budget_tokens:,} tokens"]
    else:
        words = [f"{checkpoint.kind} at {checkpoint.budget_tokens:,} tokens"]
    if checkpoint.epochs_factor != 1:
        words.append(f"{checkpoint.epochs_factor:g}x epochs")
    if checkpoint.label_fraction != 1:
        words.append(f"{share_text(checkpoint.label_fraction)} of the labels")
    if checkpoint.control not in (None, "scratch_longer", "fewer_labels", SELF_PRETRAINED):
        words.append(str(checkpoint.control).replace("_", " "))
    return ", ".join(words)


def _order(checkpoint: CheckpointKey) -> tuple[object, ...]:
    kinds = ("start", "scratch", "raw", "annealed", "reference_scratch", "reference")
    return (
        checkpoint.control or "",
        kinds.index(checkpoint.kind),
        checkpoint.budget_tokens or 0,
        checkpoint.label_fraction,
        checkpoint.epochs_factor,
    )
