"""What a source holds, by its sha256: an edit that keeps the number of bytes is still an edit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from runtime.files.whole_files import sha256_of
from shards.text.sources import Source, file_source, files_below

Identity = dict[str, Any]  # {"stamp": path, number of files, times; "sha256": of the content, None if unknown}


def identified(sources: Sequence[Source], threads: int) -> list[Identity]:
    """What each source holds now, as an unfinished build remembers it: {"stamp": ..., "sha256": ...}."""
    stamps = [stamp(source) for source in sources]
    pool = ThreadPoolExecutor(threads)
    try:
        hashes = list(pool.map(content_sha256, sources))
    finally:
        pool.shutdown(cancel_futures=True)
    return [{"stamp": each, "sha256": sha256} for each, sha256 in zip(stamps, hashes, strict=True)]


def identified_again(
    sources: Sequence[Source], before: Sequence[Identity], threads: int
) -> tuple[list[Identity], list[str]]:
    """What the sources of an interrupted build hold now, and the paths of those that are not as they were `before`.

    Only a source that lies elsewhere, or was touched, written, replaced or copied since, is read again.
    """
    moved = [source for source, known in zip(sources, before, strict=True) if stamp(source) != known["stamp"]]
    identities = dict(zip(moved, identified(moved, threads), strict=True))
    now = [identities.get(source, known) for source, known in zip(sources, before, strict=True)]
    changes = zip(sources, before, now, strict=True)
    return now, [source.path for source, known, new in changes if new["sha256"] != known["sha256"]]


def stamp(source: Source) -> list[Any]:
    """What is the same as long as a source was not touched: its path, its number of files, their latest times."""
    times = [(status.st_mtime_ns, status.st_ctime_ns) for status in (file.stat() for file in files_of(source))]
    return [source.path, len(times), *map(max, zip(*times, strict=True))]


def source_list(
    sources: Sequence[Source], documents: Mapping[int, int], identities: Sequence[Identity]
) -> list[dict[str, Any]]:
    """Sources as the manifest lists them, with the documents read from each, by its number, and the sha256.

    Raises ValueError for a source that is no longer as it was when the build began: what was read is then unknown.
    """
    entries = []
    for number, (source, identity) in enumerate(zip(sources, identities, strict=True)):
        refuse_change(source)
        if stamp(source) != identity["stamp"] and content_sha256(source) != identity["sha256"]:
            raise ValueError(changed_while_read(source))
        entry = {"name": source.name, "bytes": source.bytes, "documents": documents[number]}
        entries.append(entry if identity["sha256"] is None else entry | {"sha256": identity["sha256"]})
    return entries


def edited_sources(sources: Sequence[Source], listed: Sequence[Mapping[str, Any]], since: int) -> list[str]:
    """The paths of sources that no longer hold what a manifest written at `since` (nanoseconds) lists for them.

    A file that was neither written nor replaced after that (by its change time, which cannot be set) is not read
    again. Shards that were built before manifests had a sha256 are not compared.
    """
    return [
        source.path
        for source, entry in zip(sources, listed, strict=True)
        if "sha256" in entry
        and any(file.stat().st_ctime_ns >= since for file in files_of(source))
        and content_sha256(source) != entry["sha256"]
    ]


def content_sha256(source: Source) -> str | None:
    """The sha256 of a file, or one over the names and sha256 of a saved dataset's files; None for a dataset by name.

    Raises ValueError for a file that is not as it was when the build found it: what was read is then unknown.
    """
    path = Path(source.path)
    if not source.dataset:
        refuse_change(source)
        return sha256_of(path)
    if not path.is_dir():
        return None
    digest = hashlib.sha256()
    for file in files_of(source):
        digest.update(f"{file.relative_to(path).as_posix()} {sha256_of(file)}\n".encode())
    return digest.hexdigest()


def refuse_change(source: Source) -> None:
    """ValueError for a file that is not as it was when the build found it."""
    if not source.dataset and file_source(Path(source.path), source.name) != source:
        raise ValueError(changed_while_read(source))


def changed_while_read(source: Source) -> str:
    """What is wrong with a source that changed under a build."""
    return f"{source.path} was changed while it was read: delete --output_dir and build again from unchanging files"


def files_of(source: Source) -> list[Path]:
    """The files of a source in a fixed order; none for a dataset given by name."""
    path = Path(source.path)
    if path.is_dir():
        return [file for file in files_below(path) if file.is_file()]
    return [] if source.dataset else [path]
