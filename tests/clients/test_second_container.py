"""A sidecar serves the other containers of its pod, and only those it is meant to."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

import container
import places
from container import SHARED, Container
from platforms import platform
from scene import Scene, at_once, python

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from azurite import Azurite

AGENT_UID, JOB_UID, OTHER_UID = 1000, 1234, 1235
POD_GROUP = 5000
SOCKET = str(SHARED / "jobcred" / "agent.sock")
SHARING = {"JOBCRED_SOCKET_GROUP": str(POD_GROUP), "JOBCRED_ALLOW_UIDS": str(JOB_UID)}


@pytest.fixture(autouse=True)
def _real_root() -> None:
    reason = container.why_not()
    if reason is not None:
        pytest.fail(reason, pytrace=False)


@dataclass
class Pod:
    """A volume that containers share, and an agent in one of them."""

    machine: Scene
    volume: Path

    def environment(self, **variables: str) -> dict[str, str]:
        """What every container of the pod has."""
        ca = str(SHARED / "ca.pem")
        here = {"HOME": "/tmp", "SSL_CERT_FILE": ca, "REQUESTS_CA_BUNDLE": ca, "JOBCRED_SOCKET": SOCKET}
        return self.machine.environment(here | variables)

    def container(self, uid: int, *groups: int) -> list[str]:
        return Container(uid, groups, self.volume).prefix(self.machine.directory)

    def ask(self, uid: int, *groups: int, **variables: str) -> dict[str, Any]:
        """What a program of that user is told when it wants a token."""
        done = self.machine.run(python("ask.py"), self.environment(**variables), prefix=self.container(uid, *groups))
        assert done.status == 0, str(done)
        (answer,) = done.lines_of_json()
        return answer

    @contextmanager
    def sidecar(self, **sharing: str) -> Iterator[None]:
        """An agent in a container of its own, with what the platform gives to the pod."""
        chosen = platform("kubernetes-endpoint")
        environment = self.environment(
            **chosen.environment(self.machine.doubles, self.machine.directory), JOBCRED_GRACE="1s", **sharing
        )
        where = self.container(AGENT_UID, POD_GROUP)
        with self.machine.beside([places.built("jobcred"), "agent"], environment, prefix=where):
            wait = [places.built("jobcred"), "wait", "--timeout", "60"]
            done = self.machine.run(wait, self.environment(), prefix=where)
            assert done.status == 0, str(done)
            yield

    @property
    def principal(self) -> str:
        return platform("kubernetes-endpoint").principal(self.machine.doubles.ready)["object_id"]


@pytest.fixture
def pod(scene: Callable[..., Scene], azurite: Azurite) -> Pod:
    machine = scene(platform("kubernetes-endpoint").config(3600), azurite)
    volume = machine.directory / "volume"
    volume.mkdir()
    # As the platform makes a volume for `fsGroup`.
    shutil.chown(volume, 0, POD_GROUP)
    volume.chmod(0o2775)
    shutil.copy(machine.ca_bundle, volume / "ca.pem")
    return Pod(machine, volume)


def test_another_container_reads_and_writes_blobs(pod: Pod) -> None:
    with pod.sidecar(**SHARING):
        clients = at_once(*pod.machine.storage_clients(), python("ask.py"))
        environment = pod.environment(JOBCRED_AGENT_UID=str(AGENT_UID))
        done = pod.machine.run(clients, environment, prefix=pod.container(JOB_UID, POD_GROUP))

    assert done.status == 0, str(done)
    reports = [report for report in done.lines_of_json() if "client" in report]
    assert {report["client"] for report in reports} == {"sync", "aio", "rust"}, str(done)
    owners = {claims["oid"] for report in reports for claims in report["tokens"].values()}
    assert owners == {pod.principal}, str(done)
    # Four programs, one token, one question.
    assert len(pod.machine.doubles.tokens()["azure_ml"]) == 1
    assert len(pod.machine.doubles.requests()["msi"]) == 1


def test_an_agent_of_an_unnamed_user_is_not_trusted(pod: Pod) -> None:
    with pod.sidecar(**SHARING):
        answer = pod.ask(JOB_UID, POD_GROUP)

    assert "UntrustedAgentError" in answer["error"], answer
    assert f"uid {AGENT_UID}" in answer["message"], answer
    assert pod.machine.doubles.requests()["msi"] == []


def test_who_is_not_in_the_group_cannot_connect(pod: Pod) -> None:
    with pod.sidecar(**SHARING):
        answer = pod.ask(JOB_UID, JOBCRED_AGENT_UID=str(AGENT_UID))

    assert_out_of_reach(answer)
    assert pod.machine.doubles.requests()["msi"] == []


def test_a_user_of_the_group_who_is_not_named_is_denied(pod: Pod) -> None:
    with pod.sidecar(**SHARING):
        answer = pod.ask(OTHER_UID, POD_GROUP, JOBCRED_AGENT_UID=str(AGENT_UID))

    assert "DeniedError" in answer["error"], answer
    assert pod.machine.doubles.requests()["msi"] == []


def test_a_private_agent_serves_its_own_user_alone(pod: Pod) -> None:
    with pod.sidecar():
        foreign = pod.ask(JOB_UID, POD_GROUP, JOBCRED_AGENT_UID=str(AGENT_UID))
        # Somebody opens the way to the socket: the agent knows its callers all the same.
        (pod.volume / "jobcred").chmod(0o755)
        (pod.volume / "jobcred" / "agent.sock").chmod(0o666)
        let_in = pod.ask(JOB_UID, POD_GROUP, JOBCRED_AGENT_UID=str(AGENT_UID))
        own = pod.ask(AGENT_UID)

    assert_out_of_reach(foreign)
    assert "DeniedError" in let_in["error"], let_in
    assert own == {"oid": pod.principal}
    assert len(pod.machine.doubles.requests()["msi"]) == 1


def assert_out_of_reach(answer: dict[str, Any]) -> None:
    """The way to the socket was closed, and the program was told so."""
    assert "DeniedError" in answer["error"], answer
    assert "not accessible to this user" in answer["message"], answer
