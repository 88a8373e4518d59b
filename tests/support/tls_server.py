"""A TLS server on this machine that serves a folder, and some files wrongly when it is told to."""

from __future__ import annotations

import contextlib
import functools
import http.server
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest


@dataclass
class ServedFolder:
    """What is served where; the fields after the certificate name files that it serves wrongly.

    `cut` has the bytes after which a transfer breaks off; `gone` is 404.
    """

    address: str
    folder: Path
    certificate: Path
    cut: dict[str, int] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    slow: set[str] = field(default_factory=set)  # a byte at a time
    slow_headers: set[str] = field(default_factory=set)
    lengths: dict[str, str] = field(default_factory=dict)  # what it says the number of bytes is
    requests: list[str] = field(default_factory=list)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; /moved/... redirects out of https."""

    served: ServedFolder

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        name = self.path.rsplit("/", 1)[-1]
        self.served.requests.append(name)
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
        elif name in self.served.slow_headers:
            self.drip(b"HTTP/1.0 200 OK\r\n" + b"X-More: yes\r\n" * 1000)
        elif name in self.served.slow or name in self.served.lengths:
            content = (self.served.folder / name).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", self.served.lengths.get(name, str(len(content))))
            self.end_headers()
            self.drip(content) if name in self.served.slow else self.wfile.write(content)
        else:
            super().do_GET()

    def drip(self, content: bytes) -> None:
        """Send byte by byte, for as long as somebody listens."""
        with contextlib.suppress(OSError):
            for number in range(len(content)):
                self.wfile.write(content[number : number + 1])
                time.sleep(0.05)


@contextmanager
def tls_server(folder: Path, scratch: Path) -> Iterator[ServedFolder]:
    """Serve `folder`; the certificate, which nobody trusts unless told to, is written into `scratch`."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command to make a certificate")
    certificate, private_key = scratch / "certificate.pem", scratch / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(private_key), "-out", str(certificate)]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    served = ServedFolder("", folder, certificate)
    handler = type("FolderHandler", (Handler,), {"served": served})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private_key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    served.address = f"https://127.0.0.1:{server.server_address[1]}"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
