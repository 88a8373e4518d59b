"""The position of a run in its plan, and its form in a checkpoint's `state.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from pydantic import Field

from pretraining.checkpoints.checkpoint import NAME_PATTERN
from pretraining.plan.budget import Progress
from runtime.files.schemas import Count, Schema, Seconds, checked, shown

LAST_SERIAL = 99_999_999  # eight digits in the names of checkpoints


@dataclass(frozen=True)
class Position:
    """Segment, number of updates actually done (branches included), progress, and the trunk to return to."""

    segment: int = 0
    serial: int = 0
    progress: Progress = field(default_factory=Progress)
    fork: str | None = None  # name of the trunk's checkpoint while inside a branch

    @property
    def checkpoint_name(self) -> str:
        """The checkpoint's name; names sort like positions, and a segment's end and the next one's start differ."""
        return f"step-{self.serial:08d}-{self.segment:03d}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class _ProgressState(Schema):
    updates: Annotated[int, Field(ge=0, le=LAST_SERIAL)]
    rows: Count
    tokens: Count
    flops: Annotated[float, Field(ge=0, le=1e30, allow_inf_nan=False)]
    seconds: Seconds


class _PositionState(Schema):
    progress: _ProgressState
    segment: Annotated[int, Field(ge=0, le=999)]
    serial: Annotated[int, Field(ge=0, le=LAST_SERIAL)]
    fork: str | None


def position_from(state: Mapping[str, Any], *, num_segments: int) -> Position:
    """Read a checkpoint's state; ValueError for one that does not fit this plan, or names a file outside."""
    place = checked(state, _PositionState, "state.json", "the checkpoint comes from another program, or was changed")
    given, fork = place.progress, place.fork
    progress = Progress(given.updates, given.rows, given.tokens, flops=given.flops, seconds=given.seconds)
    if place.segment > num_segments or place.serial < progress.updates:
        raise ValueError(
            f"state.json: segment {place.segment}, update {place.serial} is not a position in a plan of {num_segments}"
        )
    if fork is not None and not NAME_PATTERN.fullmatch(fork):
        raise ValueError(f"state.json: fork {shown(fork)} is not a checkpoint's name: the file was changed")
    return Position(place.segment, place.serial, progress, fork)
