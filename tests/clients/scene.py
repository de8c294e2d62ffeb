"""One machine of a test: its doubles, its storage, the programs that run on it, and a look at all they say."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import places
from doubles import Doubles

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from azurite import Azurite

# A bound for what hangs; on a loaded machine a run takes a fraction of it.
RUN_SECONDS = 180

# Where programs with a TLS of their own look for the system's roots.
ROOTS = "/etc/ssl/certs/ca-certificates.crt"

# Every run has a `/run` of its own, as a container has: agents of one machine must not meet here.
OWN_RUN = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o mode=755 tmpfs /run && exec "$@"', "sh")


def own_hosts(hosts: Path, *, roots: Path | None = None) -> list[str]:
    """What to put before a command that has a `/run`, names, and perhaps the system's roots of its own."""
    # The hosts of the namespace around it are a mount already, of a file that has no name any more.
    mounts = """
mount -t tmpfs -o mode=755 tmpfs /run
umount /etc/hosts
mount --bind "$1" /etc/hosts
[ -z "$2" ] || mount --bind "$2" "$3"
shift 3
exec "$@"
"""
    return ["unshare", "--mount", "sh", "-e", "-c", mounts, "sh", str(hosts), str(roots or ""), ROOTS]


@dataclass
class Finished:
    """A program that has ended."""

    status: int
    stdout: str
    stderr: str

    def __str__(self) -> str:
        return f"status {self.status}\n--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"

    def lines_of_json(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stdout.splitlines() if line.startswith("{")]


@dataclass
class Conversation:
    """A program that is asked by lines of JSON, and answers by lines of JSON."""

    process: subprocess.Popen[str]
    log: Path
    said: list[str] = field(default_factory=list)

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        self.said.append(line)
        assert line, f"no answer\n{self}"
        answer: dict[str, Any] = json.loads(line)
        return answer

    @property
    def stderr(self) -> str:
        """What the program and jobcred said so far."""
        return self.log.read_text(errors="replace")

    def __str__(self) -> str:
        return f"--- answers\n{''.join(self.said)}--- stderr\n{self.stderr}"


@dataclass
class Scene:
    """What a test works with. Everything that a program prints is searched for every secret in play."""

    directory: Path
    doubles: Doubles
    azurite: Azurite | None = None
    # Tokens that no double knows of: the sandbox makes its own.
    more_secrets: list[str] = field(default_factory=list)
    # How long a program may run.
    longest_run: float = RUN_SECONDS

    @property
    def ca_bundle(self) -> Path:
        """The authorities of the doubles and of the storage, as the system's roots would be."""
        bundle = self.directory / "bundle.pem"
        files = [self.doubles.ready["ca"], *([self.azurite.ca] if self.azurite else [])]
        bundle.write_text("".join(Path(file).read_text() for file in files))
        bundle.chmod(0o644)
        return bundle

    def environment(self, platform: Mapping[str, str] | None = None) -> dict[str, str]:
        """What a container has, and what its platform adds."""
        ca = str(self.ca_bundle)
        variables = {
            "PATH": f"{places.built_folder()}:{os.environ['PATH']}",
            "HOME": str(self.directory),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(places.PYTHON_PACKAGE),
            "PYTHONDONTWRITEBYTECODE": "1",
            "SSL_CERT_FILE": ca,
            "REQUESTS_CA_BUNDLE": ca,
            "JOBCRED_LOG": "debug",
            "JOBCRED_JOB_LOG": "off",
        }
        return variables | dict(platform or {})

    def storage_clients(self, tokens: int = 1, *, keep: Path | None = None) -> list[list[str]]:
        """The commands of all programs that keep a blob, each until it has used so many different tokens."""
        assert self.azurite is not None
        what = [self.azurite.account_url, str(tokens)]
        return [
            python("blob.py", *what, *(["--keep", str(keep)] if keep else [])),
            python("blob.py", *what, "--aio"),
            [places.built("examples/storage-client"), *what],
        ]

    def run(
        self, command: Sequence[str], environment: Mapping[str, str], *, prefix: Sequence[str] = OWN_RUN
    ) -> Finished:
        """Runs `command` to its end."""
        done = subprocess.run(
            [*prefix, *command],
            env=dict(environment),
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=self.longest_run,
            check=False,
        )
        self.scan(done.stdout + b"\n" + done.stderr)
        return Finished(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    @contextmanager
    def conversation(
        self, command: Sequence[str], environment: Mapping[str, str], *, prefix: Sequence[str] = OWN_RUN
    ) -> Iterator[Conversation]:
        """Runs a program that answers each line of its input by one of its output, for as long as the block lasts."""
        log = self.directory / f"conversation-{time.monotonic_ns()}.log"
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [*prefix, *command],
                env=dict(environment),
                cwd=self.directory,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
            talk = Conversation(process, log)
            try:
                yield talk
            finally:
                rest, _ = process.communicate(timeout=RUN_SECONDS)
        self.scan(("".join(talk.said) + rest).encode() + log.read_bytes())
        assert process.returncode == 0, str(talk)

    def job(self, arguments: Sequence[str], platform: Mapping[str, str], *options: str) -> Finished:
        """`jobcred run -- COMMAND`, with what the platform would set."""
        return self.run([places.built("jobcred"), "run", *options, "--", *arguments], self.environment(platform))

    @contextmanager
    def beside(
        self, command: Sequence[str], environment: Mapping[str, str], *, prefix: Sequence[str]
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Runs `command`, a container's first process, for as long as the block lasts, and ends it by SIGTERM."""
        log = self.directory / f"beside-{time.monotonic_ns()}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*prefix, *command],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            try:
                yield process
            finally:
                # What was started is `unshare`; the command is its only child.
                children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
                for child in children:
                    os.kill(int(child), signal.SIGTERM)
                status = process.wait(RUN_SECONDS)
        text = log.read_bytes()
        self.scan(text)
        assert status == 0, text.decode(errors="replace")

    def asked(self) -> Counter[tuple[str, str, str]]:
        """What programs asked upstream: endpoint, path and parameters. What jobcred asked is left out."""
        return Counter(
            (endpoint, request["path"], _comparable(request["query"]))
            for endpoint, requests in self.doubles.requests().items()
            for request in requests
            if not dict(request["headers"]).get("user-agent", "").startswith("jobcred/")
        )

    def scan(self, output: bytes) -> None:
        """Fails the test when a secret shows in `output`."""
        leaks = self.doubles.leaks(output)
        for index, secret in enumerate(self.more_secrets):
            parts = [secret, secret.rsplit(".", 1)[-1]]
            forms = [form for part in parts for form in (part.encode(), base64.b64encode(part.encode()))]
            if any(form in output for form in forms):
                leaks.append({"name": f"secret {index}", "form": "whole or in part"})
        assert leaks == [], f"secrets show in the output: {leaks}"


def _comparable(query: str) -> str:
    """The parameters in one order, since Java's is a different one each time, and without the request's own number."""
    return "&".join(sorted(part for part in query.split("&") if not part.startswith("client-request-id=")))


def answered(log: str, dialect: str) -> int:
    """How many tokens jobcred gave by this dialect, as its log has it."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", log).splitlines()
    return sum(" answered " in line and f'dialect="{dialect}"' in line for line in lines)


def python(script: str, *arguments: str) -> list[str]:
    """The command for one of the programs in `jobs`."""
    return [sys.executable, str(places.JOBS / script), *arguments]


def at_once(*commands: Sequence[str]) -> list[str]:
    """One command that runs several at the same time and fails when one of them does."""
    script = """
import subprocess, sys
commands = __import__("json").loads(sys.argv[1])
running = [subprocess.Popen(command) for command in commands]
sys.exit(max(abs(process.wait()) for process in running))
"""
    return [sys.executable, "-c", script, json.dumps([list(command) for command in commands])]
