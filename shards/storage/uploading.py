"""Uploads finished shards to a store: the tokenizer and the shards first, the manifest last; resumable."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

from runtime.files.json_lines import JsonLines
from runtime.files.schemas import Count, Name, Schema
from runtime.files.whole_files import sha256_of
from runtime.processes.fault_points import fault_point
from runtime.stores.store import Store
from shards.storage.check import check_shards, shards_of
from shards.storage.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, read_manifest

CONNECTIONS = 4


class UploadedFile(Schema):
    """A line of what has been uploaded to one address."""

    name: Name
    bytes: Count
    sha256: Name


def upload_shards(directory: Path, store: Store) -> int:
    """Copy a finished shard directory into the store; the number of files that were uploaded now.

    What an earlier call has uploaded is remembered in a hidden file of the directory, and is left out if it is still
    there with its size. ValueError if the store holds other shards, OSError if it does not answer.
    """
    manifest_path = directory / MANIFEST_NAME
    content = manifest_path.read_bytes()
    stored = store.read(MANIFEST_NAME, MAX_MANIFEST_BYTES)
    if stored == content:
        return 0
    if stored is not None:
        raise ValueError(f"{store} holds other shards: name another --upload, or delete what is there")
    manifest = read_manifest(directory)
    check_shards(directory, manifest)
    digests = {shard.name: shard.sha256 for shard in shards_of(manifest)}
    tokenizer = directory / manifest.tokenizer.path
    digests |= {f"{tokenizer.name}/{path.name}": sha256_of(path) for path in sorted(tokenizer.iterdir())}
    address = hashlib.sha256(str(store).encode()).hexdigest()[:16]
    done = JsonLines(directory / f".uploaded-{address}.jsonl", UploadedFile, as_item=lambda line: line)
    recording = Lock()
    sizes, sent = store.sizes(), {line["name"]: line["sha256"] for line in done.read()}

    def put(name: str) -> bool:
        path = directory / name
        size = path.stat().st_size
        if sizes.get(name) == size and sent.get(name) == digests[name]:
            return False
        store.upload(path, name)
        with recording:  # at once: an interrupted call is not to upload again what is there
            done.append({"name": name, "bytes": size, "sha256": digests[name]})
        return True

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        put_now = sum(pool.map(put, digests))
    fault_point("shards.before_stored_manifest")
    store.write(MANIFEST_NAME, content)
    return put_now + 1
