"""The progress bar of a run: loss, tokens per second, share of the machine's peak, time left."""

from __future__ import annotations

import sys
from typing import Any

import torch
from tqdm import tqdm

from pretraining.checkpoints.position import Position
from pretraining.model.flops import peak_flops
from pretraining.plan.plan import Plan

# A budget in hours is a clock and not a count: it has no prefixes and no rate.
HOURS: dict[str, Any] = {"bar_format": "{l_bar}{bar}| {n:.4g}/{total:.4g} hours [{elapsed}<{remaining}{postfix}]"}
# A terminal shows one line that changes, a log file gets a new one at most every ten seconds.
TERMINAL: dict[str, Any] = {"dynamic_ncols": True}
LOG_FILE: dict[str, Any] = {"mininterval": 10.0, "maxinterval": 10.0, "ascii": True, "ncols": 160}


class Lines:
    """stderr, with every redrawing of the bar on a line of its own."""

    def write(self, text: str) -> None:
        if text.strip():
            sys.stderr.write(text.strip() + "\n")

    def flush(self) -> None:
        sys.stderr.flush()


class ProgressBar:
    """One line on the main rank's stderr, in the budget's unit; `say` writes above it."""

    def __init__(self, plan: Plan, *, disabled: bool) -> None:
        self.plan, self.disabled = plan, disabled
        self._bar: tqdm[Any] | None = None
        self._total = 0.0  # of the budget's unit, all segments

    def start(self, position: Position) -> None:
        """Open the bar at the run's position: all segments, branches included, are work to be done."""
        segments, budget = self.plan.segments, self.plan.budget
        self._total = sum(segment.end - segment.start for segment in segments)
        done = sum(segment.end - segment.start for segment in segments[: position.segment])
        if position.segment < len(segments):
            done += max(0.0, budget.spent(position.progress) - segments[position.segment].start)
        # bf16 units of a CPU multiply up to 16 times as fast as its fp32 ones.
        peak = peak_flops(self.plan.device, dtype=torch.bfloat16 if self.plan.bf16 else torch.float32)
        self._peak = None if peak is None else peak * self.plan.ranks.world_size
        self._bar = tqdm(
            total=self._total,
            initial=min(done, self._total),
            unit=f" {budget.unit}",
            unit_scale=True,
            disable=self.disabled,
            **(HOURS if budget.unit == "hours" else {}),
            **(TERMINAL if sys.stderr.isatty() else {**LOG_FILE, "file": Lines()}),
        )

    def update(self, lines: list[dict[str, Any]]) -> None:
        if self._bar is None or self.disabled:
            return
        last = lines[-1]
        rate = last["tokens_per_second"]
        shown = {"loss": f"{last['loss']:.3f}", "tokens/s": f"{rate:,.0f}"}
        if self._peak:
            flops_per_token = self.plan.flops_of_update(last["rows"][0]) / self.plan.tokens_per_update
            shown["of peak"] = f"{flops_per_token * rate / self._peak:.0%}"
        self._bar.set_description(last["segment"], refresh=False)
        self._bar.set_postfix(shown, refresh=False)
        amounts = [self._amount(line) for line in lines]
        self._bar.update(min(sum(amounts), max(0.0, self._total - self._bar.n)))

    def _amount(self, line: dict[str, Any]) -> float:
        if self.plan.budget.is_counted:
            return self.plan.cost_of_update(line["rows"][0])
        return float(self.plan.tokens_per_update) / line["tokens_per_second"] / 3600

    def say(self, text: str) -> None:
        if not self.plan.ranks.is_main:
            return
        tqdm.write(text)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
