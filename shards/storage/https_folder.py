"""Files of a folder behind https: fetched with retries and from where a transfer broke off, and never redirected away
from https."""

import hashlib
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError, URLError
from urllib.parse import quote
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
from runtime.files.whole_files import sync_file
from shards.storage.manifest import Shard
from shards.storage.paced_socket import paced_context

TIMEOUT_SECONDS = 30
ATTEMPTS = 3
LONGEST_SIZE = 20  # digits
CONNECTIONS = 16
BROKEN = (URLError, HTTPException, TimeoutError, ConnectionError)  # what a server or a network does


class HttpsFolder:
    """The files below one https address."""

    def __init__(self, url: str) -> None:
        self.url = url

    def fetch_small(self, name: str, path: Path, limit: int) -> bool:
        """Fetch a file of at most `limit` bytes; False where the server has none. OSError if it cannot be fetched."""
        try:
            _download(f"{self.url}/{quote(name)}", path, limit)
        except HTTPError as error:
            if error.code != 404:
                raise
            return False
        return True

    def fetch_shard(self, shard: Shard, path: Path) -> None:
        """Fetch a shard; OSError names one that cannot be fetched, ValueError one unlike what the manifest says."""
        url = f"{self.url}/{quote(shard.name)}"
        try:
            _download(url, path, shard.num_bytes, shard.sha256)
        except BROKEN as error:
            raise OSError(
                f"shard {url} cannot be fetched ({reason_of(error)}): check the server and the network, then run the "
                "same command again to continue"
            ) from error

    def problems(self, shards: list[Shard]) -> list[str]:
        """What is wrong with the size of each shard, as the server gives it."""
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            return [problem for problem in pool.map(self._problem, shards) if problem]

    def _problem(self, shard: Shard) -> str | None:
        try:
            with _open(f"{self.url}/{quote(shard.name)}", "HEAD") as response:
                size = response.headers.get("Content-Length", "unknown")
        except (OSError, HTTPException) as error:
            return f"{shard.name}: {printable(' '.join(str(error).split()))[:300]}"
        if size == str(shard.num_bytes):
            return None
        return f"{shard.name}: {size[:LONGEST_SIZE]} bytes, {shard.num_bytes} expected"


class _Transfer:
    """A file as it arrives: an attempt that breaks off leaves what it brought to the next one."""

    def __init__(self, url: str, path: Path, max_bytes: int) -> None:
        self.url, self.path, self.max_bytes = url, path, max_bytes
        self.digest, self.size = hashlib.sha256(), 0

    def go_on(self) -> None:
        """Receive the rest. ConnectionError if the transfer ends before the file does."""
        headers = {"Range": f"bytes={self.size}-"} if self.size else {}
        with _open(self.url, "GET", headers) as response, self._file() as stream:
            if self.size and not self._continues(response):
                self.digest, self.size = hashlib.sha256(), 0  # the server sends the whole file again
            stream.seek(self.size)
            stream.truncate()
            self._receive(response, stream)

    def _file(self) -> BinaryIO:
        return open(self.path, "r+b") if self.size else open(self.path, "wb")

    def _continues(self, response: HTTPResponse) -> bool:
        place = response.headers.get("Content-Range", "")
        return response.status == 206 and place.startswith(f"bytes {self.size}-")

    def _receive(self, response: HTTPResponse, stream: BinaryIO) -> None:
        announced, before = response.headers.get("Content-Length"), self.size
        if announced is not None and not (announced.isascii() and announced.isdigit()):
            raise ConnectionError(f"its Content-Length is {shown(announced)}, not a number of bytes")
        while self.size <= self.max_bytes and (chunk := response.read(1 << 20)):
            stream.write(chunk)
            self.digest.update(chunk)
            self.size += len(chunk)
        if announced is None:
            return
        # http.client takes a broken transfer for the end of the file.
        length = before + int(announced[:LONGEST_SIZE])
        if self.size < min(length, self.max_bytes):
            raise ConnectionError(f"the transfer ended after {self.size} of {length} bytes")


def _download(url: str, path: Path, max_bytes: int, sha256: str | None = None) -> None:
    """Fetch into `path`, atomically; with `sha256`, size and hash must be exactly `max_bytes` and `sha256`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    transfer = _Transfer(url, temporary, max_bytes)
    try:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                transfer.go_on()
                break
            except BROKEN as error:
                if attempt == ATTEMPTS or (isinstance(error, HTTPError) and error.code < 500):
                    raise
                time.sleep(2.0**attempt)
        size, digest = transfer.size, transfer.digest.hexdigest()
        if size > max_bytes or (sha256 is not None and (size != max_bytes or digest != sha256)):
            raise ValueError(
                f"{url}: {size} bytes with sha256 {digest[:12]}... are not what the manifest says: upload it again"
            )
        sync_file(temporary)
        os.replace(temporary, path)
        sync_file(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _open(url: str, method: str, headers: dict[str, str] | None = None) -> Iterator[HTTPResponse]:
    """Open an https address, with no handler for any other scheme, so that a redirect cannot leave https either."""
    opener = OpenerDirector()
    https = HTTPSHandler(context=paced_context())
    for handler in (https, HTTPRedirectHandler(), HTTPErrorProcessor(), HTTPDefaultErrorHandler(), UnknownHandler()):
        opener.add_handler(handler)
    try:
        request = Request(url, method=method, headers=headers or {})  # noqa: S310 - https only
        response = opener.open(request, timeout=TIMEOUT_SECONDS)
    except ValueError as error:  # the address that the server sends us to
        raise ConnectionError(f"the answer cannot be used: {error}") from error
    with response:
        yield response
