"""What a source holds, by its sha256: an edit that keeps the number of bytes is still an edit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from shards.storage.shard_file import hash_file
from shards.text.sources import Source, file_source, files_below


def source_list(sources: Sequence[Source], documents: Mapping[int, int], threads: int) -> list[dict[str, Any]]:
    """Sources as the manifest lists them, with the documents read from each, by its number, and the sha256."""
    entries = [
        {"name": source.name, "bytes": source.bytes, "documents": documents[number]}
        for number, source in enumerate(sources)
    ]
    with ThreadPoolExecutor(threads) as pool:
        for entry, sha256 in zip(entries, pool.map(content_sha256, sources), strict=True):
            if sha256 is not None:
                entry["sha256"] = sha256
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
        if file_source(path, source.name) != source:
            raise ValueError(
                f"{path} was changed while it was read: delete --output_dir and build again from unchanging files"
            )
        return hash_file(path)
    if not path.is_dir():
        return None
    digest = hashlib.sha256()
    for file in files_of(source):
        digest.update(f"{file.relative_to(path).as_posix()} {hash_file(file)}\n".encode())
    return digest.hexdigest()


def files_of(source: Source) -> list[Path]:
    """The files of a source in a fixed order; none for a dataset given by name."""
    path = Path(source.path)
    if path.is_dir():
        return [file for file in files_below(path) if file.is_file()]
    return [] if source.dataset else [path]
