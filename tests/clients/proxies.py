"""A site and a proxy before it, both real and on loopback: a page says by which of the two a program got it."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

DIRECT, PROXIED = "direct", "proxied"


class _Site(BaseHTTPRequestHandler):
    """Answers every path with a table of one row."""

    protocol_version = "HTTP/1.1"
    way = DIRECT

    def do_GET(self) -> None:
        body = f"way\n{self.way}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/csv")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 (the base class looks for it)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class has it)
        """Nothing."""


class _Proxy(_Site):
    """Answers for every site by itself, so that a page cannot hide the way that it came by."""

    way = PROXIED

    def do_CONNECT(self) -> None:
        # Undici sends plain HTTP through a tunnel. The request inside is answered here.
        self.send_response(200)
        self.end_headers()
        self.close_connection = False


class Proxies:
    """The site, on every address of the namespace, and the proxy."""

    def __init__(self) -> None:
        # A name that leads to loopback comes by IPv4 here.
        self._servers = [ThreadingHTTPServer(("0.0.0.0", 0), _Site), ThreadingHTTPServer(("127.0.0.1", 0), _Proxy)]
        for server in self._servers:
            threading.Thread(target=server.serve_forever, daemon=True).start()
        self.port, proxy = (server.server_port for server in self._servers)
        self.variables = dict.fromkeys(
            ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"), f"http://127.0.0.1:{proxy}"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()
