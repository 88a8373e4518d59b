"""A local S3 server behind a TCP proxy that can cut its connections, slow them down or refuse them."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

CHUNK = 1 << 14


@dataclass
class CuttingProxy:
    """Forwards bytes between clients and `target`; settings may change at any time.

    `cuts` are used up: each cuts the connection that has sent so many more bytes in its direction ("up": to the server,
    "down": from it), in the order of the list. `refused`: no connection is accepted, and those that are open are cut.
    `bytes_per_second` slows uploads down; 0: not.
    """

    target: tuple[str, int]
    cuts: list[tuple[str, int]] = field(default_factory=list)
    refused: bool = False
    bytes_per_second: float = 0.0
    num_cut: int = 0
    sent_up: int = 0

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.refused = True
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refused:
                _reset(client)
                continue
            try:
                server = socket.create_connection(self.target)
            except OSError:
                _reset(client)
                continue
            for source, sink, way in ((client, server, "up"), (server, client, "down")):
                threading.Thread(target=self._forward, args=(source, sink, way), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, way: str) -> None:
        with suppress(OSError):
            while piece := source.recv(CHUNK):
                if self.refused or (left := self._left(way, len(piece))) == 0:
                    break
                sink.sendall(piece[:left])
                if left < len(piece):
                    break
                if way == "up":
                    self.sent_up += len(piece)
                    if self.bytes_per_second:
                        time.sleep(len(piece) / self.bytes_per_second)
            else:
                sink.shutdown(socket.SHUT_WR)
                return
        _reset(source)
        _reset(sink)

    def _left(self, way: str, size: int) -> int:
        """How much of a piece passes before the next cut."""
        with self._lock:
            if not self.cuts or self.cuts[0][0] != way:
                return size
            left = self.cuts[0][1]
            if left > size:
                self.cuts[0] = (way, left - size)
                return size
            self.cuts.pop(0)
            self.num_cut += 1
            return left


def _reset(connection: socket.socket) -> None:
    """Close without goodbye: the other side sees a connection reset."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


@dataclass
class S3:
    """The server: its proxy, the variables by which clients find it, and its objects as a client sees them."""

    proxy: CuttingProxy
    variables: dict[str, str]
    backend: Any

    def names(self, bucket: str = "bucket") -> list[str]:
        return sorted(key.name for key in self.backend.buckets[bucket].keys.values())

    def content(self, name: str, bucket: str = "bucket") -> bytes:
        return bytes(self.backend.buckets[bucket].keys[name].value)

    def put(self, name: str, content: bytes, bucket: str = "bucket") -> None:
        self.backend.put_object(bucket, name, content)

    def delete(self, name: str, bucket: str = "bucket") -> None:
        self.backend.delete_object(bucket, name)

    def meet(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let this process find the server, with nothing left of earlier clients and cuts."""
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        for name, value in self.variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("runtime.stores.store.FIRST_PAUSE", 0.01)
        self.proxy.cuts.clear()
        self.proxy.refused = False


@contextmanager
def s3_server(bucket: str = "bucket") -> Iterator[S3]:
    """A server with an empty bucket, on this machine; skips the test where the s3 extra or moto is not installed."""
    pytest.importorskip("s3fs")
    server_module = pytest.importorskip("moto.server")
    from moto.s3.models import s3_backends

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    proxy = CuttingProxy(server.get_host_and_port())
    backend = s3_backends["123456789012"]["aws"]
    backend.reset()
    backend.create_bucket(bucket, "us-east-1")
    variables = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}",
        "AWS_ACCESS_KEY_ID": "test-key-id",
        "AWS_SECRET_ACCESS_KEY": "test-secret-key",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    try:
        yield S3(proxy, variables, backend)
    finally:
        proxy.close()
        server.stop()
