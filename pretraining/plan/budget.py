"""Budgets in tokens, FLOPs or hours, and the progress of a run towards them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol


class Counts(Protocol):
    """Costs of rows that a plan can compute before they are trained on."""

    def tokens_of_row(self, stream: Any, length: int) -> int: ...

    def flops_of_rows(self, num_rows: int, stream: Any, length: int) -> float: ...


@dataclass(frozen=True)
class Progress:
    """The state that a resume needs besides weights and moments."""

    updates: int = 0
    rows: int = 0  # consumed by all ranks: the stream's whole state
    tokens: int = 0  # non-padding tokens seen
    flops: float = 0.0  # model FLOPs spent
    seconds: float = 0.0  # on the leader's clock; evaluation and saving do not count

    def after(self, *, rows: int, tokens: int, flops: float) -> Progress:
        """The progress one update later; the clock is advanced separately, by the leader."""
        return replace(
            self,
            updates=self.updates + 1,
            rows=self.rows + rows,
            tokens=self.tokens + tokens,
            flops=self.flops + flops,
        )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Unit:
    """A unit of budgets; a new one is added here, with its option `--budget_NAME`."""

    title: str  # in pages and charts
    spent: Callable[[Progress], float]
    # Cost of rows of a scheduled length, by (plan, number of rows, stream, length); None: known only after training.
    of_rows: Callable[[Counts, int, Any, int], float] | None = None


UNITS = {
    "tokens": Unit(
        "tokens",
        lambda done: float(done.tokens),
        lambda plan, rows, stream, length: rows * plan.tokens_of_row(stream, length),
    ),
    "flops": Unit(
        "FLOPs",
        lambda done: done.flops,
        lambda plan, rows, stream, length: plan.flops_of_rows(rows, stream, length),
    ),
    "hours": Unit("device-hours", lambda done: done.seconds / 3600),
}


def option_of(unit: str) -> str:
    """The option of pretraining that gives a budget in this unit."""
    return f"budget_{unit}"


@dataclass(frozen=True)
class Budget:
    """The size of a pretraining run: `amount` in tokens, FLOPs or hours."""

    amount: float
    unit: str = "tokens"

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ValueError(f"a budget in {self.unit!r} is unknown: use one of {', '.join(UNITS)}")
        if not 0 < self.amount < float("inf"):
            raise ValueError(f"a budget of {self.amount} {self.unit} trains nothing: give a positive number")

    def spent(self, progress: Progress) -> float:
        """How much of this budget's unit a run has used."""
        return UNITS[self.unit].spent(progress)

    @property
    def is_counted(self) -> bool:
        """Whether the number of updates that fill the budget is known beforehand: not for hours."""
        return UNITS[self.unit].of_rows is not None
