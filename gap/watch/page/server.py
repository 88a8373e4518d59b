"""The page's server: it answers GET and HEAD with the page, its parts and four files of its own, and nothing else."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from gap.watch.board import Board
from gap.watch.page.cards import Cards

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
    from starlette.routing import Route
    from starlette.types import ASGIApp
except ImportError as error:
    raise ValueError(
        f"the page needs starlette and uvicorn ({error}): install them with the extra [watch], or use --line"
    ) from error

FOLDER = Path(__file__).parent
ASSETS = {"/watch.css": "text/css", "/watch.js": "text/javascript", "/icon.svg": "image/svg+xml"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
MOST_CONNECTIONS, LONGEST_QUERY = 64, 2000
Next = Callable[[Request], Awaitable[Response]]


def is_known_host(header: str, host: str) -> bool:
    """Whether a Host header is one that a browser sends for this server: an address, localhost or the name given.

    A page of another site whose name is made to point here (DNS rebinding) sends that name. The port may be any, as
    through a tunnel.
    """
    name = header.strip().lower()
    if name.startswith("["):
        name = name[1:].partition("]")[0]
    elif name.count(":") <= 1:
        name = name.partition(":")[0]
    name = name.rstrip(".")
    if name in ("localhost", host.lower(), socket.gethostname().lower()):
        return bool(name)
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_by_another_site(headers: Mapping[str, str]) -> bool:
    """Whether a page of another site asks, other than by a link that was followed here."""
    site, mode = headers.get("sec-fetch-site", "none"), headers.get("sec-fetch-mode", "navigate")
    return site not in ("none", "same-origin") and mode != "navigate"


class Guard(BaseHTTPMiddleware):
    """Refuses what no page of ours asks for, and sends the headers that keep the page to itself."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        super().__init__(app)
        self.host = host

    async def dispatch(self, request: Request, call_next: Next) -> Response:
        """The response with the headers; 403 for another site's host or page, 405 for a method that writes."""
        answer: Response
        if not is_known_host(request.headers.get("host", ""), self.host):
            answer = PlainTextResponse("this host name is not the server's\n", 403)
        elif is_by_another_site(request.headers):
            answer = PlainTextResponse("asked by another site\n", 403)
        elif request.method not in ("GET", "HEAD"):
            answer = PlainTextResponse("read-only\n", 405, headers={"Allow": "GET, HEAD"})
        elif len(request.url.query) > LONGEST_QUERY:
            answer = PlainTextResponse("too long\n", 414)
        else:
            answer = await call_next(request)
        answer.headers.update(HEADERS)
        return answer


def build_app(board: Board, host: str = "127.0.0.1") -> Starlette:
    """The application: the page, what changed in it, the body of one run, and the files of the page."""
    cards, title = Cards(), board.root.resolve().name or str(board.root)
    files = {path: (FOLDER / path[1:]).read_bytes() for path in ASSETS}

    def page(request: Request) -> Response:
        return HTMLResponse(cards.page(board.look(), title, every=board.every))

    def changes(request: Request) -> Response:
        return JSONResponse(cards.changes(board.look(), dict(request.query_params)))

    def body(request: Request) -> Response:
        run = board.run(request.path_params["id"])
        return PlainTextResponse("no such run\n", 404) if run is None else HTMLResponse(cards.body(run))

    def asset(request: Request) -> Response:
        return Response(files[request.url.path], media_type=ASSETS[request.url.path])

    routes = [Route("/", page), Route("/changes", changes), Route("/runs/{id}", body)]
    routes += [Route(path, asset) for path in ASSETS]
    return Starlette(routes=routes, middleware=[Middleware(Guard, host=host)])


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; ValueError for an address that is not this machine's and for a port in use."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ValueError(f"--port {port} is in use on {host}: give another, or 0 for any free one") from error
        if error.errno == errno.EACCES:
            raise ValueError(f"--port {port} may not be used here: give one above 1023") from error
        raise ValueError(f"--host {host}: {os.strerror(error.errno) if error.errno and error.errno > 0 else error}; "
                         "name an address of this machine, such as 127.0.0.1") from error  # fmt: skip


def serve(board: Board, host: str, port: int) -> int:
    """Print the address and serve until the process is ended; the exit status."""
    listening = listen(host, port)
    name, number = listening.getsockname()[:2]
    shown = f"[{name}]" if ":" in name else name
    app = build_app(board, host)
    print(f"http://{shown}:{number}", flush=True)
    if not ipaddress.ip_address(name).is_loopback:
        print("warning: whoever reaches this address can read names, figures and errors of the runs", file=sys.stderr)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, limit_concurrency=MOST_CONNECTIONS, timeout_keep_alive=15,
        server_header=False, timeout_graceful_shutdown=1, lifespan="off", ws="none",
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[listening])
    return 0
