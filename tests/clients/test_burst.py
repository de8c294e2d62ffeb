"""A metadata service with its real limits, and as many processes as a big node has ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from burst import LIFETIME, MACHINE, PROCESSES, burst

if TYPE_CHECKING:
    from collections.abc import Callable

    from results import Results
    from scene import Scene


def test_with_jobcred_one_request_serves_a_burst(scene: Callable[..., Scene], results: Results) -> None:
    counts = burst(scene(MACHINE.config(LIFETIME)), with_jobcred=True)
    print(counts)  # noqa: T201 # seen with -s, and when it fails
    assert counts.failed == 0
    assert counts.requests == 1
    assert counts.tokens == 1
    assert counts.throttled == 0
    results.burst["with"] = "one request, no 429"


def test_without_jobcred_a_burst_is_throttled(scene: Callable[..., Scene], results: Results) -> None:
    """What jobcred is measured against: the same processes, and the service as it is."""
    counts = burst(scene(MACHINE.config(LIFETIME)), with_jobcred=False)
    print(counts)  # noqa: T201 # seen with -s, and when it fails
    assert counts.requests > PROCESSES
    assert counts.throttled > 0
    # Each process had a token of its own, or none.
    assert counts.tokens == PROCESSES - counts.failed
    results.burst["without"] = f"more than {PROCESSES} requests, some answered by 429 and tried again"
