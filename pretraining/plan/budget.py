"""What a run has done so far, and the budget it is measured against."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

UNITS = ("tokens", "flops", "hours")


@dataclass(frozen=True)
class Progress:
    """All that a resume needs besides weights and moments."""

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
class Budget:
    """How much pretraining is paid for: `amount` in tokens, FLOPs or hours."""

    amount: float
    unit: str = "tokens"

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ValueError(f"a budget in {self.unit!r} is unknown: use one of {', '.join(UNITS)}")
        if not 0 < self.amount < float("inf"):
            raise ValueError(f"a budget of {self.amount} {self.unit} buys nothing: give a positive number")

    def spent(self, progress: Progress) -> float:
        """How much of this budget's unit a run has used."""
        if self.unit == "tokens":
            return float(progress.tokens)
        return progress.flops if self.unit == "flops" else progress.seconds / 3600
