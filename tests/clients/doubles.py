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

# They read a megabyte at a time; no secret is as long as the seam.
_SCANNED_BYTES = 512 * 1024
_SEAM_BYTES = 64 * 1024


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

    def record(self, endpoint: str) -> dict[str, Any]:
        """What one endpoint was asked, how many connections it took, and the most requests at once."""
        answer: dict[str, Any] = self._call("GET", f"/requests?endpoint={endpoint}")[endpoint]
        return answer

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
        leaks: list[Any] = []
        for start in range(0, max(len(text), 1), _SCANNED_BYTES):
            # A piece reaches into the next, so that a secret on the seam is found whole.
            leaks += self._call("POST", "/scan", text[start : start + _SCANNED_BYTES + _SEAM_BYTES])
        return leaks
