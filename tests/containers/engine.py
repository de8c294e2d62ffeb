"""A docker engine of the tests' own, on a socket and in a directory of its own, and what it runs."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

Done = subprocess.CompletedProcess[str]

# A bound for what hangs. What is tested waits for events, and none of them takes a fraction of this.
PATIENCE = 120
# What the documentation says that the image needs no more than.
CONFINED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")


def until(what: str, condition: Callable[[], bool]) -> None:
    """Waits for something that has to happen."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.05)


class Engine:
    """The daemon, for as long as it is not closed."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._host = f"unix://{directory}/docker.sock"
        self._log = directory / "log"
        options = {
            "--host": self._host,
            "--data-root": directory / "data",
            "--exec-root": directory / "exec",
            "--pidfile": directory / "pid",
            # There is but the loopback device, and nothing is to be changed in anybody's tables.
            "--bridge": "none",
        }
        words = [str(word) for option in options.items() for word in option]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["dockerd", *words, "--iptables=false", "--ip6tables=false"], stdout=log, stderr=subprocess.STDOUT
            )
        until("the engine answers", self._answers)

    def _answers(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        return self.call("version").returncode == 0

    def call(self, *words: str | Path) -> Done:
        """A command of the docker client."""
        return subprocess.run(
            ["docker", "--host", self._host, *(str(word) for word in words)],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )

    def do(self, *words: str | Path) -> str:
        """A command that must succeed: what it prints."""
        done = self.call(*words)
        assert done.returncode == 0, f"docker {words}: {done.stderr}"
        return done.stdout.strip()

    def inspect(self, name: str) -> Any:
        """What the engine says of a container or an image."""
        (found,) = json.loads(self.do("inspect", name))
        return found

    def run(self, image: str, *command: str, options: tuple[str, ...] = CONFINED, network: str = "none") -> Done:
        """Runs a container to its end, and removes it."""
        return self.call("run", "--rm", "--network", network, *options, image, *command)

    def start(self, image: str, *command: str, options: tuple[str, ...] = CONFINED, network: str = "none") -> Container:
        """Starts a container, which stays until `clear`."""
        return Container(self, self.do("run", "--detach", "--network", network, *options, image, *command))

    def clear(self) -> None:
        """Removes all containers, running or not, and all volumes."""
        for kind, listing in (("container", ["--all"]), ("volume", [])):
            found = self.do(kind, "ls", "--quiet", *listing).split()
            if found:
                self.do(kind, "rm", "--force", *found)

    def close(self) -> None:
        """Ends the daemon, and with it all that it started."""
        self._process.terminate()
        self._process.wait(PATIENCE)


@dataclass(frozen=True)
class Container:
    """One that was started."""

    engine: Engine
    name: str

    def run(self, *command: str, options: tuple[str, ...] = ()) -> Done:
        """Runs another command in it."""
        return self.engine.call("exec", *options, self.name, *command)

    def signal(self, name: str) -> None:
        """Sends a signal to its first process."""
        self.engine.do("kill", "--signal", name, self.name)

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        return int(self.engine.do("wait", self.name))

    @property
    def state(self) -> dict[str, Any]:
        """As the engine has it."""
        state: dict[str, Any] = self.engine.inspect(self.name)["State"]
        return state

    def output(self) -> str:
        """All that it has said, on both streams."""
        done = self.engine.call("logs", self.name)
        return done.stdout + done.stderr

    def until_said(self, text: str) -> None:
        """Waits until it has said that; it must not have ended without."""

        def said() -> bool:
            ended = not self.state["Running"]
            output = self.output()
            assert text in output or not ended, f"ended without {text!r}: {output}"
            return text in output

        until(text, said)

    def until_ready(self) -> None:
        """Waits until the agent in it answers, and has what it was told to have."""
        done = self.run("/jobcred", "wait", "--timeout", str(PATIENCE))
        assert done.returncode == 0, done.stderr + self.output()
