"""Variables of identities are read by parsers that are not ours: SDKs find what they found, unless jobcred leads them.

Each SDK asks for a token on each kind of machine, without jobcred and under `jobcred run` with its endpoints off. It
gets the same identity or error, tries the same credentials, and asks the same endpoint in the same way.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

import places
from catalogue import CLIENTS, go, java, node, venv
from platforms import POD, platform
from resource_manager import surroundings

if TYPE_CHECKING:
    from collections.abc import Callable

    from catalogue import Client
    from scene import Scene

LIFETIME = 3600
# Set and empty is not the same as unset for some of them.
EMPTY = dict.fromkeys(("IDENTITY_ENDPOINT", "IDENTITY_HEADER", "IDENTITY_SERVER_THUMBPRINT", "AZURE_CLIENT_ID"), "")


@dataclass(frozen=True)
class Machine:
    """What the environment tells SDKs, and who answers."""

    name: str
    config: Callable[[], dict[str, Any]]
    environment: Callable[[Scene], dict[str, str]]


def of_platform(name: str, **more: str) -> Machine:
    chosen = platform(name)
    label = "_".join([name, *(key.lower() for key in more)])
    return Machine(
        label,
        lambda: chosen.config(LIFETIME),
        lambda machine: chosen.environment(machine.doubles, machine.directory) | more,
    )


def app_service() -> Machine:
    return Machine(
        "app-service",
        lambda: platform("kubernetes-imds").config(LIFETIME) | {"app_service": {"lifetime": LIFETIME}},
        lambda machine: POD | machine.doubles.ready["app_service"]["environment"],
    )


MACHINES = (
    # MSI_*
    of_platform("compute-identity"),
    of_platform("user-identity"),
    of_platform("compute-identity", **EMPTY),
    # AZURE_*
    of_platform("kubernetes-workload-identity"),
    of_platform("service-principal"),
    # IDENTITY_*
    app_service(),
    # Nothing at all.
    of_platform("system-identity-imds"),
)


@dataclass(frozen=True)
class Sdk:
    """A program that asks for tokens with `DefaultAzureCredential`, by lines."""

    name: str
    command: Callable[[Scene], list[str]]
    needs: str = ""


def with_roots(machine: Scene) -> list[str]:
    """Java has roots in a file of its own format."""
    store = machine.directory / "roots.p12"
    for number, ca in enumerate({machine.doubles.ready["ca"]}):
        options = ["-keystore", str(store), "-storepass", "changeit", "-alias", str(number), "-file", ca]
        subprocess.run(["keytool", "-importcert", "-noprompt", *options], check=True, capture_output=True)
    program, *rest = java("Ask")
    return [program, f"-Djavax.net.ssl.trustStore={store}", "-Djavax.net.ssl.trustStorePassword=changeit", *rest]


SDKS = (
    Sdk("python", lambda _machine: venv("sdks", "sdk.py")()),
    Sdk("node", lambda _machine: node("azure_identity.mjs")),
    Sdk("go", lambda _machine: go("ask"), needs="go"),
    Sdk("java", with_roots, needs="java"),
)
CASES = [(sdk, machine) for sdk in SDKS for machine in MACHINES]


def found(machine: Scene, command: list[str], environment: dict[str, str], kind: str) -> list[object]:
    """What a program got, by which credentials, and what it asked."""
    before = machine.asked()
    with machine.conversation(command, environment) as talk:
        answer = talk.ask(kind=kind)
    tried = re.findall(r"\w+Credential\b", answer["message"] or "")
    return [answer["oid"], answer["error"], list(dict.fromkeys(tried)), machine.asked() - before]


@pytest.mark.parametrize(
    ("sdk", "kind_of_machine"), CASES, ids=[f"{sdk.name}-{machine.name}" for sdk, machine in CASES]
)
def test_l1_an_sdk_finds_the_same_identity_with_endpoints_off_as_without_jobcred(
    sdk: Sdk, kind_of_machine: Machine, scene: Callable[..., Scene]
) -> None:
    if sdk.needs and (reason := places.missing(sdk.needs)):
        pytest.skip(reason)
    machine = scene(kind_of_machine.config())
    environment = machine.environment(kind_of_machine.environment(machine))
    environment |= {"JOBCRED_DIALECTS": "none", "NODE_EXTRA_CA_CERTS": environment["SSL_CERT_FILE"]}
    command = sdk.command(machine)
    without = found(machine, command, environment, "default")
    assert found(machine, [places.built("jobcred"), "run", "--", *command], environment, "default") == without


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.label)
def test_l1_a_client_finds_the_same_identity_with_endpoints_off_as_without_jobcred(
    client: Client, scene: Callable[..., Scene]
) -> None:
    chosen = platform("compute-identity")
    machine = scene(chosen.config(LIFETIME))
    environment = machine.environment(chosen.environment(machine.doubles, machine.directory))
    environment["JOBCRED_DIALECTS"] = "none"
    command = client.command()
    with surroundings(client, machine):
        without = found(machine, command, environment, client.kind)
        assert found(machine, [places.built("jobcred"), "run", "--", *command], environment, client.kind) == without
