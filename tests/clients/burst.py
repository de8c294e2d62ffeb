"""How a metadata service with its real limits takes a burst of token requests, with jobcred before it and without."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from platforms import platform
from scene import python

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doubles import Doubles
    from scene import Scene

# The platform whose identity only the metadata service knows: a virtual machine, or a cluster's node.
MACHINE = platform("system-identity-imds")
PROCESSES = 64
# How many requests the service answers at once; see the double's options.
AT_ONCE = 5
LIFETIME = 24 * 3600


@dataclass(frozen=True)
class Counts:
    """What came of a burst."""

    processes: int
    # Processes that got no token, after all that their SDK tries by itself.
    failed: int
    # What the service was asked for tokens, how often it said 429 to that, and how many it gave.
    requests: int
    throttled: int
    tokens: int
    # From the moment when all asked to the last one's answer.
    seconds: float
    # The first few errors that processes ended with.
    errors: tuple[str, ...]


def burst(machine: Scene, *, with_jobcred: bool, processes: int = PROCESSES) -> Counts:
    """Has `processes` processes ask for a token at once, through `jobcred run` or without it. Once per scene.

    The scene is made of `MACHINE.config(LIFETIME)`. The service answers at once, which is the best case without
    jobcred: the slower it is, the more requests are there at the same time.
    """
    command = python("one_token_each.py", str(processes))
    environment = MACHINE.environment(machine.doubles, machine.directory)
    if with_jobcred:
        done = machine.job(command, environment, "--exclusive")
    else:
        with _at_the_same_time(machine.doubles):
            done = machine.run(command, machine.environment(environment))
    assert done.status == 0, str(done)
    (told,) = done.lines_of_json()
    asked = [request for request in machine.doubles.requests()["imds"] if _is_for_a_token(request)]
    outcomes = [request["outcome"] for request in asked]
    return Counts(
        processes=processes,
        failed=told["failed"],
        requests=len(asked),
        throttled=outcomes.count({"answered": 429}),
        tokens=len(machine.doubles.tokens()["imds"]),
        seconds=told["seconds"],
        errors=tuple(told["errors"]),
    )


def _is_for_a_token(request: dict[str, Any]) -> bool:
    """Whether it is one; a probe that only looks whether the service is there leaves the header out."""
    return any(name == "metadata" for name, _ in request["headers"])


@contextmanager
def _at_the_same_time(doubles: Doubles) -> Iterator[None]:
    """Holds the first answers until more have asked than are answered at once: on a slow machine they come apart."""
    gate = "burst"
    doubles.order("/script", endpoint="imds", behaviors=[{"kind": "hold", "gate": gate}] * AT_ONCE)
    over = threading.Event()

    def release() -> None:
        while not over.wait(0.02) and len(doubles.record("imds")["requests"]) <= AT_ONCE:
            pass
        doubles.order("/script", endpoint="imds", release=gate)

    thread = threading.Thread(target=release)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
