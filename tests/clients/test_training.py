"""A training job on unmodified azure-identity: many processes, tokens that end every minute, an upstream that flaps."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from platforms import platform
from scene import Finished, Scene, python
from weather import LIFETIME_SECONDS, Weather, by_audience, is_success

if TYPE_CHECKING:
    from collections.abc import Callable

CLUSTER = platform("compute-identity")
# How long all processes run together. By hand it may be shorter; not every kind of trouble has its turn then.
SECONDS = float(os.environ.get("JOBCRED_TRAINING_SECONDS", "180"))
# For starting and ending 72 interpreters on a busy machine.
EXTRA_SECONDS = 420
RANKS, WORKERS = 8, 8
AUDIENCES = {"https://storage.azure.com", "https://vault.azure.net", "https://management.azure.com"}
# After how long in a job the last of them is first needed; see `jobs/asking.py`.
LAST_NEEDED_SECONDS = 28
# The shortest time between two renewals of a token, and how many tries one renewal may take.
RENEWAL_SECONDS = LIFETIME_SECONDS * 3 / 4 * 0.9
MOST_TRIES = 5


def test_a_training_job_never_lacks_a_token_while_upstream_flaps(scene: Callable[..., Scene]) -> None:
    machine = scene(CLUSTER.config(LIFETIME_SECONDS))
    machine.longest_run = SECONDS + EXTRA_SECONDS
    environment = CLUSTER.environment(machine.doubles, machine.directory)
    principal = CLUSTER.principal(machine.doubles.ready)["object_id"]
    counts = ("--ranks", str(RANKS), "--workers", str(WORKERS), "--seconds", str(SECONDS))

    with Weather(machine.doubles, "msi", len(AUDIENCES)) as weather:
        done = machine.job(python("training.py", *counts, "--principal", principal), environment)

    lines = done.lines_of_json()
    tallies = [line for line in lines if "kind" in line]
    record = machine.doubles.record("msi")
    about = circumstances(tallies, record, weather)
    print(about)  # noqa: T201 # seen with -s, and when it fails
    # A job that failed says so in a few lines; the log of the agent is long.
    assert done.status == 0, f"{about}\n{str(done)[-20_000:]}"
    check_processes(tallies, about)
    check_agent(lines[-1]["agent"], done, about)
    check_upstream(record, weather, about)
    asked = {name for name, requests in machine.doubles.requests().items() if requests}
    assert asked == {CLUSTER.endpoint}


def circumstances(tallies: list[dict[str, Any]], record: dict[str, Any], weather: Weather) -> str:
    """What happened, and what a reader of a failure has to know of the machine."""
    lag = max((tally["longest_lag"] for tally in tallies), default=0)
    wait = max((tally["longest_wait"] for tally in tallies), default=0)
    left = min((tally["least_left"] for tally in tallies), default=0)
    asked = sum(sum(tally["tokens"].values()) for tally in tallies)
    requests = record["requests"]
    given = sum(is_success(request) for request in requests)
    return (
        f"{len(tallies)} processes got a token {asked} times, upstream gave {given} in {len(requests)} requests; the "
        f"least life left in one {left:.1f} s, the longest wait for one {wait:.2f} s; {weather}. A process that paused "
        f"slept up to {lag:.1f} s too long: where that, or the time between two looks, comes near to 5 s, the machine "
        f"is so slow that tokens of {LIFETIME_SECONDS} s end on their way, and that is no fault of the agent"
    )


def check_processes(tallies: list[dict[str, Any]], about: str) -> None:
    """Every one of them got all it asked for."""
    failed = {tally["name"]: tally["failures"] for tally in tallies if tally["failed"]}
    assert failed == {}, about
    assert len({tally["pid"] for tally in tallies}) == RANKS * (1 + WORKERS), about
    assert {tally["kind"] for tally in tallies} == {"managed", "default", "managed aio", "default aio"}
    for tally in tallies:
        # Nor was there a try that the SDK had to make again.
        assert set(tally["statuses"]) == {"200"}, (tally, about)
        assert set(tally["tokens"]) == AUDIENCES, (tally, about)


def check_agent(agents: list[dict[str, Any]], done: Finished, about: str) -> None:
    """It was one and the same from start to end, and nobody was turned away."""
    before, after = agents
    assert before == after, about
    assert after["restarts"] == 0
    assert after["denials"] == 0
    assert "refused" not in done.stderr, about


def check_upstream(record: dict[str, Any], weather: Weather, about: str) -> None:
    """It was asked as often as tokens that live a minute have to be renewed, and no more."""
    assert weather.doubled == set(), about
    assert len(weather.stretches) >= SECONDS // LIFETIME_SECONDS, about
    found = by_audience(record["requests"])
    assert set(found) == AUDIENCES
    for audience, requests in found.items():
        given = [request["received_ms"] / 1000 for request in requests if is_success(request)]
        # Without a moment that has no token it cannot have been fewer than one for each life ...
        assert len(given) >= (SECONDS - LAST_NEEDED_SECONDS) / LIFETIME_SECONDS, (audience, about)
        # ... and it must not have been more than one for each renewal. A quarter on top is for tokens that came late,
        # which live shorter. A second agent, or processes that each fetch, would double it and more.
        used = given[-1] - given[0]
        assert len(given) <= 1 + 1.25 * used / RENEWAL_SECONDS, (audience, about)
        troubled = sum(1 for stretch in weather.stretches if audience in stretch.met)
        assert len(requests) - len(given) <= MOST_TRIES * troubled + 1, (audience, about)
