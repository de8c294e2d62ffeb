"""The agents and doubles that are measured, and plain requests to them."""

from __future__ import annotations

import http.client
import json
import os
import select
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from timing import MeasureError

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
# What is shipped, where `make bench` says so, and what it is measured with.
SHIPPED = os.environ.get("JOBCRED_BIN_DIR")
RELEASE = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "release"
FOLDERS = [*([Path(SHIPPED)] if SHIPPED else []), RELEASE]
PATIENCE = 20.0


def binary(name: str) -> str:
    """A release binary, which `make bench` has built."""
    path = next((path for folder in FOLDERS if (path := folder / name).is_file()), FOLDERS[0] / name)
    if not path.is_file():
        raise MeasureError(f"{path} is not built")
    return str(path)


def environment(directory: Path, **more: str) -> dict[str, str]:
    """What every measured process gets: nothing of the caller's, so that it is the same for both sides."""
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(directory),
        "JOBCRED_SOCKET": str(directory / "own" / "agent.sock"),
        "PYTHONPATH": str(ROOT / "python-shim" / "src"),
        **more,
    }


@contextmanager
def agent(variables: dict[str, str], *arguments: str) -> Iterator[int]:
    """An agent that listens; its process id."""
    process = subprocess.Popen(
        [binary("jobcred"), "agent", *arguments],
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        said = b""
        while b"listening at" not in said:
            ready, _, _ = select.select([process.stderr], [], [], PATIENCE)
            chunk = os.read(process.stderr.fileno(), 4096) if ready else b""
            if not chunk:
                raise MeasureError(f"the agent does not listen: {said.decode(errors='replace')}")
            said += chunk
        yield process.pid
    finally:
        process.kill()
        process.communicate()


class Doubles:
    """The double of the Azure ML endpoint, or what `config` says, in a process of its own."""

    def __init__(self, directory: Path, config: dict[str, Any] | None = None) -> None:
        file = directory / "doubles.json"
        file.write_text(json.dumps(config or {"azure_ml": {}}), encoding="ascii")
        self._process = subprocess.Popen(
            [binary("jobcred-doubles"), "--directory", str(directory), "--config", str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise MeasureError("the doubles did not start")
        self._ready: dict[str, Any] = json.loads(line)
        self.environment: dict[str, str] = self._ready.get("azure_ml", {}).get("environment", {})

    def stop(self) -> None:
        # It serves until its standard input ends.
        self._process.communicate()

    def take_count(self) -> int:
        """How many token requests there were since the last call."""
        return len(self.take_requests("msi"))

    def take_requests(self, endpoint: str) -> list[dict[str, Any]]:
        """What an endpoint was asked since the last call."""
        requests: list[dict[str, Any]] = self._call("GET", f"/requests?endpoint={endpoint}")[endpoint]["requests"]
        self._call("POST", "/clear")
        return requests

    def _call(self, method: str, path: str) -> Any:
        connection = http.client.HTTPConnection(urlsplit(self._ready["control"]).netloc, timeout=PATIENCE)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise MeasureError(f"{method} {path}: {response.status}")
        return json.loads(body)


class Connection:
    """One kept connection to an agent."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(path)

    def get(self, target: str) -> bytes:
        """The body of a 200."""
        self._socket.sendall(f"GET {target} HTTP/1.1\r\nHost: jobcred\r\njobcred: 1\r\n\r\n".encode())
        response = http.client.HTTPResponse(self._socket)
        response.begin()
        body = response.read()
        response.close()
        if response.status != 200:
            raise MeasureError(f"{target}: {response.status} {body[:200]!r}")
        return body

    def close(self) -> None:
        self._socket.close()
