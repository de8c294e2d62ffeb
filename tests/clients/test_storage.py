"""Storage SDKs write and read a blob with the job's token, on every platform and while tokens are renewed."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import pytest

import places
from platforms import PLATFORMS, Platform
from platforms import platform as named
from scene import Finished, Scene, at_once

if TYPE_CHECKING:
    from collections.abc import Callable

    from azurite import Azurite

STORAGE = "https://storage.azure.com"
# Seconds that a token lives. It is renewed after three quarters. A client that asks a moment too early for that asks
# again five seconds later, so what is left then has to be more.
LIFETIME = 30


@pytest.fixture(params=PLATFORMS, ids=lambda platform: platform.name)
def platform(request: pytest.FixtureRequest) -> Platform:
    chosen: Platform = request.param
    return chosen


def test_every_client_reads_and_writes_as_the_right_principal_across_a_renewal(
    platform: Platform, scene: Callable[..., Scene], azurite: Azurite
) -> None:
    machine = scene(platform.config(LIFETIME), azurite)
    environment = platform.environment(machine.doubles, machine.directory)
    kept = machine.directory / "kept"
    if platform.mint is None:
        environment["JOBCRED_SANDBOX_LIFETIME"] = str(LIFETIME)
    clients = machine.storage_clients(platform.tokens, keep=kept if platform.mint is None else None)

    done = machine.job(at_once(*clients), environment, *platform.arguments)

    assert done.status == 0, str(done)
    if platform.announced:
        assert f"jobcred: who: {platform.strategy}" in done.stderr, str(done)
    reports = done.lines_of_json()
    assert {report["client"] for report in reports} == {"sync", "aio", "rust"}, str(done)
    used = check_reports(reports, platform.tokens, platform.principal(machine.doubles.ready), done)
    check_upstream(platform, machine, used, done)
    if kept.exists():
        machine.more_secrets += kept.read_text().split()
        machine.scan((done.stdout + done.stderr).encode())


def check_reports(reports: list[dict[str, Any]], tokens: int, principal: dict[str, str], done: Finished) -> set[str]:
    """Holds every token that the storage took to the principal; gives the digests."""
    used: set[str] = set()
    for report in reports:
        assert all(int(status) < 400 for status in report["statuses"]), str(done)
        assert len(report["tokens"]) >= tokens, str(done)
        for digest, claims in report["tokens"].items():
            assert claims["oid"] == principal["object_id"], str(done)
            assert claims["tid"] == principal["tenant_id"], str(done)
            assert claims["idtyp"] == ("user" if principal["kind"] == "user" else "app"), str(done)
            used.add(digest)
    return used


def check_upstream(platform: Platform, machine: Scene, used: set[str], done: Finished) -> None:
    """Looks at who was asked, how, and how often."""
    asked = machine.doubles.requests()
    wrong = {name: requests for name, requests in asked.items() if requests and name != platform.endpoint}
    assert wrong == {}, str(done)
    if platform.endpoint is None or platform.mint is None:
        return
    issued = machine.doubles.tokens()[platform.mint]
    by_digest = {hashlib.sha256(token["token"].encode()).hexdigest(): token for token in issued}
    assert used <= by_digest.keys(), str(done)
    for token in issued:
        assert token["principal"] == platform.principal(machine.doubles.ready), token["principal"]
        assert token["audience"].rstrip("/") == STORAGE
    # One fetch per renewal, however many processes ask; one more may be under way when they end.
    assert len(issued) <= len(used) + 1, str(done)
    requests = asked[platform.endpoint]
    assert len(requests) <= len(issued) + platform.extra_requests, requests
    wanted = platform.parameters(machine.doubles.ready)
    for request in requests[platform.extra_requests :]:
        query = dict(parse_qsl(request["query"], keep_blank_values=True))
        assert {name: query.get(name) for name in wanted} == wanted, query


def test_a_token_that_shows_in_the_output_is_noticed(scene: Callable[..., Scene], azurite: Azurite) -> None:
    """What all the other tests lean on."""
    chosen = named("compute-identity")
    machine = scene(chosen.config(LIFETIME), azurite)
    environment = chosen.environment(machine.doubles, machine.directory)
    with pytest.raises(AssertionError, match="secrets show in the output"):
        machine.job([places.built("jobcred"), "token", "--raw"], environment)
    with pytest.raises(AssertionError, match="secrets show in the output"):
        machine.job(["sh", "-c", 'echo "$MSI_SECRET" >&2'], environment)
