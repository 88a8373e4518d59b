"""The decision of --torch_compile auto: at an exchange of the ranks, from the measured time of an update.

A run is compiled when what is left of it pays for the compilation several times over; the seconds of the compilation
and what an update gains are measured, and a run that gains nothing goes back to plain execution.
"""

from __future__ import annotations

from typing import Any

from pretraining.engines.compilation import Compilation
from runtime.processes.collectives import broadcast_json

# A compilation takes under a minute or two and makes an update 1.2 to 2 times as fast on a CPU (docs/lab-notes.md).
LEAST_SECONDS_LEFT = 1800.0
LEAST_GAIN = 1.03
WARM_UPDATES = 8  # plain ones, whose fastest exchange interval is compared, without the first, which allocates
MEASURED_INTERVALS = 3  # compiled ones; a second shape may be compiled in one of them


class Compiling:
    """Called after every exchange with the seconds of an update since the last one; every rank makes the same calls."""

    def __init__(self, compilation: Compilation, *, mode: str, compiled: bool | None) -> None:
        """`mode` is auto, true or false; `compiled` what an earlier start of the run settled."""
        self._compilation = compilation
        self._mode, self._earlier = mode, compiled
        self.compiled: bool | None = {"true": True, "false": False}.get(mode, compiled)
        self._updates = 0
        self._plain = float("inf")  # seconds of a plain update
        self._first = False  # the next exchange ends the update that compiles
        self._measures = 0
        self._best = float("inf")
        if self.compiled:
            compilation.start(must=mode == "true")

    @property
    def settled(self) -> bool | None:
        """What auto settled, in this start or an earlier one: true and false hold for their own start alone."""
        return self.compiled if self._mode == "auto" else self._earlier

    @property
    def is_deciding(self) -> bool:
        """Whether the coming updates are measured or compiled."""
        undecided = self.compiled is None and self._updates < WARM_UPDATES
        return undecided or self._first or self._measures > 0

    @property
    def interval(self) -> int | None:
        """Updates until the next exchange, where the measurement needs a certain number; else None."""
        return 1 if self._first else None

    def after_exchange(self, updates: int, seconds_per_update: float, seconds_left: float) -> dict[str, Any]:
        """Take a step of the decision; returns figures for the journal, usually none. Collective.

        `updates` since the last exchange; `seconds_left` of the run at the pace so far.
        """
        self._updates += updates
        if self._first:
            self._first, self._measures = False, MEASURED_INTERVALS
            return {"compile_seconds": round(max(0.0, seconds_per_update - self._plain), 2)}
        if self._measures:
            return self._measured(seconds_per_update)
        if self.compiled is None:
            if self._updates > updates:
                self._plain = min(self._plain, broadcast_json(seconds_per_update))
            if self._updates >= WARM_UPDATES and broadcast_json(seconds_left >= LEAST_SECONDS_LEFT):
                self.compiled, self._first = True, True
                self._compilation.start()
        return {}

    def _measured(self, seconds_per_update: float) -> dict[str, Any]:
        """The gain, by the fastest of the intervals."""
        self._measures -= 1
        self._best = min(self._best, broadcast_json(seconds_per_update))
        if self._measures:
            return {}
        gain = self._plain / self._best
        if gain < LEAST_GAIN:
            self.compiled = False
            self._compilation.stop()
        return {"compile_gain": round(gain, 3)}
