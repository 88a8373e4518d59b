"""The location of shards: a directory, or an address whose files are fetched into a local cache of bounded size."""

import hashlib
import logging
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from runtime.files.foreign import reason_of
from runtime.files.whole_files import sha256_of
from runtime.stores.address import is_store_address, parse_address
from runtime.stores.cache import DEFAULT_GB, GB, cache_folder, make_room, one_at_a_time
from shards.storage.check import Verify, check_shards, shards_of
from shards.storage.https_folder import BROKEN, HttpsFolder
from shards.storage.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, Manifest, Shard, read_manifest
from shards.storage.store_folder import StoreFolder

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "config.json")
MAX_TOKENIZER_BYTES = 1 << 28
STALE_SECONDS = 24 * 3600

logger = logging.getLogger(__name__)


class RemoteFolder(Protocol):
    """Where shards are fetched from."""

    def fetch_small(self, name: str, path: Path, limit: int) -> bool:
        """Fetch a file of at most `limit` bytes; False if there is none."""

    def fetch_shard(self, shard: Shard, path: Path) -> None:
        """Fetch a shard, whole and as the manifest says; OSError or ValueError."""

    def problems(self, shards: list[Shard]) -> list[str]:
        """What is wrong with the sizes of shards."""


@dataclass(frozen=True)
class ShardLocation:
    """A local folder of shards and, if they are fetched into it, the address they come from (https, s3, gs).

    `cache_gb`: the size of the cache, in which the folder is, that is kept free of files not in use; 0: no limit.
    """

    directory: Path
    url: str | None = None
    cache_gb: float = DEFAULT_GB

    def __str__(self) -> str:
        return self.url or str(self.directory)

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest, read once: with 500 GB of text that takes seconds, and so does fetching it."""
        return read_manifest(self.directory)

    @property
    def _remote(self) -> RemoteFolder:
        assert self.url is not None
        return StoreFolder(self.url) if is_store_address(self.url) else HttpsFolder(self.url)

    def check(self, verify: Verify = "sizes", share: tuple[int, int] = (0, 1)) -> None:
        """List all shards that do not match the manifest, in one ValueError; see `check_shards`.

        At an address the server is asked for the sizes; `verify="full"` fetches every shard and compares its sha256.
        """
        if self.url is None:
            check_shards(self.directory, self.manifest, verify, share)
            return
        number, of_how_many = share
        shards = shards_of(self.manifest)[number::of_how_many]
        if problems := self._remote.problems([shard for shard in shards if not self._has_size(shard)]):
            listed = "\n  ".join(problems)
            raise ValueError(f"{self.url}: {len(problems)} shards do not match the manifest:\n  {listed}")
        if verify == "full":
            for shard in shards:
                self.fetch(shard)
            if sum(shard.num_bytes for shard in shards) <= (self.cache_gb * GB or float("inf")):
                check_shards(self.directory, self.manifest, verify, share)

    def fetch(self, shard: Shard) -> bool:
        """Fetch a shard into the folder unless it is complete there; it gets its name only if it matches the manifest.

        Returns whether the folder is a cache, in which a file must be held while it is used. A copy that was damaged on
        disk is fetched again, even if its size is right; of several processes, one fetches. OSError names an address
        that cannot be read, ValueError one whose content does not match the manifest.
        """
        if self.url is None:
            return False
        path = self.directory / shard.name
        with one_at_a_time(path):
            if not _is_whole(path, shard):
                root, limit = self.directory.parent, self.cache_gb * GB
                if limit and not make_room(root, limit, shard.num_bytes):
                    logger.warning("%s: the shards in use take more than --cache_gb %g", root, self.cache_gb)
                self._remote.fetch_shard(shard, path)
        return True

    def _has_size(self, shard: Shard) -> bool:
        path = self.directory / shard.name
        return path.is_file() and path.stat().st_size == shard.num_bytes


def open_location(
    location: str | Path | ShardLocation, cache_directory: Path | None = None, cache_gb: float = DEFAULT_GB
) -> ShardLocation:
    """Turn a folder or an address (of the folder that holds manifest.json) into a `ShardLocation`.

    At an https, s3 or gs address, the manifest and the tokenizer are fetched at once and each shard when it is first
    opened, into a separate folder under `cache_directory` (default: pretraining-gap in XDG_CACHE_HOME or ~/.cache). Any
    other scheme, including `pipe:`, is refused, and nothing in an address is expanded. A location that is already open
    is returned unchanged. The shards that were not used for longest are deleted there once all take more than
    `cache_gb`; 0: never.
    """
    if isinstance(location, ShardLocation):
        return location
    text = str(location)
    if "://" not in text and not text.startswith("pipe:"):
        return ShardLocation(Path(text))
    url = checked_address(text)
    root = Path(cache_directory or cache_folder())
    directory = root / hashlib.sha256(url.encode()).hexdigest()[:16]
    directory.mkdir(parents=True, exist_ok=True)
    remove_stale_partials(root)
    opened = ShardLocation(directory, url, cache_gb)
    remote, wanted = opened._remote, MANIFEST_NAME
    try:
        if not remote.fetch_small(MANIFEST_NAME, directory / MANIFEST_NAME, MAX_MANIFEST_BYTES):
            raise ConnectionError("HTTP Error 404: Not Found" if isinstance(remote, HttpsFolder) else "not there")
        folder = opened.manifest.tokenizer.path
        if not (directory / folder).is_dir():
            (directory / folder).mkdir(parents=True)
        for name in TOKENIZER_FILES:
            wanted = f"{folder}/{name}"
            remote.fetch_small(wanted, directory / wanted, MAX_TOKENIZER_BYTES)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"{directory / folder} cannot be made, because a file is there: delete {directory}") from error
    except BROKEN as error:
        raise ValueError(
            f"{wanted} of the shards {text!r} cannot be fetched ({reason_of(error)}): check the address and the network"
        ) from error
    return opened


def checked_address(text: str) -> str:
    """The address of shards without a slash at its end; ValueError for one that is not plain https, s3 or gs."""
    if is_store_address(text):
        return str(parse_address(text))
    parts = urlsplit(text)
    plain = parts.hostname and not (parts.query or parts.fragment or set("${}|`") & set(text))
    if parts.scheme != "https" or not plain:
        raise ValueError(f"shards {text!r}: give a directory or a plain https://host/path, s3:// or gs:// address")
    return text.rstrip("/")


def remove_stale_partials(root: Path) -> None:
    """Delete what killed downloads left behind: not written to for a day, and by a process that is gone."""
    for path in root.rglob(".*.partial"):
        pid = path.name.removesuffix(".partial").rpartition(".")[2].partition("-")[0]  # of PID or PID-THREAD
        with suppress(FileNotFoundError):  # another process of the run deleted it first
            if pid.isdigit() and time.time() - path.stat().st_mtime > STALE_SECONDS and not _is_running(int(pid)):
                path.unlink()


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # another user's process
    return True


def _is_whole(path: Path, shard: Shard) -> bool:
    return path.is_file() and path.stat().st_size == shard.num_bytes and sha256_of(path) == shard.sha256
