"""Where a run stands in its plan, and how a checkpoint's `state.json` says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pretraining.checkpoints.checkpoint import NAME_PATTERN
from pretraining.plan.budget import Progress


@dataclass(frozen=True)
class Position:
    """Segment, number of updates really done (branches included), progress, and the trunk to return to."""

    segment: int = 0
    serial: int = 0
    progress: Progress = field(default_factory=Progress)
    fork: str | None = None  # name of the trunk's checkpoint while inside a branch

    @property
    def checkpoint_name(self) -> str:
        """Names sort as positions do: the end of a segment and the start of the next are two checkpoints."""
        return f"step-{self.serial:08d}-{self.segment:03d}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def position_from(state: Mapping[str, Any], *, num_segments: int) -> Position:
    """Read a checkpoint's state; ValueError for one that is not of this plan, or that names a file outside."""
    try:
        given, segment, serial, fork = state["progress"], state["segment"], state["serial"], state["fork"]
        counts = {name: int(given[name]) for name in ("updates", "rows", "tokens")}
        progress = Progress(**counts, flops=float(given["flops"]), seconds=float(given["seconds"]))
        segment, serial = int(segment), int(serial)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"state.json holds no position ({error!r}): the checkpoint is of another program") from error
    if not 0 <= segment <= num_segments or serial < progress.updates or progress.rows < 0:
        raise ValueError(f"state.json: segment {segment}, update {serial} is no place in a plan of {num_segments}")
    if fork is not None and not NAME_PATTERN.fullmatch(str(fork)):
        raise ValueError(f"state.json: fork {fork!r} is no checkpoint's name: the file was changed")
    return Position(segment, serial, progress, fork)
