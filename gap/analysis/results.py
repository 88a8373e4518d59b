"""The results of an analysis as plain dataclasses, from which curve.json and the report are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gap.analysis.tables.costs import CheckpointCost
from gap.intervals.failures import FailureRate
from gap.intervals.interval import Estimate
from gap.intervals.power import SeedPlan
from gap.measures.forecast import Backtest

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Dot:
    """One cell."""

    pretraining_seed: int
    finetuning_seed: int
    score: float
    status: str
    seconds: float
    learning_rate: float | None
    fingerprint: str


@dataclass(frozen=True)
class Measured:
    """A measure of `gap.measures.certainty.MEASURES`, in its own unit, and that minus scratch's (None: is scratch)."""

    value: Estimate
    against_scratch: Estimate | None
    num_examples: int  # for which every cell has it


@dataclass(frozen=True)
class CheckpointResult:
    """All cells of one checkpoint with one setting of fine-tuning."""

    name: str
    kind: str
    budget_tokens: int | None
    control: str | None
    label_fraction: float
    epochs_factor: float
    layout: str  # pretraining x fine-tuning seeds
    score: Estimate
    median: float
    failed_runs: int
    runs: int
    gap_closed: Estimate | None
    metrics: Mapping[str, float]
    cost: CheckpointCost | None
    score_without_contaminated: float | None
    dots: tuple[Dot, ...]
    measures: Mapping[str, Measured] = field(default_factory=dict)  # loss and calibration, where the records have them


@dataclass(frozen=True)
class Crossing:
    """Tokens at which a share of the gap is closed. An end outside the budgets is None and marked as open."""

    level: float
    tokens: float | None
    low: float | None
    high: float | None
    state: str  # measured, not_reached, already_reached, lost_again
    low_open: bool  # the interval reaches below the smallest budget
    high_open: bool  # the interval reaches beyond the largest
    refused: str | None
    other_units: Mapping[str, tuple[float | None, float | None, float | None]]  # unit -> value, low, high


@dataclass(frozen=True)
class ForecastPoint:
    """The score expected at a multiple of the largest budget: not a measurement."""

    multiple: float
    tokens: float
    score: Estimate


@dataclass(frozen=True)
class WithheldForecast:
    """A multiple of the largest budget for which no forecast is given, and why."""

    multiple: float
    tokens: float
    reason: str


@dataclass(frozen=True)
class CurveResult:
    """The curve of one kind of checkpoint, raw or annealed."""

    kind: str
    budgets: tuple[float, float]  # the smallest and the largest, in tokens
    line: tuple[tuple[float, float], ...]  # tokens and gap closed of the monotone fit
    crossings: tuple[Crossing, ...]
    points_per_doubling: Estimate | None  # score gained per doubling of the budget, over all budgets above scratch
    forecast: tuple[ForecastPoint, ...]
    withheld: tuple[WithheldForecast, ...]
    backtests: tuple[Backtest, ...]
    forecast_refused: str | None


@dataclass(frozen=True)
class LabelWorth:
    """Scratch with `worth` labels equals a checkpoint with `labels`; ends outside the available labels are None."""

    checkpoint: str
    budget_tokens: int | None
    label_fraction: float
    labels: float
    worth: float | None
    low: float | None
    high: float | None
    state: str  # measured, more_than_all, fewer_than_fewest
    low_open: bool
    high_open: bool
    refused: str | None


@dataclass(frozen=True)
class ProbedCheckpoint:
    """A checkpoint of the curve with its linear probe, by their places among the task's checkpoints."""

    finetuned: int
    probe: int
    difference: Estimate  # score of the probe minus that of the fine-tuned checkpoint
    finetuned_seconds: float  # of a cell, its share of the search included
    probe_seconds: float


@dataclass(frozen=True)
class ProbeComparison:
    """The linear probe beside fine-tuning."""

    checkpoints: tuple[ProbedCheckpoint, ...]
    agreement: Estimate  # Kendall's tau-b of the two curves
    ranked: int  # checkpoints of the series that it ranks, scratch among them


@dataclass(frozen=True)
class TaskResult:
    """One task."""

    task: str
    metric: str
    num_examples: int | None
    num_clusters: int | None
    conditional: str | None  # "of 98.75 % confidence, given this pretraining run": what the intervals are of
    reference: str
    reference_in_series: bool
    gap: Estimate
    gap_resolved: bool
    gap_p_value: float | None  # of no gap, on this task alone; None without an interval
    gap_adjusted_p_value: float | None  # by Holm, over the tasks of the study
    checkpoints: tuple[CheckpointResult, ...]
    curves: tuple[CurveResult, ...]
    labels: tuple[LabelWorth, ...]
    plateau: Estimate | None
    plateau_verdict: str | None
    plan: SeedPlan | None
    loss_rank_correlation: float | None
    peeking_gain: float | None
    contaminated_examples: int
    contamination_not_searched: str | None  # why the pretraining corpus was not searched; None: searched
    answer: str
    warnings: tuple[str, ...]
    failures: FailureRate
    notes: tuple[str, ...]
    floor: str = "scratch"  # what the gap begins at, in words
    probe: ProbeComparison | None = None
    contamination_too_short: int | None = None  # scored texts that were not searched for; None: not on record
    cluster: str = "cluster"  # what a cluster of examples is: an article, a paragraph, a text
    resolvable_gap: str | None = None  # zero-shot, not resolved: the gap that these and more runs would resolve

    def is_resolved(self, confidence: float) -> bool:
        """Whether there is a gap, of either sign, by the p-value that is corrected for the tasks of the study."""
        return self.gap_adjusted_p_value is not None and self.gap_adjusted_p_value <= 1 - confidence


@dataclass(frozen=True)
class MacroAverage:
    """Several tasks as one: mean score (NaN if metrics differ) and mean gap closed of each checkpoint."""

    tasks: tuple[str, ...]
    metric: str | None
    checkpoints: tuple[CheckpointResult, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Analysis:
    """All tasks of one run."""

    name: str
    tasks: tuple[TaskResult, ...]
    confidence: float
    draws: int
    seed: int
    currency: str
    priced: bool
    commands: tuple[str, ...] = ()
    made: Mapping[str, str] = field(default_factory=dict)  # when, on what, with which options and code
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    macro: MacroAverage | None = None
    schema_version: int = SCHEMA_VERSION
    extra: Mapping[str, Any] = field(default_factory=dict)
