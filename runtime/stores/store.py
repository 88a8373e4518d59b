"""A folder of an object store, or a folder of another disk: whole files by name, every request retried.

An object of a store appears whole or not at all, and so does a file that is put into a folder here.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import fsspec

from runtime.files.foreign import reason_of
from runtime.files.unique_keys import OutOfBounds
from runtime.files.whole_files import sync_file, whole_file
from runtime.processes.fault_points import fault_point
from runtime.stores.address import (
    LIBRARIES,
    StoreAddress,
    is_plain_name,
    is_store_address,
    parse_address,
    without_secrets,
)

ATTEMPTS = 6
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0  # seconds between attempts: doubled each time
VERSION_TAGS = ("ETag", "etag", "md5Hash", "generation", "LastModified", "updated", "mtime")  # of s3, gs, a disk
PIECE_BYTES = 16 << 20  # of a download: what a cut connection costs
# One attempt a request inside botocore: s3fs and this module repeat it, the latter with longer pauses.
S3_OPTIONS = {"config_kwargs": {"connect_timeout": 10, "read_timeout": 30, "retries": {"total_max_attempts": 1}}}
S3_PARTS = {"chunksize": 16 << 20, "max_concurrency": 4}  # of large files: 64 MB in memory; s3fs would take 500
# What no second attempt mends, by the names of the libraries' exceptions.
FINAL_NAMES = frozenset(
    (
        *("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "ParamValidationError"),
        *("InvalidRegionError", "DefaultCredentialsError", "RefreshError", "UnauthorizedSSOTokenError"),
    )
)

Result = TypeVar("Result")


class StoreError(OSError):
    """A request that failed in every attempt; the text names the object, the reason and the remedy."""


class NoAccess(StoreError):
    """A bucket that is missing or that these credentials may not use: trying again does not help."""


class Version(NamedTuple):
    """What a listing says of an object: its size in bytes, and what changes with its content, as the store names it."""

    size: int
    tag: str


class Store:
    """The files under one address; names are relative to it, with slashes.

    Every method raises StoreError once its attempts are used up. May be used by several threads, and after a fork.
    """

    def __init__(self, place: str | Path | StoreAddress, *, attempts: int = ATTEMPTS) -> None:
        """`place`: an address, or a folder. ValueError for an address that is refused or whose library is missing."""
        self.folder: Path | None = None
        self.attempts = attempts
        if isinstance(place, StoreAddress) or is_store_address(place) or "://" in str(place):
            address = place if isinstance(place, StoreAddress) else parse_address(str(place))
            self.protocol, self.root, self._shown = address.scheme, address.path, str(address)
            self._require_library()
        else:
            self.folder = Path(place).expanduser().absolute()
            self.protocol, self.root, self._shown = "file", str(self.folder), str(place)

    def __str__(self) -> str:
        return self._shown

    def _require_library(self) -> None:
        try:
            fsspec.get_filesystem_class(self.protocol)
        except ImportError as error:
            library, extra = LIBRARIES[self.protocol]
            raise ValueError(
                f"{self._shown}: {self.protocol}:// addresses need a library that is not installed "
                f"({reason_of(error)}): pip install {library} (the extra {extra!r} names it)"
            ) from error

    @property
    def files(self) -> Any:
        """The file system, of this process: fsspec keeps one a process, and makes a new one after a fork."""
        options: dict[str, Any] = {}
        if self.protocol != "file":
            options = {"use_listings_cache": False}
            configured = fsspec.config.conf.get(self.protocol, {})
            if self.protocol == "s3" and "config_kwargs" not in configured:
                options |= S3_OPTIONS
        return fsspec.filesystem(self.protocol, **options)

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """The size in bytes of every file whose name begins with the folder `prefix`; names that are not plain are
        left out."""
        return {name: version.size for name, version in self.versions(prefix).items()}

    def versions(self, prefix: str = "") -> dict[str, Version]:
        """The same with each file's version."""
        place = f"{self.root}/{prefix}".rstrip("/")

        def find() -> dict[str, Any]:
            if self.folder is not None and not Path(place).exists():
                return {}
            found: dict[str, Any] = self.files.find(place, detail=True)
            return found

        found = self._retried(f"listing {self._shown}/{prefix}", find, writes=True)
        start = len(self.root) + 1
        names = {path[start:]: _version_of(entry) for path, entry in found.items() if path[:start].endswith("/")}
        return {name: version for name, version in sorted(names.items()) if is_plain_name(name)}

    def read(self, name: str, limit: int) -> bytes | None:
        """A small file of at most `limit` bytes; None if there is none. ValueError for a larger one."""

        def work() -> bytes | None:
            try:
                size = int(self.files.info(self._path(name))["size"])
                content: bytes | None = self.files.cat_file(self._path(name)) if size <= limit else None
            except FileNotFoundError:
                return None
            if content is None:
                raise OutOfBounds(f"{self._shown}/{name} has {size} bytes, the limit is {limit}: it is another file")
            return content

        return self._retried(f"reading {self._shown}/{name}", work)

    def write(self, name: str, content: bytes) -> None:
        """Put a small file."""
        if self.folder is not None:
            self._into_folder(name, lambda file: file.write(content))
        else:
            self._retried(
                f"writing {self._shown}/{name}", lambda: self.files.pipe_file(self._path(name), content), writes=True
            )

    def upload(self, path: Path, name: str) -> None:
        """Put a local file; FileNotFoundError if that is gone."""
        size = path.stat().st_size
        fault_point("store.before_upload")
        if self.folder is not None:
            with path.open("rb") as source:
                self._into_folder(name, lambda file: shutil.copyfileobj(source, file, PIECE_BYTES))
            return

        def work() -> None:
            self.files.put_file(str(path), self._path(name), **(S3_PARTS if self.protocol == "s3" else {}))
            arrived = int(self.files.info(self._path(name))["size"])
            if arrived != size:
                raise ConnectionError(f"{arrived} of {size} bytes arrived")

        self._retried(f"uploading {self._shown}/{name}", work, writes=True, local=path)
        fault_point("store.after_upload")

    def download(self, name: str, path: Path, *, num_bytes: int, sha256: str | None = None) -> None:
        """Fetch a file of `num_bytes` bytes in pieces; a cut connection repeats one piece. `path` appears when all is
        there, on the disk and of the given sha256; else ValueError. FileNotFoundError if the store lacks it.
        """
        temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
        digest, start = hashlib.sha256(), 0
        size = self._retried(f"reading {self._shown}/{name}", lambda: int(self.files.info(self._path(name))["size"]))
        if size != num_bytes:
            raise ValueError(f"{self._shown}/{name} has {size} bytes, {num_bytes} expected: upload it again")
        try:
            with temporary.open("wb") as file:
                while start < num_bytes:
                    end = min(start + PIECE_BYTES, num_bytes)
                    piece = self._piece(name, start, end)
                    file.write(piece)
                    digest.update(piece)
                    start = end
            if sha256 is not None and digest.hexdigest() != sha256:
                raise ValueError(
                    f"{self._shown}/{name}: its sha256 begins with {digest.hexdigest()[:12]}, the manifest says "
                    f"{sha256[:12]}: upload it again"
                )
            sync_file(temporary)
            os.replace(temporary, path)
            sync_file(path.parent)
        finally:
            temporary.unlink(missing_ok=True)

    def _piece(self, name: str, start: int, end: int) -> bytes:
        fault_point("store.before_piece")

        def work() -> bytes:
            piece: bytes = self.files.cat_file(self._path(name), start=start, end=end)
            if len(piece) != end - start:
                raise ConnectionError(f"{len(piece)} of {end - start} bytes arrived")
            return piece

        return self._retried(f"reading {self._shown}/{name}", work)

    def remove(self, names: Iterable[str]) -> None:
        """Delete files in the order given; one that is gone already is no error."""
        for name in names:

            def work(name: str = name) -> None:
                with suppress(FileNotFoundError):
                    self.files.rm_file(self._path(name))

            self._retried(f"deleting {self._shown}/{name}", work, writes=True)

    def _path(self, name: str) -> str:
        assert is_plain_name(name), name
        return f"{self.root}/{name}"

    def _into_folder(self, name: str, fill: Callable[[Any], Any]) -> None:
        path = Path(self._path(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            fill(file)

    def _retried(
        self, what: str, work: Callable[[], Result], *, writes: bool = False, local: Path | None = None
    ) -> Result:
        """The result of the first attempt that succeeds. With `writes`, what is missing is the bucket, or `local`."""
        for attempt in range(1, self.attempts + 1):
            try:
                return work()
            except (MemoryError, OutOfBounds):
                raise
            except FileNotFoundError as error:
                if not writes or (local is not None and not local.exists()):
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), what) from None
                raise NoAccess(f"{what}: no such bucket: create it, or name another") from error
            except Exception as error:
                reason = without_secrets(reason_of(error))
                if isinstance(error, PermissionError) or type(error).__name__ in FINAL_NAMES:
                    raise NoAccess(f"{what}: {reason}: check the credentials and the rights of the bucket") from None
                if attempt == self.attempts:
                    raise StoreError(f"{what}: {reason} (attempt {attempt}): check the network and the store") from None
            time.sleep(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (attempt - 1)))
        raise AssertionError("unreachable")


def _version_of(entry: Mapping[str, Any]) -> Version:
    """Of an entry of fsspec's listing: the stores name a version differently, a folder of a disk has a time."""
    tags = (entry[name] for name in VERSION_TAGS if entry.get(name))
    return Version(int(entry.get("size") or 0), str(next(tags, "")))
