"""A series in an object store, downloaded into the cache and verified, for commands that read one."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pretraining.checkpoints.origin import RUN_NAME
from pretraining.checkpoints.series import SERIES_NAME, read_series
from runtime.files.whole_files import sha256_of, whole_file
from runtime.stores.address import is_store_address, parse_address
from runtime.stores.cache import cache_folder, one_at_a_time
from runtime.stores.folders import LARGEST_MANIFEST_BYTES, MANIFEST_NAME, fetch_folder, parse_manifest
from runtime.stores.store import Store

LARGEST_RECORD_BYTES = 64 << 20


def cached_series(places: str) -> str:
    """Series separated by commas; each one at an s3 or gs address is replaced by its copy in the cache.

    ValueError if there is no such series or an export is not as its manifest says; OSError if the store does not
    answer.
    """
    return ",".join(_local(part.strip()) if is_store_address(part.strip()) else part for part in places.split(","))


def _local(place: str) -> str:
    address = parse_address(place.removesuffix(f"/{SERIES_NAME}"))
    store = Store(address)
    folder = cache_folder() / "series" / hashlib.sha256(str(address).encode()).hexdigest()[:16]
    with one_at_a_time(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not _fetch_record(store, SERIES_NAME, folder):
            raise ValueError(f"{address}/{SERIES_NAME} does not exist: name the address of a run's --upload")
        _fetch_record(store, RUN_NAME, folder)
        root = folder.resolve()
        for entry in read_series(folder):
            name = Path(entry["path"]).relative_to(root).as_posix()
            if not _is_whole(store, name, folder / name):
                try:
                    fetch_folder(store, name, folder / name, keep_manifest=False)
                except FileNotFoundError as error:
                    raise ValueError(f"{error}: {SERIES_NAME} lists it; upload the run again") from error
    return str(folder / SERIES_NAME)


def _fetch_record(store: Store, name: str, folder: Path) -> bool:
    content = store.read(name, LARGEST_RECORD_BYTES)
    if content is not None:
        with whole_file(folder / name) as file:
            file.write(content)
    return content is not None


def _is_whole(store: Store, name: str, target: Path) -> bool:
    """Whether the cache has an export as it is in the store now."""
    if not target.is_dir():
        return False
    content = store.read(f"{name}/{MANIFEST_NAME}", LARGEST_MANIFEST_BYTES) or b""
    files = parse_manifest(content, f"{store}/{name}/{MANIFEST_NAME}").files
    present = {path.name for path in target.iterdir()}
    return present == {file.name for file in files} and all(
        (target / file.name).stat().st_size == file.bytes and sha256_of(target / file.name) == file.sha256
        for file in files
    )
