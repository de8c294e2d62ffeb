"""Every client by every dialect, with and without naming an identity; what passed becomes docs/compatibility.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import places
from catalogue import APP_SERVICE, CLIENTS, IMDS, ON_BEHALF_OF, Client, as_env_says, setting
from platforms import platform
from resource_manager import surroundings
from scene import answered

if TYPE_CHECKING:
    from collections.abc import Callable

    from results import Results
    from scene import Scene

LIFETIME = 3600
CASES = [(client, dialect) for client in CLIENTS for dialect in client.dialects]


def inside(client: Client, dialect: str) -> list[str]:
    """The client as COMMAND, led to this dialect alone."""
    command = client.command()
    if dialect == IMDS:
        # The platform's own pair comes before it.
        command = ["env", "-u", "MSI_ENDPOINT", "-u", "MSI_SECRET", *command]
    return setting(client.wants.get(dialect, ""), command)


@pytest.mark.parametrize(("client", "dialect"), CASES, ids=[f"{c.label}-{d}" for c, d in CASES])
def test_a_client_gets_the_identity_it_asks_for(
    client: Client, dialect: str, scene: Callable[..., Scene], results: Results
) -> None:
    chosen = platform("user-identity" if dialect == ON_BEHALF_OF else "compute-identity")
    machine = scene(chosen.config(LIFETIME))
    environment = chosen.environment(machine.doubles, machine.directory) | {"JOBCRED_DIALECTS": dialect}
    own = chosen.principal(machine.doubles.ready)
    requests: list[tuple[dict[str, Any], str | None]] = [({}, own["object_id"])]
    if client.names and dialect != ON_BEHALF_OF:
        second = machine.doubles.ready["azure_ml"]["identities"]["user_assigned"][1]
        requests.append(({"client_id": second["client_id"]}, second["object_id"]))
    command = [places.built("jobcred"), "run", "--", *inside(client, dialect)]

    with (
        surroundings(client, machine) as listed,
        machine.conversation(command, machine.environment(environment)) as talk,
    ):
        answers = [talk.ask(kind=client.kind, **request) for request, _ in requests]

    whose = [answer["oid"] for answer in answers]
    gap = client.dialects[dialect]
    if gap is not None:
        # One that has closed must not stay in the list, nor one that is another than it says.
        assert answered(talk.stderr, dialect) == 0, "the gap is closed: take it out of the catalogue"
        if gap.message is None:
            assert len(machine.doubles.requests()["imds"]) == len(requests), str(talk)
        else:
            assert all(gap.message in str(answer["message"]) for answer in answers), str(talk)
        results.dialects[client.label, dialect] = gap.text
        return
    assert whose == [wanted for _, wanted in requests], str(talk)
    # Logging in takes a token of its own, of the same identity.
    assert listed == (whose if client.lists_subscriptions else []), str(talk)
    tokens = len(requests) + len(listed)
    assert answered(talk.stderr, dialect) == tokens, str(talk)
    # All of it by way of jobcred: one request for each token, and nobody went anywhere else.
    asked = machine.doubles.requests()
    assert {name: len(asked[name]) for name in asked if asked[name]} == {chosen.endpoint: tokens}, str(asked)
    results.dialects[client.label, dialect] = "works"


def test_what_jobcred_env_says_is_all_that_az_needs(scene: Callable[..., Scene]) -> None:
    (client,) = (client for client in CLIENTS if client.kind == "az")
    chosen = platform("compute-identity")
    machine = scene(chosen.config(LIFETIME))
    environment = machine.environment(chosen.environment(machine.doubles, machine.directory))
    command = [places.built("jobcred"), "run", "--", *as_env_says("az", client.command())]
    with surroundings(client, machine) as listed, machine.conversation(command, environment) as talk:
        assert talk.ask(kind=client.kind)["oid"] == chosen.principal(machine.doubles.ready)["object_id"], str(talk)
    assert answered(talk.stderr, APP_SERVICE) == 1 + len(listed), str(talk)
    asked = machine.doubles.requests()
    assert {name: len(asked[name]) for name in asked if asked[name]} == {chosen.endpoint: 1 + len(listed)}, str(asked)
