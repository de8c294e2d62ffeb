"""Forked processes that inherit a credential, its session and its connections never get each other's tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from platforms import platform
from scene import Scene, python

if TYPE_CHECKING:
    from collections.abc import Callable

CLUSTER = platform("compute-identity")
# A token with less than five minutes left is asked for anew each time by the blocking SDK, and jobcred renews this one
# after three minutes at the earliest.
LIFETIME = 290
SIBLINGS, TIMES = 8, 50


@pytest.mark.parametrize("way", ["sync", "session", "plain", "aio", "aio-unused"])
def test_a_forked_sibling_never_gets_the_others_audience(way: str, scene: Callable[..., Scene]) -> None:
    machine = scene(CLUSTER.config(LIFETIME))
    environment = CLUSTER.environment(machine.doubles, machine.directory)
    counts = ("--siblings", str(SIBLINGS), "--times", str(TIMES))

    done = machine.job(python("siblings.py", way, *counts), environment)

    assert done.status == 0, str(done)
    (found,) = done.lines_of_json()
    assert found["wrong"] == 0, str(done)
    assert found["failed"] == 0, str(done)
    assert found["right"] == SIBLINGS * TIMES
    # One fetch for each audience, whoever asked.
    assert len(machine.doubles.requests()["msi"]) == 2


def test_siblings_on_a_connection_that_is_kept_do(scene: Callable[..., Scene]) -> None:
    """What the test above leans on: the same program notices where an endpoint keeps inherited connections open."""
    machine = scene({"imds": None, "app_service": {"lifetime": LIFETIME, "identities": {"system": {}}}})
    # All of them wait for the first answers at once.
    machine.doubles.order("/script", endpoint="app_service", default={"kind": "delay", "ms": 50})
    environment = machine.environment(machine.doubles.ready["app_service"]["environment"])

    counts = ("--siblings", str(SIBLINGS), "--times", "5", "--patience", "1")
    done = machine.run(python("siblings.py", "plain", *counts), environment)

    assert done.status == 0, str(done)
    (found,) = done.lines_of_json()
    assert found["wrong"] + found["failed"] > 0, str(done)
