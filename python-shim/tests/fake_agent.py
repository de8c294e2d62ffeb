"""An agent double on a real Unix socket, written from docs/protocol.md and from nothing of the package under test."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECRET = "eyJ0eXAi.c2VjcmV0"


class Request:
    """One request as it arrived."""

    def __init__(self, line: str, headers: dict[str, str]) -> None:
        self.method, self.target, self.version = line.split(" ")
        parts = urlsplit(self.target)
        self.path = parts.path
        self.query = {name: values[0] for name, values in parse_qs(parts.query, strict_parsing=True).items()}
        self.headers = headers


def reply(status: int, body: object, *, headers: str = "") -> bytes:
    data = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} Reason\r\nContent-Type: application/json\r\ncontent-length: {len(data)}\r\n{headers}\r\n"
    return head.encode() + data


def error(status: int, code: str, **more: object) -> bytes:
    return reply(status, {"error": {"code": code, "message": f"told {code}", "request_id": "req-1", **more}})


class FakeAgent:
    """Answers every request with what ``answer`` gives: the bytes to send, or None to close without an answer.

    Tokens are numbered, so that a test sees which answer a caller has.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = str(path)
        self.requests: list[Request] = []
        self.connections = 0
        self.life = 3600
        self.refresh_in = 1800
        self.answer: Callable[[Request], bytes | None] = self.usual
        self.gate = threading.Event()
        self.gate.set()
        self.arrived = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._listener: socket.socket | None = None

    def usual(self, request: Request) -> bytes:
        now = int(time.time())
        times = {"expires_on": now + self.life, "refresh_on": now + self.refresh_in}
        with self._lock:
            number = self.requests.index(request) + 1
        if request.path == "/v1/registry":
            server = request.query["server"].lower()
            return reply(200, {"server": server, "username": "u", "secret": f"{SECRET}.{number}", **times})
        body: dict[str, Any] = {"access_token": f"{SECRET}.{number}", "token_type": "Bearer", **times}
        return reply(200, {**body, "resource": request.query["scope"].removesuffix("/.default"), "unknown": 1})

    def fail(self, status: int, code: str, **more: object) -> None:
        self.answer = lambda _: error(status, code, **more)

    def start(self) -> FakeAgent:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.path)
        listener.listen(128)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Ends like a killed agent: the socket file stays."""
        listener, self._listener = self._listener, None
        if listener is not None:
            # shutdown() and not only close(): that wakes the accepting thread.
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.close_kept()

    def restart(self) -> None:
        self.stop()
        os.unlink(self.path)
        self.start()

    def close_kept(self) -> None:
        """Closes all connections, as an agent does with those that stay idle."""
        with self._lock:
            opened, self._open = self._open, []
        for connection in opened:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # the client was first

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            try:
                while (line := stream.readline()) != b"":
                    headers = {}
                    while (header := stream.readline().strip()) != b"":
                        name, _, value = header.decode().partition(":")
                        headers[name.lower()] = value.strip()
                    request = Request(line.decode().strip(), headers)
                    with self._lock:
                        self.requests.append(request)
                    self.arrived.release()
                    self.gate.wait(60)
                    is_let_in = "jobcred" in headers
                    data = self.answer(request) if is_let_in else error(403, "invalid_request")
                    if data is None:
                        return
                    connection.sendall(data)
            except OSError:
                return
            finally:
                with self._lock:
                    if connection in self._open:
                        self._open.remove(connection)
