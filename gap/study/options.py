"""The options of `launch/gap.py`, and their defaults on the embedded small world and on a real series."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from gap.analysis.costs import Prices
from gap.cells.executor import Slurm
from gap.cells.job_list import CellOptions
from gap.cells.plan import Controls, Grid
from gap.study.experiment import Experiment
from gap.study.option_ranges import range_problems
from gap.study.until import GapWatch
from gap.tasks.contamination import Shards
from gap.tasks.kinds.task_data import ReadingOptions, RowOptions, TaskSpec
from gap.tasks.specification import parse_tasks, small_world_tasks
from pretraining.loop.training_data import SMALL_WORLD_DIRECTORY
from runtime.options.command_line import COMMAS
from runtime.processes.ranks import Ranks


def option(default: Any, text: str, **extra: Any) -> Any:
    """A field with its help text."""
    return field(default=default, metadata={"help": text, **extra})


@dataclass(frozen=True)
class GapOptions:
    """Options that are None take a default that depends on the series: see SMALL_WORLD and REAL_SERIES."""

    series: Annotated[str | None, COMMAS] = option(
        None, "series.json of one or more pretraining runs (commas between); none: small world"
    )
    tasks: Annotated[str | None, COMMAS] = option(
        None, "KIND:PLACE,...: qa:FOLDER, qa:TRAIN+TEST, glue:sst2@3000 (so many labels), ..."
    )
    tasks_at_ends: Annotated[str | None, COMMAS] = option(
        None, "tasks that are run from scratch and from the largest budget only"
    )
    independent: str | None = option(None, "control: series.json of a run that was made for one middle budget alone")
    reference: str | None = option(None, "a fully pretrained checkpoint, directory or hub name; none: largest budget")
    kinds: Annotated[str | None, COMMAS] = option(None, "checkpoints of each budget: annealed, raw, or annealed,raw")
    finetuning_seeds: int = option(3, "fine-tuning runs of every cell; an interval needs 3")
    intervals: bool = option(True, "false: scores without intervals, for fewer than 3 seeds")
    output_dir: str = option("runs/gap", "where scores, predictions, curves and the report go")
    full: bool = option(False, "small world: raw checkpoints, more pretraining seeds and all controls")

    learning_rates: Annotated[str | None, COMMAS] = option(
        None, "tried for every checkpoint on a held-out part of training: 2e-5,5e-5"
    )
    num_train_epochs: Annotated[str | None, COMMAS] = option(
        None, "epochs; several with commas are tried like the learning rates"
    )
    warmup_ratio: float | None = option(None, "share of the updates over which the learning rate rises from zero")
    max_seq_length: int | None = option(None, "longest row in tokens")
    doc_stride: int = option(128, "overlap of the windows of a long context")
    max_answer_length: int | None = option(None, "longest answer in tokens")
    global_batch_rows: int | None = option(None, "rows of an update")
    per_device_train_batch_size: int | None = option(None, "rows of a micro-batch; none: all at once")
    per_device_eval_batch_size: int | None = option(None, "rows of an evaluation batch")
    freeze_embeddings: bool | None = option(None, "keep the token embeddings as pretraining (or chance) left them")
    pooling: str | None = option(None, "of classification: cls, mean or max")
    dropout: float | None = option(None, "replaces every dropout rate of the model's configuration")
    bf16: str = option("auto", "true, false or auto: as the folder's cells, or the hardware", nargs="?", const="true")
    max_train_samples: int | None = option(None, "at most so many training examples of a task")
    max_eval_samples: int | None = option(None, "at most so many scored examples of a task")
    data_dir: str | None = option(None, "folder of GLUE's files; none: the data set nyu-mll/glue")
    on_overlap: str = option("stop", "texts both in training and scored: stop, or drop them from training")

    scratch_longer: Annotated[str | None, COMMAS] = option(
        None, "control: scratch with so many times the epochs: 2,4,8"
    )
    label_fractions: Annotated[str | None, COMMAS] = option(None, "control: shares of the labels: 0.125,0.25,0.5")
    shuffled_labels: bool | None = option(None, "control: labels that mean nothing; must close nothing")
    pretraining_seeds: int | None = option(None, "small world: pretraining runs")
    pretraining: str = option("", "small world: more options for launch/pretrain.py, as on a command line")

    executor: str = option("local", "local: one process a device; slurm: an array job over the same list")
    max_parallel: int | None = option(None, "cells at once; none: one a GPU, or one a core")
    slurm_workers: int = option(4, "tasks of the array job")
    slurm_partition: str | None = option(None, "partition of the array job")
    slurm_minutes: int = option(240, "time limit of each task of the array job")
    slurm_gpus: int = option(1, "GPUs of each task of the array job; 0 on a cluster without")
    slurm_cpus: int = option(4, "cores of each task of the array job")
    slurm_memory_gb: int = option(16, "memory of each task of the array job")
    slurm_account: str | None = option(None, "account that the array job is charged to")
    slurm_qos: str | None = option(None, "quality of service of the array job")

    contamination: bool = option(True, "look for the scored texts in the pretraining shards")
    shards: str | None = option(None, "shards of the series (directory or https); none: as its run.json says")
    price_per_hour: float = option(0.0, "price of a device-hour")
    currency: str = option("$", "its currency")
    devices: int | None = option(None, "devices that the series was pretrained on; none: as it says")
    draws: int = option(10_000, "bootstrap draws")
    resolve: float | None = option(None, "difference that seeds are planned for; none: 0.01, or an unresolved gap")
    dry_run: bool = option(False, "print the plan, the time and the cost, then stop")

    def __post_init__(self) -> None:
        if problems := range_problems(asdict(self)):
            raise ValueError("; ".join(problems))
        if self.full and self.series is not None:
            raise ValueError("--full is for the small world: name kinds and controls of a real series one by one")
        if self.independent is not None and self.series is None:
            raise ValueError("--independent needs --series: --full makes such a run of the small world")
        if self.series is not None and self.tasks is None:
            raise ValueError("--series needs --tasks, such as qa:FOLDER,glue:sst2")
        if self.pretraining_seeds is not None and (self.pretraining_seeds < 1 or self.series is not None):
            raise ValueError("--pretraining_seeds is for the small world, and at least 1: name more --series instead")

    @property
    def kind_names(self) -> list[str]:
        return [kind.strip() for kind in (self.kinds or "annealed").split(",")]

    @property
    def runs_on_other_gpus(self) -> bool:
        return self.executor == "slurm" and self.slurm_gpus > 0

    @property
    def independent_run(self) -> Path | None:
        """The series of the control run of a middle budget."""
        if self.independent is not None:
            return Path(self.independent)
        return Path(self.output_dir) / "pretraining" / "independent" / "series.json" if self.full else None

    def experiment(self) -> Experiment:
        """What these options ask for."""
        own: list[TaskSpec] = small_world_tasks(SMALL_WORLD_DIRECTORY) if self.series is None else []
        tasks = parse_tasks(self.tasks) if self.tasks else own[:1]
        ends = parse_tasks(self.tasks_at_ends) if self.tasks_at_ends else [] if self.tasks else own[1:]
        return Experiment(
            tuple(tasks),
            tuple(ends),
            self.finetuning_seeds,
            self.intervals,
            Grid(numbers(self.learning_rates), numbers(self.num_train_epochs)),
            Controls(numbers(self.scratch_longer), numbers(self.label_fractions), bool(self.shuffled_labels)),
            CellOptions(
                ReadingOptions(self.data_dir, self.max_train_samples, self.max_eval_samples, self.on_overlap),
                RowOptions(
                    int(self.max_seq_length or 384),
                    self.doc_stride,
                    self.pooling or "cls",
                    self.max_answer_length or 30,
                ),
                global_batch_rows=int(self.global_batch_rows or 32),
                per_device_train_batch_size=self.per_device_train_batch_size,
                per_device_eval_batch_size=int(self.per_device_eval_batch_size or 128),
                warmup_ratio=0.1 if self.warmup_ratio is None else self.warmup_ratio,
                dropout=self.dropout,
                freeze_embeddings=bool(self.freeze_embeddings),
                bf16=self.bf16,
            ),
        )

    def slurm(self) -> Slurm:
        named = {
            "slurm_partition": self.slurm_partition,
            "slurm_account": self.slurm_account,
            "slurm_qos": self.slurm_qos,
        }
        return Slurm(
            self.slurm_workers,
            self.slurm_minutes,
            self.slurm_gpus,
            self.slurm_cpus,
            self.slurm_memory_gb,
            {name: value for name, value in named.items() if value},
        )

    def prices(self) -> Prices:
        return Prices(self.price_per_hour, self.currency, self.devices)

    def price(self) -> dict[str, Any]:
        return {"price_per_hour": self.price_per_hour, "currency": self.currency}

    def notes(self) -> list[str]:
        """What a reader of the report should know of how the cells were made."""
        if len(numbers(self.learning_rates)) * len(numbers(self.num_train_epochs)) == 1:
            return [
                f"Learning rate {self.learning_rates} and {self.num_train_epochs} epochs for every checkpoint, scratch "
                "included: nothing was searched, the gap is that with the same arguments for all."
            ]
        return [
            f"Learning rates {self.learning_rates} and epochs {self.num_train_epochs} were searched alike for every "
            "checkpoint, scratch included, on a held-out fifth of its training examples; the chosen ones were then "
            "trained on all of them, without looking at the scored examples."
        ]


SMALL_WORLD: dict[str, Any] = {
    "kinds": "annealed",
    "learning_rates": "2.5e-3",
    "num_train_epochs": "5",
    "warmup_ratio": 0.5,
    "max_seq_length": 64,
    "global_batch_rows": 16,
    "per_device_eval_batch_size": 256,
    "pooling": "mean",
    "max_answer_length": 8,
    "scratch_longer": "2",
    "pretraining_seeds": 1,
    "shuffled_labels": False,
}
SMALL_WORLD_FULL: dict[str, Any] = {
    **SMALL_WORLD,
    "kinds": "annealed,raw",
    "scratch_longer": "2,4,8",
    "label_fractions": "0.125,0.25,0.5",
    "pretraining_seeds": 3,
    "shuffled_labels": True,
}
REAL_SERIES: dict[str, Any] = {
    "kinds": "annealed",
    "learning_rates": "3e-5,1e-4,3e-4",
    "num_train_epochs": "3",
    "max_seq_length": 384,
    "per_device_eval_batch_size": 128,
    "shuffled_labels": False,
}


OF_A_LOOK = (  # options of this command that `launch/pretrain.py --until` takes in --finetuning
    *("learning_rates", "num_train_epochs", "warmup_ratio", "max_seq_length", "doc_stride", "max_answer_length"),
    "global_batch_rows",
    *("per_device_train_batch_size", "per_device_eval_batch_size", "freeze_embeddings", "pooling", "dropout", "bf16"),
    *("max_train_samples", "max_eval_samples", "data_dir", "on_overlap", "contamination", "draws"),
)


def with_defaults(options: GapOptions) -> GapOptions:
    """Fill what was not given; controls of the small world only where its own tasks are run."""
    defaults = REAL_SERIES if options.series is not None else SMALL_WORLD_FULL if options.full else SMALL_WORLD
    return replace(options, **{name: value for name, value in defaults.items() if getattr(options, name) is None})


def numbers(text: str | None) -> tuple[float, ...]:
    """`1e-4,3e-4` -> numbers, each once; none or nothing -> none. ValueError for words, infinities and NaN."""
    try:
        found = tuple(dict.fromkeys(float(part) for part in (text or "").split(",") if part.strip()))
    except ValueError as error:
        raise ValueError(f"{text!r} is no list of numbers: put commas between, such as 1e-4,3e-4") from error
    if not all(map(math.isfinite, found)):
        raise ValueError(f"{text!r}: finite numbers with commas between, such as 1e-4,3e-4")
    return found


def make_watch(
    until: str,
    *,
    tasks: str | None,
    reference: str | None,
    finetuning_seeds: int,
    more: GapOptions,
    on_small_world: bool,
    run: Path,
    shards: Shards,
    budgets: Sequence[float],
    ranks: Ranks,
    hang_timeout_seconds: float = 0.0,
) -> GapWatch:
    """What `launch/pretrain.py --until` calls after each export; `more` are the options in its --finetuning.

    Raises ValueError for a condition that is none, without a reference, for real shards without tasks, and for options
    that a look has no use for.
    """
    if tasks is None and not on_small_world:
        raise ValueError("--until needs --tasks, such as qa:FOLDER,glue:sst2")
    default = GapOptions()
    unused = [name for name in asdict(more) if name not in OF_A_LOOK and getattr(more, name) != getattr(default, name)]
    if unused:
        raise ValueError(
            f"--finetuning: --until makes no use of --{', --'.join(unused)}; it takes "
            f"--{', --'.join(OF_A_LOOK)}, and --tasks, --reference and --finetuning_seeds beside it"
        )
    own = replace(more, series=None if on_small_world else str(run), tasks=tasks, finetuning_seeds=finetuning_seeds)
    experiment = with_defaults(own).experiment()
    searched = shards if own.contamination else None
    return GapWatch(run, until, experiment, reference, budgets, ranks, searched, own.draws, hang_timeout_seconds)
