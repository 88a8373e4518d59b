"""The options of `launch/gap.py`, and their defaults on the embedded small world and on a real series."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from finetuning.examples.recipe import FinetuningOptions
from finetuning.recipes.options.glue import GlueOptions
from finetuning.recipes.options.qa import QAOptions
from finetuning.recipes.options.texts import TextOptions
from finetuning.sweep.sweep_options import SweepOptions
from gap.analysis.tables.costs import Prices
from gap.cells.job_list import CellOptions
from gap.cells.search.grid import MOST_EXTENSIONS
from gap.report_options import ANALYSIS, ReportOptions
from gap.study.until_options import PretrainCommandOptions
from gap.tasks.kinds.task_data import ReadingOptions, RowOptions
from pretraining.plan.options import PretrainingOptions
from runtime.options.declaration import (
    MACHINE,
    TRAINING,
    Options,
    by_data,
    not_given,
    option,
    option_as_in,
)
from runtime.stores.options import UploadOptions, upload_problems

OF_THE_TASKS, CONTROLS, CLUSTER = "tasks and checkpoints", "controls", "cluster"
CONTAMINATION = "contamination"
BY_WIDTH = "width"  # learning rates that follow the model's hidden size
SMALL_WORLD, FULL, REAL_SERIES = "on the small world", "with --full", "with --series"  # what a default depends on
OF_A_LOOK = "launch/pretrain.py --until takes it in --finetuning"


@dataclass(frozen=True)
class GapOptions(Options):
    """Options of a study; those that are None take a default that depends on the series, the small world or another."""

    series: str | None = option(
        None,
        "series.json of one or more pretraining runs (separated by commas): files, s3 or gs addresses, names on the "
        "hub; none: small world",
        group=OF_THE_TASKS,
        commas=True,
    )
    tasks: str | None = option_as_in(
        None,
        PretrainCommandOptions,
        "tasks",
        "KIND:PLACE,...: qa:FOLDER, qa:TRAIN+TEST, glue:sst2@3000 (with 3000 labels), pos=tokens:FILE, "
        "blimp=pairs:FOLDER@100 (zero-shot, 100 pairs a paradigm), ...",
        group=OF_THE_TASKS,
        identity=True,
    )
    tasks_at_ends: str | None = option(
        None,
        "tasks that are run only from scratch and from the largest budget",
        group=OF_THE_TASKS,
        commas=True,
    )
    reference: str | None = option_as_in(
        None,
        PretrainCommandOptions,
        "reference",
        "a fully pretrained checkpoint: directory, address, hub name or OWNER/NAME@REVISION; none: largest budget",
        group=OF_THE_TASKS,
        identity=True,
    )
    kinds: str | None = option(
        None,
        "checkpoints of each budget: one kind, or both separated by a comma",
        group=OF_THE_TASKS,
        choices=("annealed", "raw"),
        commas=True,
        by_data={SMALL_WORLD: "annealed", FULL: "annealed,raw", REAL_SERIES: "annealed"},
    )
    budgets: str | None = option(
        None,
        "budgets of the series that are run, such as 1.25e6,5e6; none: all",
        group=OF_THE_TASKS,
        commas=True,
    )
    finetuning_seeds: int = option_as_in(
        3,
        PretrainCommandOptions,
        "finetuning_seeds",
        "fine-tuning runs of every cell; an interval needs 3",
        group=OF_THE_TASKS,
        identity=True,
    )
    data_dir: str | None = option_as_in(
        None,
        GlueOptions,
        "data_dir",
        "folder of GLUE's files; none: the data set nyu-mll/glue",
        group=OF_THE_TASKS,
        marks=(OF_A_LOOK,),
    )
    max_train_samples: int | None = option_as_in(
        None,
        FinetuningOptions,
        "max_train_samples",
        "largest number of training examples per task",
        group=OF_THE_TASKS,
        marks=(OF_A_LOOK,),
    )
    max_eval_samples: int | None = option_as_in(
        None,
        FinetuningOptions,
        "max_eval_samples",
        "largest number of scored examples per task",
        group=OF_THE_TASKS,
        marks=(OF_A_LOOK,),
    )
    full: bool = option(
        False, "small world: raw checkpoints, more pretraining seeds and all controls", group=OF_THE_TASKS
    )
    pretraining_seeds: int | None = option(
        None,
        "small world: pretraining runs",
        group=OF_THE_TASKS,
        at_least=1,
        by_data={SMALL_WORLD: 1, FULL: 3},
    )
    pretraining: str = option(
        "", "small world: further options for launch/pretrain.py, as on a command line", group=OF_THE_TASKS
    )

    learning_rates: str | None = option(
        None,
        "learning rates tried for every checkpoint, as 2e-5,5e-5; width: 3 around 3e-4 x 256 / hidden size",
        group=TRAINING,
        commas=True,
        by_data={SMALL_WORLD: "2.5e-3", FULL: "2.5e-3", REAL_SERIES: BY_WIDTH},
        marks=(OF_A_LOOK,),
    )
    reference_learning_rates: str | None = option(
        None,
        "learning rates of --reference and of its architecture from scratch; none: as --learning_rates",
        group=TRAINING,
        commas=True,
        marks=(OF_A_LOOK,),
    )
    num_train_epochs: str | None = option(
        None,
        "epochs; several, separated by commas, are tried like the learning rates",
        group=TRAINING,
        commas=True,
        by_data={SMALL_WORLD: "5", FULL: "5", REAL_SERIES: "2,4"},
        marks=(OF_A_LOOK,),
    )
    grid_extensions: int | None = option(
        None,
        "further rates, and numbers of epochs, tried where the best is at an edge of the grid",
        group=TRAINING,
        at_least=0,
        at_most=MOST_EXTENSIONS,
        by_data={SMALL_WORLD: 0, FULL: 0, REAL_SERIES: 2},
        marks=(OF_A_LOOK,),
    )
    resample_split: bool = option(
        False,
        "draw the held-out part anew for each fine-tuning seed, which then has a search of its own",
        group=TRAINING,
        marks=(OF_A_LOOK,),
    )
    warmup_ratio: float | None = option_as_in(
        None,
        FinetuningOptions,
        "warmup_ratio",
        by_data={SMALL_WORLD: 0.5, FULL: 0.5, REAL_SERIES: CellOptions.warmup_ratio},
        marks=(OF_A_LOOK,),
    )
    max_seq_length: int | None = option_as_in(
        None,
        FinetuningOptions,
        "max_seq_length",
        "longest row in tokens",
        group=TRAINING,
        by_data={SMALL_WORLD: 64, FULL: 64, REAL_SERIES: RowOptions.max_seq_length},
        marks=(OF_A_LOOK,),
    )
    doc_stride: int = option_as_in(
        RowOptions.doc_stride,
        QAOptions,
        "doc_stride",
        "overlap of the windows of a long context",
        group=TRAINING,
        marks=(OF_A_LOOK,),
    )
    max_answer_length: int | None = option_as_in(
        None,
        QAOptions,
        "max_answer_length",
        group=TRAINING,
        by_data={SMALL_WORLD: 8, FULL: 8, REAL_SERIES: RowOptions.max_answer_length},
        marks=(OF_A_LOOK,),
    )
    global_batch_rows: int | None = option_as_in(
        None,
        FinetuningOptions,
        "global_batch_rows",
        "rows of an update",
        by_data={SMALL_WORLD: 16, FULL: 16, REAL_SERIES: CellOptions.global_batch_rows},
        marks=(OF_A_LOOK,),
    )
    freeze_embeddings: bool | None = option(
        None,
        "keep the token embeddings as pretraining (or chance) left them",
        group=TRAINING,
        marks=(OF_A_LOOK,),
    )
    pooling: str | None = option_as_in(
        None,
        TextOptions,
        "pooling",
        "how classification pools the tokens of a text",
        group=TRAINING,
        by_data={SMALL_WORLD: "mean", FULL: "mean", REAL_SERIES: RowOptions.pooling},
        marks=(OF_A_LOOK,),
    )
    dropout: float | None = option_as_in(
        None,
        FinetuningOptions,
        "dropout",
        "replaces every dropout rate of the model's configuration",
        group=TRAINING,
        marks=(OF_A_LOOK,),
    )

    independent: str | None = option(None, "series.json of a run made for one middle budget alone", group=CONTROLS)
    self_pretrained: str | None = option(
        None,
        "series.json of runs on the training texts of one task alone, as launch/build_shards.py --task makes them",
        group=CONTROLS,
        commas=True,
    )
    scratch_longer: str | None = option(
        None,
        "factors on the epochs of scratch: 2,4,8; '' for none",
        group=CONTROLS,
        commas=True,
        by_data={SMALL_WORLD: "2", FULL: "2,4,8", REAL_SERIES: "2"},
    )
    label_fractions: str | None = option(
        None,
        "shares of the labels: 0.125,0.25,0.5",
        group=CONTROLS,
        commas=True,
        by_data={FULL: "0.125,0.25,0.5"},
    )
    shuffled_labels: bool | None = option(
        None,
        "meaningless labels, which must close no gap",
        group=CONTROLS,
        by_data={SMALL_WORLD: False, FULL: True, REAL_SERIES: False},
    )
    same_arguments: bool = option(
        False, "scratch with the rate and epochs that the reference (or largest budget) chose", group=CONTROLS
    )
    linear_probe: bool = option(
        False,
        "a linear model on the frozen encoder of every checkpoint of the curve, beside its fine-tuning",
        group=CONTROLS,
    )

    contamination: bool = option(
        True, "search the pretraining shards for the scored texts", group=CONTAMINATION, marks=(OF_A_LOOK,)
    )
    shards: str | None = option_as_in(
        None,
        PretrainingOptions,
        "shards",
        "shards of the series (directory or https); none: those in its run.json",
        group=CONTAMINATION,
        identity=True,
    )
    on_overlap: str = option(
        ReadingOptions.on_overlap,
        "texts both in training and scored: stop, or drop them from training",
        group=CONTAMINATION,
        choices=("stop", "drop"),
        marks=(OF_A_LOOK,),
    )

    pilot: bool = option(
        False,
        "run both ends of each gap (3 fine-tuning seeds; zero-shot: all runs); say what can be resolved",
        group=ANALYSIS,
    )
    seeds_until_resolved: int | None = option(
        None,
        "add fine-tuning seeds to tasks without a resolved gap, up to this many; all looks together err as one may",
        group=ANALYSIS,
        at_least=3,
    )
    intervals: bool = option(True, "false: scores without intervals, for fewer than 3 seeds", group=ANALYSIS)
    draws: int = option_as_in(10_000, ReportOptions, "draws", marks=(OF_A_LOOK,))
    resolve: float | None = option_as_in(
        None, ReportOptions, "resolve", "difference that seeds are planned for; none: 0.01, or an unresolved gap"
    )
    price_per_hour: float = option_as_in(0.0, ReportOptions, "price_per_hour")
    currency: str = option_as_in("$", ReportOptions, "currency")
    devices: int | None = option_as_in(
        None, ReportOptions, "devices", "devices that the series was pretrained on; none: as in series.json"
    )

    bf16: str = option_as_in(
        "auto",
        PretrainingOptions,
        "bf16",
        "bfloat16; auto: as in the folder's cells, else by the hardware",
        marks=(OF_A_LOOK,),
    )
    per_device_train_batch_size: int | None = option_as_in(
        None,
        FinetuningOptions,
        "per_device_train_batch_size",
        "rows of a micro-batch; none: all at once",
        marks=(OF_A_LOOK,),
    )
    per_device_eval_batch_size: int | None = option_as_in(
        None,
        FinetuningOptions,
        "per_device_eval_batch_size",
        "rows of an evaluation batch",
        by_data={SMALL_WORLD: 256, FULL: 256, REAL_SERIES: CellOptions.per_device_eval_batch_size},
        marks=(OF_A_LOOK,),
    )
    executor: str = option(
        "local",
        "local: one process per device; slurm: an array job over the same list",
        group=MACHINE,
        choices=("local", "slurm"),
    )
    max_parallel: int | None = option_as_in(
        None, SweepOptions, "max_parallel", "cells at once; none: one per GPU or core"
    )
    slurm_workers: int = option(4, "tasks of the array job", group=CLUSTER, at_least=1)
    slurm_partition: str | None = option(None, "partition of the array job", group=CLUSTER)
    slurm_minutes: int = option(240, "time limit of each task of the array job", group=CLUSTER, at_least=1)
    slurm_gpus: int = option(1, "GPUs of each task of the array job; 0 without GPUs", group=CLUSTER, at_least=0)
    slurm_cpus: int = option(4, "cores of each task of the array job", group=CLUSTER, at_least=1)
    slurm_memory_gb: int = option(16, "memory of each task of the array job", group=CLUSTER, at_least=1)
    slurm_account: str | None = option(None, "account that the array job is charged to", group=CLUSTER)
    slurm_qos: str | None = option(None, "quality of service of the array job", group=CLUSTER)

    output_dir: str = option_as_in(
        "runs/gap", PretrainingOptions, "output_dir", "folder of the scores, predictions, curves and report"
    )
    upload: str | None = option_as_in(None, UploadOptions, "upload")
    upload_wait_minutes: float = option_as_in(10.0, UploadOptions, "upload_wait_minutes")
    dry_run: bool = option_as_in(
        False, PretrainingOptions, "dry_run", "print the plan, the time and the cost, then stop"
    )

    def contradictions(self) -> list[str]:
        """Options that apply only to the small world, or only to a named series."""
        problems = upload_problems(self.upload, self.output_dir)
        if self.full and self.series is not None:
            problems.append("--full is for the small world: for a real series, name kinds and controls one by one")
        if self.independent is not None and self.series is None:
            problems.append("--independent needs --series: on the small world, --full makes such a run")
        if self.self_pretrained is not None and self.series is None:
            problems.append("--self_pretrained needs --series: the runs that it is compared with")
        if self.series is not None and self.tasks is None:
            problems.append("--series needs --tasks, such as qa:FOLDER,glue:sst2")
        if self.pretraining_seeds is not None and self.series is not None:
            problems.append("--pretraining_seeds is for the small world: name more --series instead")
        most = self.seeds_until_resolved
        if most is not None and most < self.finetuning_seeds:
            problems.append(f"--seeds_until_resolved {most} is below --finetuning_seeds, {self.finetuning_seeds}")
        if most is not None and self.executor == "slurm":
            problems.append("--seeds_until_resolved decides after each look, with --executor local only")
        if not self.intervals and (self.pilot or most is not None):
            problems.append("--intervals false leaves nothing to resolve: without --pilot and --seeds_until_resolved")
        return problems

    @property
    def kind_names(self) -> list[str]:
        return [kind.strip() for kind in str(with_defaults(self).kinds).split(",") if kind.strip()]

    @property
    def runs_on_other_gpus(self) -> bool:
        return self.executor == "slurm" and self.slurm_gpus > 0

    @property
    def independent_run(self) -> Path | None:
        """The series of the control run of a middle budget."""
        if self.independent is not None:
            return Path(self.independent)
        return Path(self.output_dir) / "pretraining" / "independent" / "series.json" if self.full else None

    def prices(self) -> Prices:
        return Prices(self.price_per_hour, self.currency, self.devices)

    def price(self) -> dict[str, Any]:
        return {"price_per_hour": self.price_per_hour, "currency": self.currency}


def with_defaults(options: GapOptions) -> GapOptions:
    """Fill in the defaults; controls of the small world only if its own tasks are run."""
    data = REAL_SERIES if options.series is not None else FULL if options.full else SMALL_WORLD
    defaults = by_data(options, data)
    return replace(options, **{name: defaults[name] for name in defaults.keys() & not_given(options)})
