"""The doubles of Azure, in a process of their own: see tests/README.md."""

from __future__ import annotations

import http.client
import json
import subprocess
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import places

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self


class Doubles:
    """A set of doubles, made from the options of tests/README.md."""

    def __init__(self, directory: Path, config: dict[str, Any]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        file = directory / "doubles.json"
        file.write_text(json.dumps({"directory": str(directory), **config}))
        self._process = subprocess.Popen(
            [places.built("jobcred-doubles"), "--config", str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise RuntimeError("the doubles did not start; their reason is above")
        self.ready: dict[str, Any] = json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # They serve until their standard input ends.
        self._process.communicate()

    def _call(self, method: str, path: str, body: bytes | None = None) -> Any:
        connection = http.client.HTTPConnection(urlsplit(self.ready["control"]).netloc, timeout=30)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        assert response.status == 200, f"{method} {path}: {response.status} {text}"
        return json.loads(text)

    def order(self, path: str, **order: Any) -> Any:
        """One of the requests that change something: `order("/mint", mint="imds", lifetime=5)`."""
        return self._call("POST", path, json.dumps(order).encode())

    def requests(self) -> dict[str, list[dict[str, Any]]]:
        """What every endpoint was asked, by endpoint."""
        answer = self._call("GET", "/requests")
        return {name: endpoint["requests"] for name, endpoint in answer.items()}

    def tokens(self) -> dict[str, list[Any]]:
        """Everything that was handed out, by mint."""
        tokens: dict[str, list[Any]] = self._call("GET", "/tokens")
        return tokens

    def assertion(self, lifetime: int) -> str:
        """A federated assertion that the authority takes."""
        return str(self._call("GET", f"/assertion?lifetime={lifetime}")["assertion"])

    def leaks(self, text: bytes) -> list[Any]:
        """The secrets of these doubles that show in `text`, by name."""
        leaks: list[Any] = self._call("POST", "/scan", text)
        return leaks
