"""The schedule of a fine-tuning run: number of updates and learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass

from finetuning.examples.batches import BatchShape
from finetuning.examples.recipe import FinetuningOptions


@dataclass(frozen=True)
class Schedule:
    """Updates of an epoch and of the run, and the learning rate of each."""

    updates_per_epoch: int
    total_updates: int
    warmup_updates: int
    peak: float
    kind: str

    def epoch_of(self, updates: int) -> int:
        """The epoch (from 0) of the next update after `updates` updates."""
        return updates // self.updates_per_epoch

    def learning_rate(self, update: int) -> float:
        """The rate of update 0, 1, ...: rises over the warmup, then constant or linear to zero."""
        if update < self.warmup_updates:
            return self.peak * (update + 1) / (self.warmup_updates + 1)
        if self.kind == "constant":
            return self.peak
        return self.peak * (self.total_updates - update) / max(1, self.total_updates - self.warmup_updates)


def makes_updates(options: FinetuningOptions) -> bool:
    """False when a run is only asked to evaluate."""
    return options.num_train_epochs > 0 and options.max_steps != 0


def require_training_rows(options: FinetuningOptions, num_rows: int, *, num_dropped: int = 0) -> None:
    """ValueError where updates are asked for and there are no training rows; `num_dropped` questions were dropped."""
    if num_rows or not makes_updates(options):
        return
    source = options.train_file or options.dataset_name
    reason = f"{source} gives none" if source else "no training set is named"
    if num_dropped:
        reason += f" ({num_dropped} questions were dropped: none of their answers occurs in the context)"
    raise ValueError(f"no training rows: {reason}; give a --train_file, or --num_train_epochs 0 to evaluate only")


def make_schedule(options: FinetuningOptions, num_rows: int, shape: BatchShape) -> Schedule:
    """The schedule of a run over `num_rows` training rows; ValueError for none where updates are asked for."""
    require_training_rows(options, num_rows)
    per_epoch = max(1, math.ceil(num_rows / shape.global_rows))
    total = math.ceil(options.num_train_epochs * per_epoch)
    if options.max_steps >= 0:
        total = min(total, options.max_steps)
    warmup = math.ceil(total * options.warmup_ratio)
    return Schedule(per_epoch, total, warmup, options.learning_rate, options.lr_scheduler_type)
