"""Many processes that want a token at once."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from programs import AZURE_IDENTITY, JOBCRED
from servers import ROOT, Doubles, agent, binary, environment
from table import Row, times_faster
from timing import MeasureError, not_pinned, told

if TYPE_CHECKING:
    from pathlib import Path

PROCESSES = 64
BURSTS = 3
# The program that the tests have for this, too: it forks once the SDK is imported, so that all ask at the same moment.
ONE_TOKEN_EACH = ROOT / "tests" / "clients" / "jobs" / "one_token_each.py"
IMDS = {"imds": {"bind": "169.254.169.254:80", "identities": {"system": {}}}}
# The service counts requests by the second; a burst begins with none counted.
WINDOW = 1.2


@not_pinned()
def python_burst(directory: Path) -> list[Row]:
    doubles = Doubles(directory)
    try:
        variables = environment(directory, **doubles.environment)
        ours, azure, our_requests, azure_requests = [], [], [], []
        for _ in range(BURSTS):
            # A new agent each time: it holds no token, so the one request upstream is part of what is measured.
            with agent(variables):
                doubles.take_count()
                ours.append(burst(JOBCRED, variables))
                our_requests.append(doubles.take_count())
            azure.append(burst(AZURE_IDENTITY, variables))
            azure_requests.append(doubles.take_count())
        bare = burst("pass", variables)
    finally:
        doubles.stop()
    our_count, azure_count = max(our_requests), max(azure_requests)
    our_time, azure_time = statistics.median(ours), statistics.median(azure)
    what = f"{PROCESSES} Python processes, one token each"
    return [
        times_faster(f"{what}: wall", our_time, azure_time, 6, unit="s", name="azure-identity"),
        Row("  of it, starting bare interpreters", f"{bare:.2f} s"),
        Row(
            f"{what}: upstream",
            f"{our_count} request{'s' if our_count != 1 else ''}",
            f"{azure_count} requests (azure-identity)",
            limit="= 1",
            is_met=set(our_requests) == {1},
        ),
    ]


def burst(code: str, variables: dict[str, str]) -> float:
    """Seconds until all have ended that were started at once."""
    command = [sys.executable, "-c", code]
    actions = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
    start = time.perf_counter()
    pids = [os.posix_spawn(command[0], command, variables, file_actions=actions) for _ in range(PROCESSES)]
    ends = [os.waitpid(pid, 0)[1] for pid in pids]
    seconds = time.perf_counter() - start
    failed = sum(1 for end in ends if end != 0)
    if failed:
        raise MeasureError(f"{failed} of {PROCESSES} processes got no token")
    return seconds


@not_pinned()
def imds_burst(directory: Path) -> list[Row]:
    """At the metadata service with its real limits, as on a virtual machine: with `jobcred run` and without it."""
    doubles = Doubles(directory, IMDS)
    try:
        variables = environment(directory)
        run = [binary("jobcred"), "run", "--quiet", "--exclusive", "--"]
        turns = [
            (one_token_each(run, variables, doubles), one_token_each([], variables, doubles)) for _ in range(BURSTS)
        ]
    finally:
        doubles.stop()
    ours, azure = zip(*turns)
    what = f"{PROCESSES} processes at the metadata service"
    name = "azure-identity"

    def row(counted: str, our_counts: list[int], azure_counts: list[int], limit: int) -> Row:
        return Row(
            f"{what}: {counted}",
            spread(our_counts),
            f"{spread(azure_counts)} ({name})",
            limit=f"= {limit}",
            is_met=set(our_counts) == {limit},
        )

    our_time, azure_time = (statistics.median(turn.seconds for turn in side) for side in (ours, azure))
    return [
        row("requests", [turn.requests for turn in ours], [turn.requests for turn in azure], 1),
        row("of them 429", [turn.throttled for turn in ours], [turn.throttled for turn in azure], 0),
        row("processes without a token", [turn.failed for turn in ours], [turn.failed for turn in azure], 0),
        Row(
            f"{what}: until the last has a token",
            f"{our_time:.2f} s",
            f"{azure_time:.2f} s ({name})",
            f"{azure_time / our_time:.1f}x faster",
        ),
    ]


@dataclass(frozen=True)
class Turn:
    """One burst at the metadata service."""

    requests: int
    throttled: int
    failed: int
    seconds: float


def one_token_each(prefix: list[str], variables: dict[str, str], doubles: Doubles) -> Turn:
    doubles.take_requests("imds")
    command = [*prefix, sys.executable, str(ONE_TOKEN_EACH), str(PROCESSES)]
    report = json.loads(told(command, variables, timeout=300))
    # A probe, which only looks whether the service is there, leaves the header out.
    asked = [
        request
        for request in doubles.take_requests("imds")
        if any(header == "metadata" for header, _ in request["headers"])
    ]
    throttled = sum(1 for request in asked if request["outcome"] == {"answered": 429})
    time.sleep(WINDOW)
    return Turn(len(asked), throttled, report["failed"], report["seconds"])


def spread(counts: list[int]) -> str:
    """One number where all are the same, else the least and the most."""
    least, most = min(counts), max(counts)
    return str(least) if least == most else f"{least}-{most}"
