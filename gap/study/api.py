"""The gap study from Python: `measure`, which launch/gap.py calls too, its keywords, and the study that it gives.

Importing this module loads neither torch nor transformers.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from html import escape
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

from gap.study.clock import Clock
from gap.study.options import GapOptions, with_defaults
from runtime.options.declaration import not_given
from runtime.options.keywords import Several, Words, options_of
from runtime.processes.interruption import forget_interruption, stopping_at_once
from runtime.processes.ranks import read_ranks
from runtime.processes.restoring import restoring_process
from runtime.stores.options import in_local_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gap.analysis.results import Analysis, Crossing, TaskResult
    from gap.cells.store import Cell
    from gap.intervals.interval import Estimate

CHARTS = ("gap", "score")
SHOWN_DOTS_PER_INCH = 110


class GapKeywords(TypedDict, total=False):
    """What a call takes: the fields of `GapOptions`, some of wider types, such as a path object or a list."""

    series: Several | None
    tasks: Several | None
    tasks_at_ends: Several | None
    reference: Words | None
    kinds: Several | None
    budgets: Several | None
    finetuning_seeds: int
    data_dir: Words | None
    max_train_samples: int | None
    max_eval_samples: int | None
    full: bool
    pretraining_seeds: int | None
    pretraining: Words
    learning_rates: Several | None
    reference_learning_rates: Several | None
    num_train_epochs: Several | None
    grid_extensions: int | None
    resample_split: bool
    warmup_ratio: float | None
    max_seq_length: int | None
    doc_stride: int
    max_answer_length: int | None
    global_batch_rows: int | None
    freeze_embeddings: bool | None
    pooling: Literal["cls", "mean", "max"] | None
    dropout: float | None
    independent: Words | None
    self_pretrained: Several | None
    scratch_longer: Several | None
    label_fractions: Several | None
    shuffled_labels: bool | None
    same_arguments: bool
    linear_probe: bool
    contamination: bool
    shards: Words | None
    on_overlap: Literal["stop", "drop"]
    pilot: bool
    seeds_until_resolved: int | None
    intervals: bool
    draws: int
    resolve: float | None
    price_per_hour: float
    currency: Words
    devices: int | None
    bf16: Literal["auto", "true", "false"] | bool
    per_device_train_batch_size: int | None
    per_device_eval_batch_size: int | None
    executor: Literal["local", "slurm"]
    max_parallel: int | None
    slurm_workers: int
    slurm_partition: Words | None
    slurm_minutes: int
    slurm_gpus: int
    slurm_cpus: int
    slurm_memory_gb: int
    slurm_account: Words | None
    slurm_qos: Words | None
    output_dir: Words
    upload: Words | None
    upload_wait_minutes: float
    dry_run: bool


@dataclass(frozen=True)
class Study:
    """A study's folder and its analysis; a notebook shows its answers and its curves.

    Without a report (a dry run, a pilot, jobs that were submitted, another rank than the main one) there is no
    `analysis`, and what is taken from it raises ValueError.
    """

    output_dir: Path
    analysis: Analysis | None = field(default=None, repr=False)

    @property
    def report(self) -> Path:
        """report.html; beside it lie curve.json, curve.csv and the pictures in figures/."""
        return self.output_dir / "report.html"

    @property
    def scores(self) -> list[Cell]:
        """Every fine-tuning run that is on record: task, checkpoint, seeds, `score` (0 to 1), `predictions`, times."""
        from gap.cells.store import read_scores

        return read_scores(self.output_dir / "scores.jsonl")

    @property
    def tasks(self) -> tuple[TaskResult, ...]:
        """The results of every task: gap, checkpoints, curves, warnings."""
        return self._analysed().tasks

    def task(self, name: str | None = None) -> TaskResult:
        """The results of one task; None: the first."""
        if name is None:
            return self.tasks[0]
        for task in self.tasks:
            if task.task == name:
                return task
        raise ValueError(f"task {name!r}: use one of {', '.join(task.task for task in self.tasks)}")

    @property
    def answer(self) -> str:
        """What the study says, a sentence or two for each task."""
        return "\n".join(task.answer for task in self.tasks)

    def gap(self, task: str | None = None) -> Estimate:
        """Score of the reference (or of the largest budget) minus that of scratch: `value`, `low`, `high`.

        From 0 to 1. The ends of the interval are None where it has none, and `refused` says why.
        """
        return self.task(task).gap

    def crossings(self, task: str | None = None) -> tuple[Crossing, ...]:
        """The pretraining tokens after which a share (`level`) of the gap is closed, with their intervals."""
        return tuple(crossing for curve in self.task(task).curves for crossing in curve.crossings)

    def figure(self, task: str | None = None, chart: Literal["gap", "score"] = "score") -> Figure | None:
        """The curve over pretraining tokens as a matplotlib figure, of the score or of the gap closed.

        None where the results do not have it: below two budgets, or without a gap.
        """
        from gap.report.charts import gap_chart, score_chart
        from gap.report.images import matplotlib_figure

        if chart not in CHARTS:
            raise ValueError(f"chart {chart!r}: use one of {', '.join(CHARTS)}")
        drawn = (gap_chart if chart == "gap" else score_chart)(self.task(task))
        return None if drawn is None else matplotlib_figure(drawn)

    def _repr_html_(self) -> str:
        """The answers and the curves, for a notebook."""
        if self.analysis is None:
            return f"<p>{escape(str(self.output_dir))}: no analysis</p>"
        parts = []
        for task in self.tasks:
            parts.append(f"<p>{escape(task.answer)}</p>")
            figures = [self.figure(task.task, "score"), self.figure(task.task, "gap")]
            parts += [_as_image(figure, task.task) for figure in figures if figure is not None]
        return "\n".join([*parts, f"<p>report: {escape(str(self.report))}</p>"])

    def _analysed(self) -> Analysis:
        if self.analysis is None:
            raise ValueError(f"{self.output_dir} has no analysis: this call has written no report")
        return self.analysis


def measure(
    options: GapOptions | None = None,
    /,
    *,
    command: str | None = None,
    whole_process: bool = False,
    **keywords: Unpack[GapKeywords],
) -> Study:
    """How much pretraining closes the gap: fine-tune a series, analyse, write the report, as launch/gap.py does.

    The keywords are the options of the command, under the same names and with the same defaults (`--help` describes
    them); or give one object, `measure(GapOptions(...))`. Without `series` it pretrains on the embedded small world
    first. A study that was interrupted continues, and finished cells are kept, when it is called again. `command` is
    what the report shows as its origin, this call by default. The time that is printed begins with this call or, for
    the `whole_process`, with its start.

    It starts one worker process for each device or core; `max_parallel` gives fewer. Under torchrun every rank calls
    it with the same options. The process is as before when it returns or raises: see `runtime.processes.restoring`.
    Progress and answers are printed.

    Raises TypeError for an unknown keyword or a value of another type; ValueError for options, tasks or checkpoints
    that cannot be used, and for a plan that could not answer; Failed where a checkpoint does not fit in memory or
    another rank failed; Interrupted on SIGTERM, SIGUSR1 or Ctrl-C, after which the same call continues; OSError of the
    disk.
    """
    wanted = in_local_folder(options_of(GapOptions, options, keywords, function="measure"))
    with restoring_process("measure", read_ranks()), stopping_at_once():
        from gap.study.study import run_study

        forget_interruption(wanted.output_dir)
        clock = Clock.of_process() if whole_process else Clock()
        analysis = run_study(with_defaults(wanted), command or call_text(wanted), clock)
    return Study(Path(wanted.output_dir), analysis)


def call_text(options: GapOptions) -> str:
    """The call as the report shows it: the options that are not at their default."""
    left_out = not_given(options)
    given = [f"{name}={value!r}" for name, value in vars(options).items() if name not in left_out]
    return f"gap.measure({', '.join(given)})"


def _as_image(figure: Figure, title: str) -> str:
    """A figure as an image that is part of the page."""
    stream = BytesIO()
    figure.savefig(stream, format="png", dpi=SHOWN_DOTS_PER_INCH)
    content = b64encode(stream.getvalue()).decode("ascii")
    return f'<img alt="{escape(title, quote=True)}" src="data:image/png;base64,{content}">'
