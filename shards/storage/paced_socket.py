"""TLS sockets that time out on a very slow server, which a timeout between two bytes does not notice."""

from __future__ import annotations

import ssl
import time
from typing import Any

SLOWEST_BYTES_PER_SECOND = 1_000
WINDOW_SECONDS = 60.0  # of waiting for the server; time between reads is not counted


class PacedSocket(ssl.SSLSocket):
    """Raises TimeoutError once a minute of waiting has brought fewer than SLOWEST_BYTES_PER_SECOND."""

    _waited = 0.0
    _received = 0

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        """Receive into the buffer as any socket does, headers and content alike."""
        started = time.monotonic()
        count = super().recv_into(buffer, nbytes, flags)
        self._waited += time.monotonic() - started
        self._received += count
        if self._waited > WINDOW_SECONDS:
            if count and self._received < SLOWEST_BYTES_PER_SECOND * self._waited:
                raise TimeoutError(
                    f"{self._received} bytes in {self._waited:.0f} s, fewer than {SLOWEST_BYTES_PER_SECOND} a second"
                )
            self._waited, self._received = 0.0, 0
        return count


def paced_context() -> ssl.SSLContext:
    """The default context, certificates checked, whose sockets are paced."""
    context = ssl.create_default_context()
    context.sslsocket_class = PacedSocket
    return context
