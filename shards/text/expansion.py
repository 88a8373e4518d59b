"""How far a compressed file may expand: what unpacks to hundreds of times its size is not text."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import IO

# English text unpacks to 3 to 10 times its size, the most repetitive logs and tables to 100; zeros to 1,000 and more.
LARGEST_RATIO = 250
READ_BYTES = 1 << 20  # at once: a request may be for gigabytes
FREE_BYTES = 64 << 20  # a small file may hold one word over and over


class Expansion:
    """Counts the bytes that come out of a compressed file, against those that went in (`packed` gives them)."""

    def __init__(self, name: str, packed: Callable[[], int]) -> None:
        self.name, self.packed = name, packed
        self.unpacked = 0

    def add(self, unpacked: int) -> None:
        """Raises ValueError once it is far more than any text unpacks to."""
        self.unpacked += unpacked
        if self.unpacked > FREE_BYTES and self.unpacked > FREE_BYTES + LARGEST_RATIO * self.packed():
            raise ValueError(
                f"{self.name} unpacks to over {LARGEST_RATIO} times its size ({self.unpacked / 1e6:,.0f} MB out of "
                f"{self.packed():,} bytes), as no text does: leave it out, or unpack it yourself if you do want it"
            )


class CountedStream(io.RawIOBase):
    """A decompressed stream whose bytes are counted as they are read."""

    def __init__(self, stream: IO[bytes], expansion: Expansion) -> None:
        self.stream, self.expansion = stream, expansion

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer; ValueError when too much has come out of too little."""
        data = self.stream.read(min(len(buffer), READ_BYTES))
        buffer[: len(data)] = data
        self.expansion.add(len(data))
        return len(data)
