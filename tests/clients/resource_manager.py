"""Azure Resource Manager at its own name: the Azure CLI asks it for subscriptions whenever somebody logs in."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from catalogue import Client
    from scene import Scene

# Where `tests/isolated --host` leads its name.
ADDRESS = ("127.0.0.1", 443)


@contextmanager
def resource_manager(ready: dict[str, Any]) -> Iterator[list[str]]:
    """One that has no subscription for anybody; gives the object ids of those who asked.

    `ready` is what the doubles said whose certificate it has.
    """
    callers: list[str] = []

    class Subscriptions(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            payload = self.headers["Authorization"].split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
            callers.append(claims["oid"])
            is_known = self.path.startswith("/subscriptions?")
            body = b'{"value": []}' if is_known else b"{}"
            self.send_response(200 if is_known else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class has it)
            """Nothing."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ready["certificate"], ready["key"])
    with ThreadingHTTPServer(ADDRESS, Subscriptions) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield callers
        finally:
            server.shutdown()


def surroundings(client: Client, machine: Scene) -> AbstractContextManager[list[str]]:
    """What a client needs around it; gives who listed subscriptions."""
    return resource_manager(machine.doubles.ready) if client.lists_subscriptions else nullcontext([])
