"""What the user of each client sees when there is no token: why, how often it asks, and whether it recovers."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

import places
from catalogue import CLIENTS, ON_BEHALF_OF, Client
from platforms import platform
from resource_manager import surroundings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from results import Results
    from scene import Conversation, Scene

# Those that work, each by the first dialect that it knows.
WORKING = [client for client in CLIENTS if next(iter(client.dialects.values())) is None]
NAMING = [client for client in WORKING if client.names]
# What a chain of credentials adds is nothing of its own here, and each takes as long as an outage.
SINGLE = [client for client in WORKING if not client.kind.startswith("default")]
TRIED = [
    *((client.label, "refused for good") for client in WORKING),
    *((client.label, "denied by a rule") for client in NAMING),
    *((client.label, "throttled") for client in WORKING),
    *((client.label, "down, then back") for client in SINGLE),
]
STORAGE = ("https://storage.azure.com", "https://storage.azure.com/")
# Bounds for what hangs.
LONGEST = 120


class Job:
    """A client in a job of its own."""

    def __init__(self, client: Client, make: Callable[..., Scene], **responder: Any) -> None:
        self.client = client
        (self.dialect, *_) = client.dialects
        chosen = platform("user-identity" if self.dialect == ON_BEHALF_OF else "compute-identity")
        config = chosen.config(3600)
        config["azure_ml"].update(responder)
        self.machine = make(config)
        self.own = chosen.principal(self.machine.doubles.ready)["object_id"]
        self.endpoint = str(chosen.endpoint)
        self.variables = chosen.environment(self.machine.doubles, self.machine.directory)
        self.variables["JOBCRED_DIALECTS"] = self.dialect

    @contextmanager
    def talk(self, **variables: str) -> Iterator[Conversation]:
        command = [places.built("jobcred"), "run", "--", *self.client.command()]
        environment = self.machine.environment(self.variables | variables)
        with (
            surroundings(self.client, self.machine) as self.listed,
            self.machine.conversation(command, environment) as talk,
        ):
            yield talk

    def script(self, **order: Any) -> None:
        self.machine.doubles.order("/script", endpoint=self.endpoint, **order)

    def upstream(self) -> int:
        """How often the platform was asked, but for the tokens that logging in takes."""
        return len(self.machine.doubles.requests()[self.endpoint]) - len(self.listed)


def refusals(talk: Conversation) -> int:
    """How often jobcred said no at the endpoint."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", talk.stderr).splitlines()
    return sum(" refused " in line and "dialect=" in line for line in lines)


@pytest.mark.parametrize("client", WORKING, ids=lambda client: client.label)
def test_a_refusal_for_good_is_told_at_once(client: Client, scene: Callable[..., Scene], results: Results) -> None:
    job = Job(client, scene, refused_resources=list(STORAGE))
    if job.dialect == ON_BEHALF_OF:
        job.machine.doubles.order("/state", user_grant_ended=True)
    with job.talk() as talk:
        answer = talk.ask(kind=client.kind)
        assert answer["oid"] is None
        assert "jobcred: " in answer["message"], str(talk)
        assert (refusals(talk), job.upstream()) == (1, 1), str(talk)
    results.failures[client.label, "refused for good"] = f"once: {answer['error']}"


@pytest.mark.parametrize("client", NAMING, ids=lambda client: client.label)
def test_an_identity_that_a_rule_forbids_is_told_at_once(
    client: Client, scene: Callable[..., Scene], results: Results
) -> None:
    job = Job(client, scene)
    second = job.machine.doubles.ready["azure_ml"]["identities"]["user_assigned"][1]["client_id"]
    with job.talk(JOBCRED_ALLOW_IDENTITIES="none") as talk:
        answer = talk.ask(kind=client.kind, client_id=second)
        assert answer["oid"] is None
        assert "allow_identities" in answer["message"], str(talk)
        assert (refusals(talk), job.upstream()) == (1, 0), str(talk)
        # Nobody else is the worse for it.
        assert talk.ask(kind=client.kind)["oid"] == job.own, str(talk)
    results.failures[client.label, "denied by a rule"] = f"once: {answer['error']}"


@pytest.mark.parametrize("client", WORKING, ids=lambda client: client.label)
def test_throttling_upstream_is_not_seen(client: Client, scene: Callable[..., Scene], results: Results) -> None:
    job = Job(client, scene)
    job.script(behaviors=[{"kind": "status", "status": 429, "retry_after": "1"}] * 2)
    with job.talk() as talk:
        assert talk.ask(kind=client.kind)["oid"] == job.own, str(talk)
        assert (refusals(talk), job.upstream()) == (0, 3), str(talk)
    results.failures[client.label, "throttled"] = "nothing"


@pytest.mark.parametrize("client", SINGLE, ids=lambda client: client.label)
def test_a_source_that_was_down_is_used_again(client: Client, scene: Callable[..., Scene], results: Results) -> None:
    job = Job(client, scene)
    job.script(default={"kind": "reset"})
    with job.talk() as talk, ThreadPoolExecutor() as beside:
        asking = beside.submit(talk.ask, kind=client.kind)
        end = time.monotonic() + LONGEST
        while refusals(talk) == 0 and not asking.done() and time.monotonic() < end:
            time.sleep(0.1)
        job.script(default={"kind": "ok"})
        answer = first = asking.result(LONGEST)
        # Some keep an error for some seconds.
        while answer["oid"] is None and time.monotonic() < end:
            assert "jobcred: " in answer["message"], str(talk)
            time.sleep(0.5)
            answer = talk.ask(kind=client.kind)
        assert answer["oid"] == job.own, str(talk)
    seen = "nothing: it asks again" if first["oid"] else f"{first['error']}; a later call works"
    results.failures[client.label, "down, then back"] = seen
