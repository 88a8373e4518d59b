"""The training loop: segments of updates, with a synchronization of the ranks every few updates."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch

from pretraining.checkpoints.position import Position
from pretraining.engines.engine import Engine
from pretraining.engines.updating.schedule import learning_rate
from pretraining.loop.batches import as_inputs
from pretraining.loop.compiling import Compiling
from pretraining.loop.evaluation import losses, statistics_of
from pretraining.loop.spikes import SpikeDetector
from pretraining.plan.budget import Budget, Progress
from pretraining.plan.segments import Segment
from runtime.processes.collectives import broadcast_json, largest, sum_over_ranks
from runtime.processes.failures import Failed
from runtime.processes.fault_points import fault_point
from runtime.processes.interruption import Interrupted, arm_watchdog

LONGEST_EXCHANGE_INTERVAL = 50  # updates
COMPILATION_SECONDS = 1800.0  # that an update of a compiled run may take longer: a new shape is compiled in it


class Stream(Protocol):
    """The part of `shards.streaming.stream.MaskedStream` that the loop uses."""

    def batches(self, first_row: int, num_workers: int = 0) -> Iterator[Any]: ...

    def tokens_between(self, first_row: int, last_row: int) -> int: ...


class Callbacks(Protocol):
    """The callbacks of the run, which owns the files; every rank makes every call."""

    def stop_requested(self) -> str | None: ...

    def record(self, lines: list[dict[str, Any]]) -> None: ...

    def save(self, position: Position) -> str: ...

    def poll(self) -> None:
        """Whatever a save in the background needs of all ranks; nothing waits."""
        ...

    def export(self, segment: Segment, progress: Progress) -> None: ...

    def restore(self, checkpoint: str) -> Progress: ...

    def seconds_left(self, position: Position, seconds_per_update: float) -> float: ...


@dataclass(frozen=True)
class LoopOptions:
    """The settings of the loop; `warmup` and `head_warmup` are in the budget's unit."""

    global_batch_rows: int
    micro_batches_per_update: int
    peak_learning_rate: float
    warmup: float
    head_warmup: float = 0.0  # in which the head is trained alone; then the rate's warmup begins
    head_learning_rate: float = 0.0
    decay: str = "sqrt"
    seed: int = 0
    num_workers: int = 0
    save_every_updates: int = 0  # 0: by minutes
    save_every_minutes: float = 10.0
    max_skipped_updates: int = 10
    hang_timeout_seconds: float = 1800.0
    next_sentence: bool = False
    save_before_export: bool = False  # of a branch: its export may take hours and be interrupted


class NotFinite(Failed):
    """Too many updates in a row had a loss or gradient that is not finite."""


class TrainingLoop:
    """Runs a plan's segments. Its whole state is the engine's and a Position."""

    def __init__(
        self,
        engine: Engine,
        stream: Stream,
        segments: tuple[Segment, ...],
        budget: Budget,
        options: LoopOptions,
        *,
        flops_of_update: Callable[[int], float],
        flops_of_head_update: Callable[[int], float] | None = None,
        callbacks: Callbacks,
        compiling: Compiling | None = None,
    ) -> None:
        self.engine, self.stream, self.segments, self.budget, self.options = engine, stream, segments, budget, options
        self.flops_of_update, self.callbacks = flops_of_update, callbacks
        self.flops_of_head_update = flops_of_head_update or flops_of_update
        self.compiling = compiling
        self._notes: dict[str, Any] = {}  # figures that the next line of the journal carries
        self.statistics = statistics_of(next_sentence=options.next_sentence)
        self.position = Position()
        self._pending: list[tuple[dict[str, Any], torch.Tensor]] = []
        self._seconds_per_update = 0.0
        self._next_exchange = self._skipped_in_a_row = 0
        self._spikes = SpikeDetector()
        self._last_save = time.monotonic()
        self._clock_started = self._clock_seconds = 0.0

    def run(self, position: Position) -> None:
        """Run from `position` to the end of the last segment; raises Interrupted when asked to stop."""
        self.position, self._next_exchange = position, position.serial + 1
        self._arm_watchdog()
        for index in range(position.segment, len(self.segments)):
            segment, is_last = self.segments[index], index == len(self.segments) - 1
            if segment.is_branch and self.position.fork is None:
                self._save(fork=True)
            if segment.head_only:
                self.engine.freeze()
            self._run_segment(segment)
            if segment.head_only:
                self.engine.unfreeze()
            if segment.kind:
                self._export(segment)
            if segment.is_branch and not is_last:
                trunk = self._off_the_clock(lambda: self.callbacks.restore(str(self.position.fork)))
                self.position = replace(self.position, progress=trunk)
            self.position = replace(self.position, segment=index + 1, fork=None)
            if is_last or not self.segments[index + 1].is_branch:
                self._save()

    def _run_segment(self, segment: Segment) -> None:
        batches = self.stream.batches(self.position.progress.rows, self.options.num_workers)
        self.engine.train()
        self._start_clock()
        while self.budget.spent(self.position.progress) < segment.end:
            self._update(segment, list(islice(batches, self.options.micro_batches_per_update)))
            if self.position.serial >= self._next_exchange:
                self._exchange()
            elif self.budget.spent(self.position.progress) >= segment.end:
                self._flush()  # hours were estimated since the last exchange: by the clock, some may be left
        self._flush()

    def _update(self, segment: Segment, micro_batches: list[Any]) -> None:
        """One update: each micro-batch's loss is its share of the whole global batch's mean over masked tokens."""
        rank, progress = self.engine.ranks.rank, self.position.progress
        fault_point("update.before", rank=rank)
        seed_update(self.options.seed, progress.updates, rank, is_branch=segment.is_branch)
        following = progress.after(
            rows=self.options.global_batch_rows,
            tokens=self.stream.tokens_between(progress.rows, progress.rows + self.options.global_batch_rows),
            flops=(self.flops_of_head_update if segment.head_only else self.flops_of_update)(progress.rows),
        )
        following = replace(following, seconds=progress.seconds + self._seconds_per_update)
        totals = self._global_weights(micro_batches)
        sums = torch.zeros(len(self.statistics), device=self.engine.device)
        for number, batch in enumerate(micro_batches, start=1):
            outputs = self.engine(**as_inputs(batch, self.engine.device))
            loss = outputs["loss_sum"] / totals[0]
            if self.options.next_sentence:
                loss = loss + outputs["next_sentence_loss_sum"] / totals[1]
            if fault_point("update.loss", rank=rank):
                loss = loss * float("nan")
            self.engine.backward(loss, last=number == len(micro_batches))
            sums += torch.stack([outputs[name].detach() for name in self.statistics])
        fault_point("update.backward", rank=rank)
        rate = self._rate(segment, progress, following)
        scaling = self.engine.loss_scaling
        scale = [] if scaling is None else [scaling.scale.reshape(1).to(sums)]
        norm = self.engine.step(rate)
        self.position = replace(self.position, serial=self.position.serial + 1, progress=following)
        line, self._notes = self._line(segment, progress, following, rate) | self._notes, {}
        self._pending.append((line, torch.cat([sums, norm.reshape(1).to(sums), *scale])))
        self._arm_watchdog()

    def _global_weights(self, micro_batches: list[Any]) -> torch.Tensor:
        """Masked tokens (and weighted next-sentence pairs) of the update over all ranks, [2], on the device."""
        masked = sum(float(batch.mask_weights.sum()) for batch in micro_batches)
        pairs = sum(float(batch.next_sentence_weights.sum()) for batch in micro_batches if self.options.next_sentence)
        return sum_over_ranks(torch.tensor([masked, pairs]).to(self.engine.device)).clamp(min=1.0)

    def _rate(self, segment: Segment, before: Progress, after: Progress) -> float:
        """The rate in the middle of the update, so that no update of a schedule has a rate of zero."""
        if segment.head_only:
            return self.options.head_learning_rate
        until = self.budget.spent(after)
        if segment.is_branch:
            until = min(until, segment.end)  # the last update goes beyond the end: its rate would be zero
        return learning_rate(
            (self.budget.spent(before) + until) / 2,
            peak=self.options.peak_learning_rate,
            warmup=self.options.warmup,
            warmup_start=self.options.head_warmup,
            decay_start=segment.start if segment.is_branch else math.inf,
            decay_end=segment.end if segment.is_branch else math.inf,
            decay=self.options.decay,
        )

    def _line(self, segment: Segment, before: Progress, after: Progress, rate: float) -> dict[str, Any]:
        return {
            "update": after.updates,
            "serial": self.position.serial,
            "segment": segment.label,
            "tokens": after.tokens,
            "flops": after.flops,
            "rows": [before.rows, after.rows - 1],
            "learning_rate": rate,
            "seconds": after.seconds,
            "world_size": self.engine.ranks.world_size,
        }

    def _exchange(self) -> None:
        """The only place where the host waits for the device: metrics, the leader's clock, saving and stopping."""
        count = len(self._pending)
        self._flush()
        if self.compiling is not None and not self.segments[self.position.segment].head_only:
            left = self.callbacks.seconds_left(self.position, self._seconds_per_update)
            self._notes = self.compiling.after_exchange(count, self._seconds_per_update, left)
            self._arm_watchdog()
        self.callbacks.poll()
        stop = self.callbacks.stop_requested()
        stops = largest([float(stop is not None)])[0] > 0
        minutes = (time.monotonic() - self._last_save) / 60
        every = self.options.save_every_updates
        due = self.position.serial % every == 0 if every else minutes >= self.options.save_every_minutes
        decision = broadcast_json(
            {
                "save": due and self._skipped_in_a_row == 0,
                "interval": (self.compiling and self.compiling.interval)
                or exchange_interval(self._seconds_per_update, every, self.position.serial),
            }
        )
        self._next_exchange = self.position.serial + decision["interval"]
        if decision["save"] or stops:
            self._save()
        if stops:
            raise Interrupted(stop or "another rank was asked to stop")

    def _flush(self) -> None:
        """Copy the pending updates' metrics to the host, correct the clock, and record them; collective."""
        if not self._pending:
            return
        lines = [line for line, _ in self._pending]
        table = torch.stack([figures for _, figures in self._pending])
        self._pending = []
        width = len(self.statistics)
        sums, others = sum_over_ranks(table[:, :width].contiguous()).cpu(), table[:, width:].tolist()
        elapsed = time.perf_counter() - self._clock_started
        self._clock_started += elapsed
        elapsed, tokens = broadcast_json([elapsed, sum(self._tokens(line) for line in lines)])
        self._seconds_per_update = elapsed / len(lines)
        start = self._clock_seconds
        self._clock_seconds += elapsed
        for index, line in enumerate(lines):
            figures = dict(zip(self.statistics, sums[index].tolist(), strict=True))
            line |= losses(figures) | dict(zip(("gradient_norm", "loss_scale"), others[index], strict=False))
            line["seconds"] = start + self._seconds_per_update * (index + 1)
            line["tokens_per_second"] = tokens / elapsed
            self._judge(line)
        progress = replace(self.position.progress, seconds=self._clock_seconds)
        self.position = replace(self.position, progress=progress)
        self.callbacks.record(lines)
        self._abort_if_poisoned(lines)

    def _tokens(self, line: dict[str, Any]) -> int:
        return self.stream.tokens_between(line["rows"][0], line["rows"][1] + 1)

    def _judge(self, line: dict[str, Any]) -> None:
        skipped = not (math.isfinite(line["loss"]) and math.isfinite(line["gradient_norm"]))
        # A scale that was too large for fp16 is halved and tried again: from 65,536, sixteen times in a row at most.
        scaling = self.engine.loss_scaling
        halved = scaling is not None and line["loss_scale"] > scaling.smallest
        by_scaling = skipped and math.isfinite(line["loss"]) and halved
        if not by_scaling:
            self._skipped_in_a_row = self._skipped_in_a_row + 1 if skipped else 0
        if skipped:
            line["skipped"] = "loss scale" if by_scaling else True
        elif self._spikes.is_spike(line["loss"]):
            line["spike"] = True

    def _abort_if_poisoned(self, lines: list[dict[str, Any]]) -> None:
        if self._skipped_in_a_row >= self.options.max_skipped_updates:
            raise NotFinite(
                f"{self._skipped_in_a_row} updates in a row had a loss or gradient that is not finite, up to update "
                f"{lines[-1]['update']} (rows {lines[-1]['rows']}): nothing was saved since; lower --learning_rate, "
                "use --max_grad_norm, or look at these rows"
            )

    def _save(self, *, fork: bool = False) -> None:
        """Have the position committed; a branch's fork is the trunk's checkpoint, which carries its own name."""
        name = self._off_the_clock(lambda: self.callbacks.save(self.position))
        self._last_save = time.monotonic()
        if fork:
            self.position = replace(self.position, fork=name)

    def _export(self, segment: Segment) -> None:
        if segment.is_branch and self.options.save_before_export:
            self._save()
        self._off_the_clock(lambda: self.callbacks.export(segment, self.position.progress))

    def _off_the_clock(self, work: Callable[[], Any]) -> Any:
        """Do work that does not count towards a budget of hours: evaluation, exporting, the stall of a save."""
        self._flush()
        self._arm_watchdog()
        result = work()
        self._start_clock()
        return result

    def _arm_watchdog(self) -> None:
        timeout, compiled = self.options.hang_timeout_seconds, self.compiling is not None and self.compiling.compiled
        arm_watchdog(timeout + COMPILATION_SECONDS if timeout and compiled else timeout)

    def _start_clock(self) -> None:
        self._clock_started, self._clock_seconds = time.perf_counter(), self.position.progress.seconds


def exchange_interval(seconds_per_update: float, save_every_updates: int, serial: int) -> int:
    """Updates until the next exchange: about a second's worth, and never past an update that is to be saved."""
    interval = LONGEST_EXCHANGE_INTERVAL
    if seconds_per_update > 0:
        interval = max(1, min(interval, round(1.0 / seconds_per_update)))
    if save_every_updates:
        interval = min(interval, save_every_updates - serial % save_every_updates)
    return interval


def seed_update(seed: int, update: int, rank: int, *, is_branch: bool) -> None:
    """Dropout is a function of (seed, update, rank): a resumed run needs no stored random state."""
    state = np.random.SeedSequence([seed, update, rank, int(is_branch)]).generate_state(2, np.uint32)
    torch.manual_seed(int(state[0]) << 31 ^ int(state[1]))
