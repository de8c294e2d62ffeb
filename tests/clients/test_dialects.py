"""Azure's own SDK, which knows nothing of jobcred, is served by it, and loses nothing that it had without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import places
from platforms import NOBODY, PLATFORMS, Platform
from platforms import platform as named
from scene import Finished, python

if TYPE_CHECKING:
    from collections.abc import Callable

    from scene import Scene

WAYS = ("unnamed", "named", "nobody")
LIFETIME = 3600
# The platforms where SDKs are led to jobcred without being told to.
LED = {"user-identity", "compute-identity", "kubernetes-endpoint", "sandbox"}


def outcomes(done: Finished) -> dict[tuple[str, str], dict[str, Any]]:
    """What came of each way and kind."""
    assert done.status == 0, str(done)
    return {(line["way"], line["kind"]): line for line in done.lines_of_json()}


def nameable(platform: Platform, machine: Scene) -> str:
    """A client id that a program may name: the last identity of the compute. Kubernetes compute has one alone."""
    identities = machine.doubles.ready.get("azure_ml", {}).get("identities", {}).get("user_assigned", [])
    if not identities:
        return NOBODY
    return str(identities[0 if platform.strategy == "kubernetes" else -1]["client_id"])


@pytest.fixture(params=PLATFORMS, ids=lambda platform: platform.name)
def platform(request: pytest.FixtureRequest) -> Platform:
    chosen: Platform = request.param
    return chosen


def test_nothing_that_worked_without_jobcred_fails_with_it_or_is_somebody_elses(
    platform: Platform, scene: Callable[..., Scene]
) -> None:
    machine = scene(platform.config(LIFETIME))
    environment = platform.environment(machine.doubles, machine.directory)
    environment["ASK_CLIENT_ID"] = nameable(platform, machine)
    if platform.strategy == "user-identity":
        # A job has a managed identity or runs as a user, never both.
        environment["MSI_ENDPOINT"] = "identity-responder-not-enabled"
    command = python("identity.py", *WAYS)

    before = outcomes(machine.run(command, machine.environment(environment)))
    after = outcomes(machine.job(command, environment, *platform.arguments))

    assert before.keys() == after.keys()
    if platform.name == "sandbox":
        # Nobody's tokens are what was asked for.
        return
    for key, line in before.items():
        if line["oid"] is not None:
            assert after[key]["oid"] == line["oid"], (key, line, after[key])


@pytest.mark.parametrize("name", sorted(LED))
def test_an_unmodified_sdk_gets_the_jobs_own_identity(name: str, scene: Callable[..., Scene]) -> None:
    chosen = named(name)
    machine = scene(chosen.config(LIFETIME))
    environment = chosen.environment(machine.doubles, machine.directory)

    done = machine.job(python("identity.py", "unnamed"), environment, *chosen.arguments)

    found = outcomes(done)
    principal = chosen.principal(machine.doubles.ready)["object_id"]
    assert {key: line["oid"] for key, line in found.items()} == {
        ("unnamed", kind): principal for kind in ("sync", "aio", "default")
    }, str(done)
    if chosen.endpoint is not None:
        # All of them through jobcred, in one request.
        assert len(machine.doubles.requests()[chosen.endpoint]) == 1


def test_a_named_identity_is_that_one_on_a_cluster_and_refused_for_a_user(scene: Callable[..., Scene]) -> None:
    chosen = named("compute-identity")
    machine = scene({**chosen.config(LIFETIME), "entra": {}})
    environment = chosen.environment(machine.doubles, machine.directory)
    second = machine.doubles.ready["azure_ml"]["identities"]["user_assigned"][1]
    environment["ASK_CLIENT_ID"] = second["client_id"]

    found = outcomes(machine.job(python("identity.py", "named", "nobody"), environment))
    assert {found["named", kind]["oid"] for kind in ("sync", "aio")} == {second["object_id"]}
    assert {found["nobody", kind]["oid"] for kind in ("sync", "aio")} == {None}

    # The same endpoint, and a job that runs as the user.
    user = {**environment, **machine.doubles.ready["azure_ml"]["user_environment"]}
    user["DEFAULT_IDENTITY_CLIENT_ID"] = "clientid"
    done = machine.job(python("identity.py", "named"), user)
    for line in outcomes(done).values():
        assert line["oid"] is None
        assert "submitting user" in line["message"], str(done)


def test_exclusive_leads_the_default_credential_past_secrets_in_the_environment(scene: Callable[..., Scene]) -> None:
    chosen = named("compute-identity")
    machine = scene({**chosen.config(LIFETIME), "entra": {}})
    application = machine.doubles.ready["entra"]["application"]
    environment = {
        **chosen.environment(machine.doubles, machine.directory),
        "AZURE_AUTHORITY_HOST": machine.doubles.ready["entra"]["authority"],
        "AZURE_TENANT_ID": application["tenant_id"],
        "AZURE_CLIENT_SECRET": machine.doubles.ready["entra"]["client_secret"],
    }
    own = chosen.principal(machine.doubles.ready)
    environment["AZURE_CLIENT_ID"] = own["client_id"]

    found = outcomes(machine.job(python("identity.py", "unnamed"), environment, "--exclusive"))
    assert found["unnamed", "default"]["oid"] == own["object_id"]
    assert machine.doubles.requests()["entra"] == []


def test_an_sdk_is_told_at_once_when_there_is_no_token(scene: Callable[..., Scene]) -> None:
    """A refusal for good is no reason to try again for minutes."""
    chosen = named("compute-identity")
    config = chosen.config(LIFETIME)
    config["azure_ml"]["refused_resources"] = ["https://storage.azure.com/", "https://storage.azure.com"]
    machine = scene(config)
    environment = chosen.environment(machine.doubles, machine.directory)

    done = machine.job(python("identity.py", "unnamed"), environment)

    for line in outcomes(done).values():
        assert line["oid"] is None
        assert "jobcred: " in line["message"], str(done)
    # One for each way and kind at most: no SDK tried again.
    assert len(machine.doubles.requests()["msi"]) <= len(outcomes(done))


def test_what_the_endpoint_is_called_is_no_secret_of_the_output(scene: Callable[..., Scene]) -> None:
    """The header is in the environment of the command, and nowhere in what jobcred writes."""
    chosen = named("sandbox")
    machine = scene(chosen.config(LIFETIME))
    kept = machine.directory / "header"
    shell = ["sh", "-c", f'printf %s "$IDENTITY_HEADER" > {kept}; {places.built("jobcred")} token >/dev/null']

    done = machine.job(shell, chosen.environment(machine.doubles, machine.directory), *chosen.arguments)

    header = kept.read_text()
    assert len(header) == 64, str(done)
    assert header not in done.stdout + done.stderr
