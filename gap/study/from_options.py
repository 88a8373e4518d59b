"""The experiment that the options of `launch/gap.py` describe, and what they request from a cluster."""

from __future__ import annotations

from typing import Any

from gap.cells.executor import Slurm
from gap.cells.job_list import CellOptions
from gap.cells.plan import Controls
from gap.cells.search.grid import Grid
from gap.study.experiment import Experiment
from gap.study.options import BY_WIDTH, GapOptions, with_defaults
from gap.tasks.kinds.task_data import ReadingOptions, RowOptions, TaskSpec
from gap.tasks.specification import parse_tasks, small_world_tasks
from pretraining.loop.training_data import SMALL_WORLD_DIRECTORY
from runtime.options.declaration import numbers


def experiment_of(options: GapOptions) -> Experiment:
    """The experiment that the options describe, each that was not given at its default."""
    filled: Any = with_defaults(options)
    own: list[TaskSpec] = small_world_tasks(SMALL_WORLD_DIRECTORY) if options.series is None else []
    tasks = parse_tasks(options.tasks) if options.tasks else own[:1]
    ends = parse_tasks(options.tasks_at_ends) if options.tasks_at_ends else [] if options.tasks else own[1:]
    rates, own_rates = _rates(filled.learning_rates, "learning_rates"), options.reference_learning_rates
    rows = RowOptions(filled.max_seq_length, filled.doc_stride, filled.pooling, filled.max_answer_length)
    experiment = Experiment(
        tuple(tasks),
        tuple(ends),
        options.finetuning_seeds,
        options.intervals,
        Grid(rates, numbers(filled.num_train_epochs), filled.grid_extensions),
        _rates(own_rates, "reference_learning_rates") if own_rates else None,
        Controls(
            numbers(filled.scratch_longer),
            numbers(filled.label_fractions),
            bool(filled.shuffled_labels),
            options.same_arguments,
        ),
        CellOptions(
            ReadingOptions(options.data_dir, options.max_train_samples, options.max_eval_samples, options.on_overlap),
            rows,
            global_batch_rows=filled.global_batch_rows,
            per_device_train_batch_size=options.per_device_train_batch_size,
            per_device_eval_batch_size=filled.per_device_eval_batch_size,
            warmup_ratio=filled.warmup_ratio,
            dropout=options.dropout,
            freeze_embeddings=bool(options.freeze_embeddings),
            bf16=options.bf16,
        ),
        options.resample_split,
        options.linear_probe,
    )
    if options.seeds_until_resolved is not None and len(experiment.zero_shot) == len(tasks) + len(ends):
        raise ValueError(
            "zero-shot tasks have no fine-tuning seeds: leave --seeds_until_resolved out, and give more --series"
        )
    return experiment.as_pilot() if options.pilot else experiment


def _rates(text: str, name: str) -> tuple[float, ...]:
    """The learning rates of an option; none for the word that lets them follow the width."""
    if text.strip() == BY_WIDTH:
        return ()
    if not (rates := numbers(text)):
        raise ValueError(f"--{name} {text!r}: give one or more, such as 1e-4,3e-4, or {BY_WIDTH}")
    return rates


def slurm_of(options: GapOptions) -> Slurm:
    """What the options request from the cluster."""
    named = {
        "slurm_partition": options.slurm_partition,
        "slurm_account": options.slurm_account,
        "slurm_qos": options.slurm_qos,
    }
    return Slurm(
        options.slurm_workers,
        options.slurm_minutes,
        options.slurm_gpus,
        options.slurm_cpus,
        options.slurm_memory_gb,
        {name: value for name, value in named.items() if value},
    )
