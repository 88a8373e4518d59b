"""Assignment of rows to batches: grouped by length, seeded, and the same at every world size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from finetuning.examples.recipe import OTHERWISE, Feature, FinetuningOptions
from runtime.options.declaration import by_data

GROUPED_BATCHES = 50  # rows are sorted by length within this many batches: little padding, still random


@dataclass(frozen=True)
class BatchShape:
    """How the rows of one update are split; the last micro-batch may be padded with rows of weight zero."""

    global_rows: int
    micro_rows: int  # of one rank
    accumulation: int  # micro-batches of one rank in an update


def batch_shape(options: FinetuningOptions, world_size: int) -> BatchShape:
    """Resolve the three batch options, any of which may be missing.

    Raises ValueError when a given global batch and a given product differ.
    """
    total, micro, accumulation = (
        options.global_batch_rows,
        options.per_device_train_batch_size,
        options.gradient_accumulation_steps,
    )
    if total is None:
        given = micro is not None or accumulation is not None
        total = (
            (micro or 8) * (accumulation or 1) * world_size
            if given
            else by_data(options, OTHERWISE)["global_batch_rows"]
        )
    share = math.ceil(total / world_size)
    if micro is None:
        micro = math.ceil(share / accumulation) if accumulation else share
    needed = math.ceil(share / micro)
    if accumulation is not None and accumulation != needed:
        raise ValueError(
            f"--global_batch_rows {total} over {world_size} ranks with --per_device_train_batch_size {micro} takes "
            f"{needed} micro-batches, but --gradient_accumulation_steps is {accumulation}: give only two of the three"
        )
    return BatchShape(total, micro, needed)


def row_length(feature: Feature) -> int:
    """The length by which a row is grouped."""
    return int(feature["length"]) if "length" in feature else len(feature["input_ids"])


def training_order(lengths: np.ndarray, *, batch_rows: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Global batches of one epoch: each row once, similar lengths together, longest row first within a batch.

    A pure function of its arguments: independent of world size and micro-batch. Only the last batch made may be short.
    """
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(lengths))
    group = batch_rows * GROUPED_BATCHES
    batches: list[np.ndarray] = []
    for start in range(0, len(order), group):
        rows = order[start : start + group]
        rows = rows[np.argsort(-lengths[rows], kind="stable")]
        batches.extend(rows[i : i + batch_rows] for i in range(0, len(rows), batch_rows))
    return [batches[i] for i in generator.permutation(len(batches))]


def rank_micro_batches(batch: np.ndarray, shape: BatchShape, *, rank: int, world_size: int) -> list[list[int]]:
    """One rank's rows of a global batch, micro-batch by micro-batch; -1 marks a row of weight zero.

    A short batch has as many micro-batches as a full one: engines count them.
    Neighbours in length share a micro-step over all ranks, so that no rank waits for another's longer rows.
    """
    step_rows = shape.micro_rows * world_size
    steps = shape.accumulation
    padded = np.full(steps * step_rows, -1, dtype=np.int64)
    padded[: len(batch)] = batch
    by_step = padded.reshape(steps, shape.micro_rows, world_size)[:, :, rank]
    return [[int(i) for i in rows] for rows in _without_spare_padding(by_step, padded.reshape(steps, -1))]


def evaluation_batches(
    lengths: Sequence[int] | np.ndarray, *, batch_rows: int, rank: int, world_size: int
) -> list[list[int]]:
    """One rank's evaluation batches, longest rows first (an out-of-memory error comes at once); -1 marks a filler.

    Every rank gets the same number of batches.
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    step_rows = batch_rows * world_size
    steps = math.ceil(len(order) / step_rows)
    padded = np.full(steps * step_rows, -1, dtype=np.int64)
    padded[: len(order)] = order
    by_step = padded.reshape(steps, batch_rows, world_size)[:, :, rank]
    return [[int(i) for i in rows] for rows in _without_spare_padding(by_step, padded.reshape(steps, -1))]


def _without_spare_padding(by_step: np.ndarray, whole: np.ndarray) -> list[np.ndarray]:
    """Drop the fillers that no rank needs, but keep one row: each rank must run each step."""
    cut = []
    for rows, everyone in zip(by_step, whole, strict=True):
        world_size = len(everyone) // len(rows)
        used = math.ceil(int((everyone >= 0).sum()) / world_size)
        cut.append(rows[: max(used, 1)])
    return cut
