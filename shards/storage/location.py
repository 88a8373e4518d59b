"""The location of shards: a directory, or an https address whose files are fetched into a local cache and checked."""

import hashlib
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    Request,
    UnknownHandler,
)

from runtime.files.foreign import printable, reason_of
from runtime.files.schemas import shown
from runtime.files.whole_files import sha256_of, sync_file
from shards.storage.check import Verify, check_shards, shards_of
from shards.storage.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, Manifest, Shard, read_manifest
from shards.storage.paced_socket import paced_context

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "config.json")
MAX_TOKENIZER_BYTES = 1 << 28
TIMEOUT_SECONDS = 30
ATTEMPTS = 3
LONGEST_SIZE = 20  # digits
STALE_SECONDS = 24 * 3600
CONNECTIONS = 16


@dataclass(frozen=True)
class ShardLocation:
    """A local folder of shards and, if they are fetched into it, the https address they come from."""

    directory: Path
    url: str | None = None

    def __str__(self) -> str:
        return self.url or str(self.directory)

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest, read once: with 500 GB of text that takes seconds, and so does fetching it."""
        return read_manifest(self.directory)

    def check(self, verify: Verify = "sizes", share: tuple[int, int] = (0, 1)) -> None:
        """List all shards that do not match the manifest, in one ValueError; see `check_shards`.

        At an address the server is asked for the sizes; `verify="full"` fetches every shard and compares its sha256.
        """
        if self.url is None:
            check_shards(self.directory, self.manifest, verify, share)
            return
        number, of_how_many = share
        shards = shards_of(self.manifest)[number::of_how_many]
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            problems = [problem for problem in pool.map(self._problem, shards) if problem]
        if problems:
            listed = "\n  ".join(problems)
            raise ValueError(f"{self.url}: {len(problems)} shards do not match the manifest:\n  {listed}")
        if verify == "full":
            for shard in shards:
                self.fetch(shard)
            check_shards(self.directory, self.manifest, verify, share)

    def fetch(self, shard: Shard) -> None:
        """Fetch a shard into the folder unless it is complete there; it gets its name only if it matches the manifest.

        A copy that was damaged on disk is fetched again, even if its size is right.
        OSError names an address that cannot be read, ValueError one whose content does not match the manifest.
        """
        path = self.directory / shard.name
        if self.url is None or _is_whole(path, shard):
            return
        url = f"{self.url}/{quote(shard.name)}"
        try:
            _download(url, path, shard.num_bytes, shard.sha256)
        except (URLError, HTTPException, TimeoutError, ConnectionError) as error:
            raise OSError(
                f"shard {url} cannot be fetched ({reason_of(error)}): check the server and the network, then run the "
                "same command again to continue"
            ) from error

    def _problem(self, shard: Shard) -> str | None:
        path = self.directory / shard.name
        if path.is_file() and path.stat().st_size == shard.num_bytes:
            return None
        try:
            with _open(f"{self.url}/{quote(shard.name)}", "HEAD") as response:
                size = response.headers.get("Content-Length", "unknown")
        except (OSError, HTTPException) as error:
            return f"{shard.name}: {printable(' '.join(str(error).split()))[:300]}"
        return (
            None
            if size == str(shard.num_bytes)
            else f"{shard.name}: {size[:LONGEST_SIZE]} bytes, {shard.num_bytes} expected"
        )


def open_location(location: str | Path | ShardLocation, cache_directory: Path | None = None) -> ShardLocation:
    """Turn a folder or an https address (of the folder that holds manifest.json) into a `ShardLocation`.

    At an address, the manifest and the tokenizer are fetched at once and each shard when it is first opened, into a
    separate folder under `cache_directory` (default: pretraining-gap in XDG_CACHE_HOME or ~/.cache). Any other
    scheme, including `pipe:`, is refused, and nothing in an address is expanded. A location that is already open is
    returned unchanged. No complete file is ever deleted there: the folder grows to the size of all shards opened.
    """
    if isinstance(location, ShardLocation):
        return location
    text = str(location)
    if "://" not in text and not text.startswith("pipe:"):
        return ShardLocation(Path(text))
    parts = urlsplit(text)
    if parts.scheme != "https" or not parts.hostname or parts.query or parts.fragment or set("${}|`") & set(text):
        raise ValueError(f"shards {text!r}: give a directory or a plain https://host/path address")
    url = text.rstrip("/")
    root = cache_directory or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pretraining-gap"
    directory = Path(root) / hashlib.sha256(url.encode()).hexdigest()[:16]
    directory.mkdir(parents=True, exist_ok=True)
    remove_stale_partials(Path(root))
    opened = ShardLocation(directory, url)
    wanted = MANIFEST_NAME
    try:
        _download(f"{url}/{MANIFEST_NAME}", directory / MANIFEST_NAME, MAX_MANIFEST_BYTES)
        folder = opened.manifest.tokenizer.path
        if not (directory / folder).is_dir():
            (directory / folder).mkdir(parents=True)
        for name in TOKENIZER_FILES:
            wanted = f"{folder}/{name}"
            _download_if_there(f"{url}/{quote(wanted)}", directory / wanted)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"{directory / folder} cannot be made, because a file is there: delete {directory}") from error
    except (URLError, HTTPException, TimeoutError, ConnectionError) as error:
        raise ValueError(
            f"{wanted} of the shards {text!r} cannot be fetched ({reason_of(error)}): check the address and the network"
        ) from error
    return opened


def remove_stale_partials(root: Path) -> None:
    """Delete what killed downloads left behind: not written to for a day, and by a process that is gone."""
    for path in root.rglob(".*.partial"):
        pid = path.name.removesuffix(".partial").rpartition(".")[2]
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


def _download_if_there(url: str, path: Path) -> None:
    try:
        _download(url, path, MAX_TOKENIZER_BYTES)
    except HTTPError as error:
        if error.code != 404:
            raise


def _download(url: str, path: Path, max_bytes: int, sha256: str | None = None) -> None:
    """Fetch into `path`, atomically; with `sha256`, size and hash must be exactly `max_bytes` and `sha256`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                size, digest = _receive(url, temporary, max_bytes)
                break
            except (URLError, HTTPException, TimeoutError, ConnectionError) as error:
                if attempt == ATTEMPTS or (isinstance(error, HTTPError) and error.code < 500):
                    raise
                time.sleep(2.0**attempt)
        if size > max_bytes or (sha256 is not None and (size != max_bytes or digest != sha256)):
            raise ValueError(
                f"{url}: {size} bytes with sha256 {digest[:12]}... are not what the manifest says: upload it again"
            )
        sync_file(temporary)
        os.replace(temporary, path)
        sync_file(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _receive(url: str, path: Path, max_bytes: int) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    with _open(url, "GET") as response, open(path, "wb") as stream:
        announced = response.headers.get("Content-Length")
        if announced is not None and not (announced.isascii() and announced.isdigit()):
            raise ConnectionError(f"its Content-Length is {shown(announced)}, not a number of bytes")
        while size <= max_bytes and (chunk := response.read(1 << 20)):
            stream.write(chunk)
            digest.update(chunk)
            size += len(chunk)
    # http.client takes a broken transfer for the end of the file.
    if announced is not None and size < min(int(announced[:LONGEST_SIZE]), max_bytes):
        raise ConnectionError(f"the transfer ended after {size} of {announced[:LONGEST_SIZE]} bytes")
    return size, digest.hexdigest()


@contextmanager
def _open(url: str, method: str) -> Iterator[HTTPResponse]:
    """Open an https address, with no handler for any other scheme, so that a redirect cannot leave https either."""
    opener = OpenerDirector()
    https = HTTPSHandler(context=paced_context())
    for handler in (https, HTTPRedirectHandler(), HTTPErrorProcessor(), HTTPDefaultErrorHandler(), UnknownHandler()):
        opener.add_handler(handler)
    try:
        response = opener.open(Request(url, method=method), timeout=TIMEOUT_SECONDS)  # noqa: S310 - https only
    except ValueError as error:  # the address that the server sends us to
        raise ConnectionError(f"the answer cannot be used: {error}") from error
    with response:
        yield response
