"""Programs in JavaScript at jobcred's two doors: one is led to the socket by a URL, others use Node's own fetch."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest

from catalogue import node
from platforms import platform as named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from scene import Scene

LIFETIME = 3600


@contextmanager
def redirecting(location: str) -> Iterator[tuple[str, list[str]]]:
    """A web server that redirects every request: its address, and the paths that it was asked for."""
    asked: list[str] = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(302)
            self.send_header("Location", location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing of it belongs into the output of a test."""

    with HTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/picture.png", asked
        finally:
            server.shutdown()


def test_s1_a_redirect_to_the_socket_gets_no_token(scene: Callable[..., Scene]) -> None:
    chosen = named("compute-identity")
    machine = scene(chosen.config(LIFETIME))
    socket = machine.directory / "jobcred" / "agent.sock"
    environment = {**chosen.environment(machine.doubles, machine.directory), "JOBCRED_SOCKET": str(socket)}

    with redirecting(f"http://unix:{socket}:/v1/token?resource=https://storage.azure.com") as (url, asked):
        done = machine.job([*node("by_url.mjs"), "got", url], environment)

    (line,) = done.lines_of_json()
    assert asked == ["/picture.png"]
    assert (line["status"], line["oid"]) == (403, None), str(done)
    assert line["error"]["code"] == "invalid_request", str(done)
    assert "send the header jobcred: 1" in line["error"]["message"], str(done)
    assert machine.doubles.tokens()["azure_ml"] == []


@pytest.mark.parametrize("way", ["fetch", "msal"])
def test_l2_what_asks_by_nodes_fetch_gets_the_jobs_own_identity(way: str, scene: Callable[..., Scene]) -> None:
    chosen = named("compute-identity")
    machine = scene(chosen.config(LIFETIME))
    environment = chosen.environment(machine.doubles, machine.directory)

    done = machine.job([*node("by_url.mjs"), way], environment)

    (line,) = done.lines_of_json()
    principal = chosen.principal(machine.doubles.ready)["object_id"]
    assert line == {"status": 200, "oid": principal, "error": None}, str(done)
