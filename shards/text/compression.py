"""Compressed files: recognised by their first bytes, unpacked in bounded memory, whole or refused."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, cast

import zstandard

from runtime.files.foreign import reason_of, refuse_pointer_head
from shards.text.formats import COMPRESSION_SUFFIXES, SHORT_SUFFIXES

# English text unpacks to 3 to 10 times its size, the most repetitive logs and tables to 100; zeros to 1,000 and more.
LARGEST_RATIO = 250
READ_BYTES = 1 << 20  # at most in one read: a caller may ask for gigabytes
FREE_BYTES = 64 << 20  # a small file may repeat one word
READ_BUFFER_BYTES = 1 << 18
PACKED_BYTES = 2_048  # decompressed in one step: they may become 64 MB of zeros
LONGEST_WINDOW = 1 << 31  # bytes: the window of zstd --long=31
GZIP, XZ, BZIP2, ZSTD = b"\x1f\x8b", b"\xfd7zXZ\0", b"BZh", b"\x28\xb5\x2f\xfd"
SKIPPABLE = tuple(bytes([number, 0x2A, 0x4D, 0x18]) for number in range(0x50, 0x60))  # as pzstd begins its files
DECOMPRESSION_ERRORS = (EOFError, OSError, lzma.LZMAError, zlib.error, zstandard.ZstdError, tarfile.TarError)


@contextmanager
def unpacked(path: str | Path) -> Iterator[tuple[BinaryIO, io.BufferedReader]]:
    """A file as it is on disk, and its content, decompressed if it is compressed.

    Raises ValueError naming the file when it is torn, cannot be read, or unpacks to more than any text does, and for
    what `decompressed` refuses.
    """
    try:
        with Path(path).open("rb") as raw:
            yield raw, decompressed(raw, str(path), Expansion(str(path), raw.tell))
    except DECOMPRESSION_ERRORS as error:
        raise ValueError(f"{path} cannot be read ({reason_of(error)}): is the file whole and readable?") from error


def decompressed(raw: io.BufferedReader, name: str, expansion: Expansion) -> io.BufferedReader:
    """The stream behind gzip, xz, bzip2 or zstandard, recognised by its first bytes; any other stream as it is.

    Reading one that is cut off, or that ends in something else, raises one of DECOMPRESSION_ERRORS, whatever the
    compression; one that unpacks to more than any text does, ValueError. So do Git LFS pointers, and a stream whose
    name says that it is compressed although it is not.
    """
    head = raw.peek(512)
    if head.startswith(GZIP):
        stream = cast(BinaryIO, gzip.GzipFile(fileobj=raw))
    elif head.startswith(XZ):
        stream = cast(BinaryIO, UnpackedStream(raw, lzma.LZMADecompressor))
    elif head.startswith(BZIP2):
        stream = cast(BinaryIO, UnpackedStream(raw, bz2.BZ2Decompressor))
    elif head.startswith((ZSTD, *SKIPPABLE)):
        stream = cast(BinaryIO, UnpackedStream(raw, zstd_decompressor))
    else:
        refuse_pointer_head(name, head)
        suffix = PurePosixPath(name.lower()).suffix
        if head and suffix in (*COMPRESSION_SUFFIXES, *SHORT_SUFFIXES):
            raise ValueError(f"{name} cannot be unpacked: it is not a {suffix} file; rename it, or copy it again")
        return io.BufferedReader(cast(io.RawIOBase, raw), READ_BUFFER_BYTES)
    return io.BufferedReader(CountedStream(stream, expansion), READ_BUFFER_BYTES)


def zstd_decompressor() -> Any:
    """A decompressor of one frame, skippable ones included, whatever its window."""
    return zstandard.ZstdDecompressor(max_window_size=LONGEST_WINDOW).decompressobj()


class UnpackedStream(io.RawIOBase):
    """What the frames (streams, members) of a compressed stream unpack to, one after the other.

    The packages' own readers take a truncated zstandard frame for a whole one, and ignore data after an xz or bzip2
    stream that is not another stream; here, the first is an EOFError and the second the package's error.
    Zeros between frames and after the last one are padding.
    """

    def __init__(self, raw: io.BufferedReader, new_decompressor: Callable[[], Any]) -> None:
        self.raw, self.new_decompressor = raw, new_decompressor
        self.decompressor: Any = new_decompressor()
        self.waiting = memoryview(b"")  # decompressed, not yet read by the caller

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer, unless the stream ends before."""
        filled = 0
        while filled < len(buffer) and (self.waiting or self.unpack()):
            part = self.waiting[: len(buffer) - filled]
            buffer[filled : filled + len(part)] = part
            self.waiting = self.waiting[len(part) :]
            filled += len(part)
        return filled

    def unpack(self) -> bool:
        """Unpack a little more; False at the end."""
        packed = b""
        if self.decompressor.eof:
            packed = self.decompressor.unused_data.lstrip(b"\0")
            while not packed:
                data = self.raw.read(PACKED_BYTES)
                if not data:
                    return False
                packed = data.lstrip(b"\0")
            self.decompressor = self.new_decompressor()
        else:
            packed = self.raw.read(PACKED_BYTES)
            if not packed:
                raise EOFError("Compressed file ended before the end-of-stream marker was reached")
        self.waiting = memoryview(self.decompressor.decompress(packed))
        return True


class Expansion:
    """Compares the bytes decompressed from a file with those read from it (`packed()`)."""

    def __init__(self, name: str, packed: Callable[[], int]) -> None:
        self.name, self.packed = name, packed
        self.unpacked = 0

    def add(self, unpacked: int) -> None:
        """Add decompressed bytes; ValueError once they are far more than any text unpacks to."""
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
        """Fill the buffer; ValueError when the file expands too much."""
        data = self.stream.read(min(len(buffer), READ_BYTES))
        buffer[: len(data)] = data
        self.expansion.add(len(data))
        return len(data)
