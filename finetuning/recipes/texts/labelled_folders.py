"""Folders and tar archives with one folder of text files per label, as in aclImdb."""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from finetuning.examples.record_files import OnBadText, decode_text
from shards.text.expansion import Expansion

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
UNLABELLED_FOLDERS = frozenset({"unsup"})
MAX_TEXT_BYTES = 16 * 1024**2
MAX_ARCHIVE_BYTES = 8 * 1024**3

PathParts = tuple[str, ...]


def is_archive(path: Path) -> bool:
    """True when the name is that of a tar archive, compressed or not."""
    return path.name.lower().endswith(ARCHIVES)


def read_folder(directory: Path, *, on_bad_text: OnBadText = "stop") -> Iterator[tuple[PathParts, str]]:
    """Every labelled text file below `directory`, in the order of the names: the parts of its path, and its text."""
    for file in sorted(directory.rglob("*.txt")):
        parts = file.relative_to(directory).parts
        if _is_labelled(parts):
            yield parts, decode_text(_bounded(file.read_bytes(), str(file)), str(file), on_bad_text=on_bad_text)


def read_archive(path: Path, *, on_bad_text: OnBadText = "stop") -> Iterator[tuple[PathParts, str]]:
    """The same for a tar archive, read once from front to back; nothing is written to disk.

    Raises ValueError for a torn archive, for names that point outside it, for links, devices and sparse members, and
    for more than 16 MiB in one text, 8 GiB in all or 250 times the archive's size.
    """
    packed = path.stat().st_size
    total, expansion = 0, Expansion(str(path), lambda: packed)
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                parts = _safe_parts(path, member)
                if not member.isfile() or not _is_labelled(parts):
                    continue
                total += member.size
                if member.size > MAX_TEXT_BYTES or total > MAX_ARCHIVE_BYTES:
                    raise ValueError(
                        f"{path}: {member.name} makes it {total} bytes, more than a text collection may hold"
                    )
                expansion.add(member.size)
                stream = archive.extractfile(member)
                content = b"" if stream is None else stream.read()
                yield parts, decode_text(content, f"{path}:{member.name}", on_bad_text=on_bad_text)
    except (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error, OSError) as error:
        raise ValueError(f"{path}: cannot be read as a tar archive ({error}); copy it again") from error


def _safe_parts(path: Path, member: tarfile.TarInfo) -> PathParts:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts:
        raise ValueError(f"{path}: the member {member.name!r} points outside the archive; do not use this file")
    if not (member.isfile() or member.isdir()) or member.issparse():
        raise ValueError(f"{path}: the member {member.name!r} is neither a plain file nor a folder; leave it out")
    return name.parts


def _is_labelled(parts: PathParts) -> bool:
    hidden = any(part.startswith(".") for part in parts)
    return len(parts) >= 2 and parts[-1].endswith(".txt") and parts[-2] not in UNLABELLED_FOLDERS and not hidden


def _bounded(content: bytes, name: str) -> bytes:
    if len(content) > MAX_TEXT_BYTES:
        raise ValueError(f"{name}: {len(content)} bytes, more than one text may hold ({MAX_TEXT_BYTES}); split it")
    return content
