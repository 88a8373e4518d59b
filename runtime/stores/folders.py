"""Flat folders in a store, under the commit protocol of checkpoints: all files first, `MANIFEST.json` last.

A folder whose manifest is not there does not exist; the manifest names the size and sha256 of every file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from runtime.files.schemas import Count, Items, Name, Schema, checked
from runtime.files.whole_files import parse_bounded, sha256_of, whole_directory
from runtime.processes.fault_points import fault_point
from runtime.stores.address import is_plain_name, is_plain_part
from runtime.stores.store import Store

MANIFEST_NAME = "MANIFEST.json"
LARGEST_MANIFEST_BYTES = 16 << 20
REMEDY = "upload the folder again, or use an earlier one"


class StoredFile(Schema):
    name: Name
    bytes: Count
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class FolderManifest(Schema):
    """The manifest of a folder: a checkpoint's own, or one that is made for an export."""

    schema_version: Literal[1]
    files: Items[StoredFile]


def manifest_of(folder: Path) -> bytes:
    """The manifest of a local folder's files, which are read for it; its own, as it is, if there is one."""
    if (folder / MANIFEST_NAME).is_file():
        return (folder / MANIFEST_NAME).read_bytes()
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and is_plain_part(path.name)]
    entries = [{"name": path.name, "bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in files]
    return (json.dumps({"schema_version": 1, "files": entries}, indent=2) + "\n").encode()


def parse_manifest(content: bytes, place: str) -> FolderManifest:
    """The manifest in `content`; ValueError names the `place` and what is wrong, a name that leaves the folder too."""
    try:
        parsed = parse_bounded(content)
    except ValueError as error:
        raise ValueError(f"{place} is not readable as JSON ({error}): {REMEDY}") from error
    manifest = checked(parsed, FolderManifest, place, REMEDY)
    names = [file.name for file in manifest.files]
    if strange := [name for name in names if not is_plain_part(name) or name == MANIFEST_NAME]:
        raise ValueError(f"{place} names {strange[0]!r}, which is no plain file: {REMEDY}")
    if len(set(names)) < len(names):
        raise ValueError(f"{place} names a file twice: {REMEDY}")
    return manifest


def folders_in(names: Mapping[str, int] | Sequence[str], parent: str) -> list[str]:
    """The complete folders right below `parent` among the names of a store's files, sorted."""
    start = f"{parent}/" if parent else ""
    split = [name[len(start) :].split("/") for name in names if name.startswith(start)]
    return sorted(parts[0] for parts in split if len(parts) == 2 and parts[1] == MANIFEST_NAME)


def put_folder(store: Store, folder: Path, name: str) -> bool:
    """Upload a flat folder as `name`, its manifest last; False if the same one is there already.

    An earlier one of that name is gone, as such, once the first file of the new one is written. What an upload that
    was killed has left is uploaded again. FileNotFoundError if a file of the folder is gone.
    """
    content = manifest_of(folder)
    earlier = store.read(f"{name}/{MANIFEST_NAME}", LARGEST_MANIFEST_BYTES)
    if earlier == content:
        return False
    if earlier is not None:
        store.remove([f"{name}/{MANIFEST_NAME}"])
    manifest = parse_manifest(content, str(folder / MANIFEST_NAME))
    for file in manifest.files:
        store.upload(folder / file.name, f"{name}/{file.name}")
    fault_point("store.before_manifest")
    store.write(f"{name}/{MANIFEST_NAME}", content)
    fault_point("store.after_manifest")
    return True


def fetch_folder(store: Store, name: str, target: Path, *, keep_manifest: bool) -> None:
    """Download a folder; `target` appears when every file is there with its sha256, and replaces what had its name.

    `keep_manifest`: as a file of the folder, too. FileNotFoundError if the store has no such folder, ValueError if it
    is not what its manifest says.
    """
    place = f"{store}/{name}/{MANIFEST_NAME}"
    if not is_plain_name(name):
        raise ValueError(f"{name!r} of {store} is no plain name of a folder: {REMEDY}")
    content = store.read(f"{name}/{MANIFEST_NAME}", LARGEST_MANIFEST_BYTES)
    if content is None:
        raise FileNotFoundError(f"{place} does not exist")
    manifest = parse_manifest(content, place)
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_directory(target) as temporary:
        for file in manifest.files:
            path = temporary / file.name
            try:
                store.download(f"{name}/{file.name}", path, num_bytes=file.bytes, sha256=file.sha256)
            except FileNotFoundError as error:
                raise ValueError(f"{store}/{name}/{file.name} is missing: {REMEDY}") from error
        if keep_manifest:
            (temporary / MANIFEST_NAME).write_bytes(content)


def remove_folder(store: Store, name: str, names: Mapping[str, int]) -> None:
    """Delete a folder, its manifest first, so that no half of it looks like one. `names`: the store's files."""
    inside = [file for file in names if file.startswith(f"{name}/")]
    store.remove(sorted(inside, key=lambda file: not file.endswith(f"/{MANIFEST_NAME}")))
