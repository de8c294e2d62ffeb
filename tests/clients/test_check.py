"""`jobcred check` before a real blob service that checks tokens."""

from __future__ import annotations

import json
import sys
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest

import places
from platforms import platform
from scene import Finished, Scene

if TYPE_CHECKING:
    from collections.abc import Callable

    from azurite import Azurite

LIFETIME = 3600
KEEP = """
import sys, jobcred
from azure.storage.blob import BlobServiceClient
service = BlobServiceClient(sys.argv[1], credential=jobcred.JobCredential())
service.create_container(sys.argv[2]).upload_blob("train/a", b"x")
"""
NAMES = """
import sys, jobcred
from azure.storage.blob import ContainerClient
container = ContainerClient.from_container_url(sys.argv[1], credential=jobcred.JobCredential())
print(*[blob.name for blob in container.list_blobs()])
"""


class Place:
    """A job on a cluster, and a container that its identity has made."""

    def __init__(self, machine: Scene, account_url: str) -> None:
        self.machine = machine
        self.variables = platform("compute-identity").environment(machine.doubles, machine.directory)
        self.container = f"check-{uuid.uuid4()}"
        self.account_url = account_url
        self.python("-c", KEEP, account_url, self.container)

    @property
    def url(self) -> str:
        return f"{self.account_url}/{self.container}"

    def python(self, *arguments: str) -> str:
        done = self.machine.job([sys.executable, *arguments], self.variables)
        assert done.status == 0, str(done)
        return done.stdout

    def check(self, *arguments: str) -> Finished:
        """The check; whatever it prints is searched for tokens."""
        command = [places.built("jobcred"), "check", "--service", "blob", *arguments]
        return self.machine.run(command, self.machine.environment(self.variables))

    def json(self, *arguments: str) -> dict[str, Any]:
        done = self.check("--json", *arguments)
        return dict(json.loads(done.stdout)) | {"status": done.status}

    def lie(self, **claims: Any) -> None:
        """From now on tokens say so of themselves."""
        self.machine.doubles.order("/mint", mint="azure_ml", claims=claims)


@pytest.fixture
def place(scene: Callable[..., Scene], azurite: Azurite) -> Place:
    chosen = platform("compute-identity")
    return Place(scene(chosen.config(LIFETIME), azurite), azurite.account_url)


def codes(report: dict[str, Any]) -> list[str]:
    return [finding["code"] for finding in report["findings"]]


def test_a_good_token_lists_writes_and_leaves_nothing(place: Place) -> None:
    report = place.json("--write", f"{place.url}/train")
    assert (report["status"], report["ok"], codes(report)) == (0, True, []), report
    steps = {step["step"]: step["outcome"] for step in report["steps"]}
    assert steps == dict.fromkeys(["name", "connection", "tls", "token", "list", "write", "delete"], "ok")
    identity = place.machine.doubles.ready["azure_ml"]["identities"]["user_assigned"][0]
    assert report["principal"]["object_id"] == identity["object_id"]
    assert place.python("-c", NAMES, place.url).split() == ["train/a"]


def test_the_emulators_refusals_are_told_apart(place: Place) -> None:
    missing = place.json(f"{place.account_url}/check-{uuid.uuid4()}")
    assert (missing["status"], codes(missing)) == (125, ["container_not_found"]), missing

    place.lie(aud="https://vault.azure.net")
    assert codes(place.json(place.url)) == ["other_audience", "audience"]

    now = int(time.time())
    place.lie(nbf=now - 7200, iat=now - 7200, exp=now - 3600)
    # One that has ended is not even sent: only a service whose clock is ahead sees such.
    assert codes(place.json(place.url)) == ["token_refused"]

    # Of another clock than this machine's, by which its life is told.
    place.lie(nbf=now + 3600, iat=now + 3600, exp=now + 7200)
    assert codes(place.json(place.url)) == ["clock_skew", "token_lifetime"]


def test_a_sandbox_token_is_good_for_the_emulator(place: Place) -> None:
    done = place.check("--sandbox", place.url)
    assert done.status == 0, str(done)
    assert "the sandbox's own" in done.stdout
    assert "it works: the identity can list here" in done.stdout
