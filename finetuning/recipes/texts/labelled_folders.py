"""Folders and tar archives with one folder of text files per label, as in aclImdb."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from finetuning.examples.record_files import OnBadText, decode_text
from runtime.files.schemas import shown
from shards.text.compression import Expansion, unpacked
from shards.text.dumps.archives import tar_members
from shards.text.formats import name_suffix
from shards.text.sources import files_below, leads_nowhere

UNLABELLED_FOLDERS = frozenset({"unsup"})
MAX_TEXT_BYTES = 16 * 1024**2
MAX_ARCHIVE_BYTES = 8 * 1024**3

PathParts = tuple[str, ...]


def is_archive(path: Path) -> bool:
    """True when the name is that of a tar archive, compressed or not."""
    return name_suffix(path.name) == ".tar"


def read_folder(directory: Path, *, on_bad_text: OnBadText = "stop") -> Iterator[tuple[PathParts, str]]:
    """Every labelled text file below `directory`, in the order of the names: the parts of its path, and its text.

    Folders that are links are followed. Raises ValueError for a link that leads nowhere.
    """
    for file in files_below(directory):
        parts = file.relative_to(directory).parts
        if _is_labelled(parts):
            if leads_nowhere(file):
                raise ValueError(f"{file} is a broken link: repair it, or remove it")
            yield parts, decode_text(_bounded(file.read_bytes(), str(file)), str(file), on_bad_text=on_bad_text)


def read_archive(path: Path, *, on_bad_text: OnBadText = "stop") -> Iterator[tuple[PathParts, str]]:
    """The same for a tar archive, read once from front to back; nothing is written to disk.

    Raises ValueError for a torn archive, for names that point outside it or occur twice, for links, devices and sparse
    members, and for more than 16 MiB in one text, 8 GiB in all or 250 times the archive's size.
    """
    packed = path.stat().st_size
    total, expansion, names = 0, Expansion(str(path), lambda: packed), set[PathParts]()
    with unpacked(path) as (_, stream):
        for member, content in tar_members(stream, str(path)):
            parts = _safe_parts(path, member)
            if content is None or not _is_labelled(parts):
                continue
            if parts in names:
                raise ValueError(
                    f"{path}: the member {shown(member.name)} occurs twice; give each text a name of its own"
                )
            names.add(parts)
            total += member.size
            if member.size > MAX_TEXT_BYTES or total > MAX_ARCHIVE_BYTES:
                raise ValueError(
                    f"{path}: {shown(member.name)} makes it {total} bytes, more than a text collection may hold"
                )
            expansion.add(member.size)
            yield parts, decode_text(content.read(), f"{path}:{member.name}", on_bad_text=on_bad_text)


def _safe_parts(path: Path, member: tarfile.TarInfo) -> PathParts:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts:
        raise ValueError(f"{path}: the member {shown(member.name)} points outside the archive; do not use this file")
    if not (member.isfile() or member.isdir()) or member.issparse():
        raise ValueError(f"{path}: the member {shown(member.name)} is neither a plain file nor a folder; leave it out")
    return name.parts


def _is_labelled(parts: PathParts) -> bool:
    hidden = any(part.startswith(".") for part in parts)
    return len(parts) >= 2 and parts[-1].endswith(".txt") and parts[-2] not in UNLABELLED_FOLDERS and not hidden


def _bounded(content: bytes, name: str) -> bytes:
    if len(content) > MAX_TEXT_BYTES:
        raise ValueError(f"{name}: {len(content)} bytes, more than one text may hold ({MAX_TEXT_BYTES}); split it")
    return content
