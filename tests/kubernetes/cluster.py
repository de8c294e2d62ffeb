"""The cluster that `run` has started: commands in its node, kubectl, and orders to the doubles of Azure."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
Done = subprocess.CompletedProcess[str]
# A bound for what hangs.
PATIENCE = 120.0


def until(what: str, condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Waits for something that has to happen."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.3)


class Stream:
    """A command in the node that writes line after line."""

    def __init__(self, words: list[str]) -> None:
        # nsenter is its parent, and passes no signal on. Both are in a group of their own.
        self._child = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True)

    def lines(self) -> Iterator[str]:
        """Its next lines, until it ends."""
        output: IO[str] | None = self._child.stdout
        assert output
        while line := output.readline():
            yield line

    def end(self) -> None:
        os.killpg(self._child.pid, signal.SIGTERM)
        self._child.communicate()


class Cluster:
    """One cluster of one node."""

    def __init__(self, state: Path) -> None:
        self.state = state
        ready = json.loads((state / "doubles/ready.json").read_text())
        self.application: dict[str, str] = ready["entra"]["application"]
        self._control: str = ready["control"]

    def attempt(self, *words: str, given: str | None = None) -> Done:
        """A command in the node."""
        return subprocess.run(
            [str(self.state / "in"), *words], input=given, capture_output=True, text=True, check=False
        )

    def do(self, *words: str, given: str | None = None) -> str:
        """A command in the node that must succeed: what it prints."""
        done = self.attempt(*words, given=given)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def stream(self, *words: str) -> Stream:
        """Starts a command in the node."""
        return Stream([str(self.state / "in"), *words])

    def kubectl(self, *words: str, given: str | None = None) -> str:
        """A command of kubectl that must succeed: what it prints."""
        return self.do("kubectl", *words, given=given)

    def read(self, *words: str) -> Any:
        """What `kubectl get` gives."""
        return json.loads(self.kubectl("get", *words, "--output=json"))

    def order(self, path: str, **order: Any) -> None:
        """Changes something in the doubles: see tests/README.md."""
        self.do("curl", "--silent", "--show-error", "--fail", "--data", json.dumps(order), self._control + path)
