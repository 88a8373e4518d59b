"""What a run settled when it began, and keeps whatever machine continues it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

ARCHITECTURE = "architecture"  # dropout as the configuration has it


@dataclass(frozen=True)
class Choices:
    """The meaning of a run's "auto" options; None: not settled yet."""

    bf16: bool | None = None
    why_bf16: str = "as this run began"
    attention: str | None = None
    compiled: bool | None = None
    dropout: float | str | None = None  # a rate, or ARCHITECTURE

    def as_dict(self) -> dict[str, Any]:
        """For a checkpoint: what is not part of the run's identity."""
        return {"attention": self.attention, "compiled": self.compiled}

    def whole(self) -> dict[str, Any]:
        return asdict(self)
