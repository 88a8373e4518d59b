"""Tar archives as streams, several in one file included: each member is read once; a damaged archive is refused."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import IO, BinaryIO, cast

from runtime.files.foreign import reason_of

TAR_END_BYTES = 1_024
REMEDY = "fetch or write it again"


def tar_members(stream: BinaryIO, name: str) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    """Every member of a tar, and its content where it has one, to be read before the next member.

    Concatenated archives (`cat a.tar b.tar`) are read to the end, as GNU tar does with -i. Raises ValueError,
    naming the file, where a header is damaged, where something other than an archive follows the end mark, and where
    that mark is missing.
    """
    ending = EndingStream(stream)
    try:
        with tarfile.open(fileobj=cast(BinaryIO, ending), mode="r|", tarinfo=WholeHeader, ignore_zeros=True) as archive:
            for member in archive:
                yield member, archive.extractfile(member) if member.isreg() else None
                archive.members = []  # type: ignore[attr-defined]  # which would otherwise grow with the archive
    except tarfile.TarError as error:
        raise ValueError(f"{name} is not a whole tar ({reason_of(error)}): {REMEDY}") from error
    if any(ending.drained()):  # tarfile stops silently where a tar is cut at a header
        raise ValueError(f"{name} is not a whole tar (its end mark is missing): {REMEDY}")


class WholeHeader(tarfile.TarInfo):
    """A member whose header is whole: tarfile itself takes a damaged one for the end, or passes over it."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> WholeHeader:
        """The member that a header describes; tarfile.ReadError if it is damaged or cut off."""
        try:
            return super().frombuf(buf, encoding, errors)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(
                f"{error}: a header is damaged, or what follows the end mark is not a tar"
            ) from error


class EndingStream:
    """A stream that remembers its last bytes: a whole tar ends with 1,024 bytes of zero."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.ending = b"\1"

    def read(self, size: int) -> bytes:
        """Read as the stream does."""
        data = self.stream.read(size)
        self.ending = (self.ending + data)[-TAR_END_BYTES:]
        return data

    def drained(self) -> bytes:
        """Read to the end and return the last bytes."""
        while self.read(1 << 16):
            pass
        return self.ending
