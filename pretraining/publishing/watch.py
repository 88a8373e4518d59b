"""What a run asks of the callback that looks at its series as it grows, and may end it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from pretraining.plan.plan import Plan
from shards.storage.location import ShardLocation

StopEarly = Callable[[dict[str, Any]], str | None]


class Watch(Protocol):
    """A callback that evaluates the growing series and may end the run: `gap.study.until.GapWatch`. On every rank."""

    @property
    def reached(self) -> str | None:
        """Why an earlier call of the same run stopped; None while it should go on."""

    def check(self) -> None:
        """Raise ValueError or OSError for unusable tasks or reference; on the main rank, before training."""

    def obey(self, stop_requested: Callable[[], str | None]) -> None:
        """Set the function that returns why the run must end now; a look polls it."""

    def __call__(self, entry: dict[str, Any]) -> str | None:
        """Look at a checkpoint of the series; on the main rank the reason to stop, or None."""


WatchOf = Callable[[Plan, ShardLocation], Watch]  # builds the watch of a plan
