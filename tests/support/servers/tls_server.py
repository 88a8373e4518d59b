"""A local TLS server for a folder, which can be set to serve some files wrongly."""

from __future__ import annotations

import functools
import http.server
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest


@dataclass
class ServedFolder:
    """What is served where; `cut` has, by file name, the bytes after which a transfer breaks off; `gone` is 404."""

    address: str
    folder: Path
    certificate: Path
    cut: dict[str, int] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    answers: dict[str, Path] = field(default_factory=dict)  # by path: the file with the whole answer, its head included
    requests: list[str] = field(default_factory=list)
    pause_seconds: float = 0.0  # between the bytes of every answer, headers included
    length: str = ""  # as Content-Length of every answer
    moved: str = ""  # where every answer sends


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; /moved/... redirects out of https."""

    served: ServedFolder

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        name = self.path.rsplit("/", 1)[-1]
        self.served.requests.append(name)
        if self.served.pause_seconds:
            self.drip((self.served.folder / name).read_bytes())
            return
        if self.path in self.served.answers:
            self.wfile.write(self.served.answers[self.path].read_bytes())
            return
        if self.served.length or self.served.moved:
            self.send_response(302 if self.served.moved else 200)
            self.send_header(
                "Location" if self.served.moved else "Content-Length", self.served.moved or self.served.length
            )
            self.end_headers()
            return
        if self.path.startswith("/moved/"):
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1:9/manifest.json")
            self.end_headers()
        elif name in self.served.gone:
            self.send_error(404)
        elif name in self.served.cut:
            content = (self.served.folder / name).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: self.served.cut[name]])
        else:
            super().do_GET()

    def drip(self, content: bytes) -> None:
        """One byte after the other, until the client goes away."""
        answer = b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content
        with suppress(OSError):
            for byte in answer[:400]:
                self.connection.sendall(bytes([byte]))
                time.sleep(self.served.pause_seconds)


@contextmanager
def tls_server(folder: Path, scratch: Path, address: str = "127.0.0.1") -> Iterator[ServedFolder]:
    """Serve `folder`; the certificate, which clients do not trust by default, is written into `scratch`."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command to make a certificate")
    certificate, private_key = scratch / "certificate.pem", scratch / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", f"subjectAltName=IP:{address}", "-keyout", str(private_key), "-out", str(certificate)]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    served = ServedFolder("", folder, certificate)
    handler = type("FolderHandler", (Handler,), {"served": served})
    server = http.server.ThreadingHTTPServer((address, 0), functools.partial(handler, directory=str(folder)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private_key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    served.address = f"https://{address}:{server.server_address[1]}"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
