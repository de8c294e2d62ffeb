"""Variables of identities are read by parsers that are not ours: SDKs find what they found, unless jobcred leads them.

Each SDK asks for a token on each kind of machine, without jobcred and under `jobcred run` with its endpoints off. It
gets the identity that is expected there, or the expected error. Both times it tries the same credentials, and asks the
same endpoint in the same way.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

import places
from catalogue import AZURE_ML, CLIENTS, ELSEWHERE, ON_BEHALF_OF, go, java, node, venv
from platforms import POD, platform
from resource_manager import surroundings
from scene import own_hosts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from catalogue import Client
    from scene import Scene

    # From what the doubles said when they started.
    Find = Callable[[dict[str, Any]], dict[str, str]]

LIFETIME = 3600
# The name that every SDK knows. MSAL asks it about an authority of another name.
AUTHORITY = "login.microsoftonline.com"
# Set and empty is not the same as unset for some of them.
EMPTY = dict.fromkeys(("IDENTITY_ENDPOINT", "IDENTITY_HEADER", "IDENTITY_SERVER_THUMBPRINT", "AZURE_CLIENT_ID"), "")


@dataclass(frozen=True)
class Machine:
    """What the environment tells SDKs, and which endpoint answers."""

    name: str
    config: Callable[[], dict[str, Any]]
    environment: Callable[[Scene], dict[str, str]]
    # Whose token an SDK gets without jobcred.
    principal: Find
    # The SDKs that get none there, with what their error says.
    failures: Mapping[str, str] = field(default_factory=dict)


def of_platform(
    name: str,
    label: str = "",
    options: Mapping[str, dict[str, Any]] | None = None,
    variables: Mapping[str, str] | None = None,
    failures: Mapping[str, str] | None = None,
) -> Machine:
    """A platform with more options of its doubles, and more variables."""
    chosen = platform(name)

    def config() -> dict[str, Any]:
        made = chosen.config(LIFETIME)
        return made | {double: made[double] | more for double, more in (options or {}).items()}

    return Machine(
        label or name,
        config,
        lambda machine: {**chosen.environment(machine.doubles, machine.directory), **(variables or {})},
        chosen.principal,
        failures or {},
    )


def app_service() -> Machine:
    return Machine(
        "app-service",
        lambda: platform("kubernetes-imds").config(LIFETIME) | {"app_service": {"lifetime": LIFETIME}},
        lambda machine: POD | machine.doubles.ready["app_service"]["environment"],
        lambda ready: ready["app_service"]["identities"]["system"],
    )


# Some SDKs name no identity. The endpoint of a cluster with one identity answers them.
ONE_IDENTITY = {"azure_ml": {"without_client_id": "first_identity"}}
# By a client secret, and by a pod's federated token.
AT_AUTHORITY: dict[str, Any] = {
    "options": {"entra": {"bind": "127.0.0.1:443"}},
    "variables": {"AZURE_AUTHORITY_HOST": f"https://{AUTHORITY}/"},
}
# It takes MSI_ENDPOINT for that of Cloud Shell, and sends no secret.
JAVA = {"java": "Managed Identity authentication failed"}
MACHINES = (
    # MSI_*
    of_platform("compute-identity", options=ONE_IDENTITY, failures=JAVA),
    of_platform(
        "compute-identity",
        "compute-identity-empty",
        options=ONE_IDENTITY,
        variables=EMPTY,
        # Two that take an empty variable for one that is set.
        failures=JAVA
        | {
            "python": "Service Fabric managed identity endpoint must use HTTPS",
            "go": "empty managedidentity.UserAssignedClientID",
        },
    ),
    # The compute has no identity, and its endpoint refuses.
    of_platform(
        "user-identity",
        failures=JAVA | {"python": "Expecting value", "node": "Network unreachable", "go": "RESPONSE 400"},
    ),
    # AZURE_*
    of_platform("kubernetes-workload-identity", **AT_AUTHORITY),
    of_platform("service-principal", **AT_AUTHORITY),
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


def with_roots(machine: Scene) -> list[str]:
    """Java has roots in a file of its own format."""
    store = machine.directory / "roots.p12"
    options = ["-keystore", str(store), "-storepass", "changeit", "-file", machine.doubles.ready["ca"]]
    subprocess.run(["keytool", "-importcert", "-noprompt", *options], check=True, capture_output=True)
    program, *rest = java("Ask")
    return [program, f"-Djavax.net.ssl.trustStore={store}", "-Djavax.net.ssl.trustStorePassword=changeit", *rest]


SDKS = (
    Sdk("python", lambda _machine: venv("sdks", "sdk.py")()),
    Sdk("node", lambda _machine: node("azure_identity.mjs")),
    Sdk("go", lambda _machine: go("ask")),
    Sdk("java", with_roots),
)
CASES = [(sdk, machine) for sdk in SDKS for machine in MACHINES]


@dataclass(frozen=True)
class Found:
    """What a program got, by which credentials, and what it asked."""

    oid: str | None
    error: str | None
    tried: list[str]
    asked: Mapping[tuple[str, str, str], int]
    message: str = field(compare=False)


def found(machine: Scene, command: list[str], environment: dict[str, str], kind: str) -> Found:
    hosts = machine.directory / "hosts"
    hosts.write_text("".join(f"127.0.0.1 {name}\n" for name in ("localhost", AUTHORITY, "management.azure.com")))
    before = machine.asked()
    with machine.conversation(command, environment, prefix=own_hosts(hosts)) as talk:
        answer = talk.ask(kind=kind)
    message = str(answer["message"] or "")
    tried = list(dict.fromkeys(re.findall(r"\w+Credential\b", message)))
    return Found(answer["oid"], answer["error"], tried, machine.asked() - before, message)


@pytest.mark.parametrize(
    ("sdk", "kind_of_machine"), CASES, ids=[f"{sdk.name}-{machine.name}" for sdk, machine in CASES]
)
def test_l1_an_sdk_finds_the_same_identity_with_endpoints_off_as_without_jobcred(
    sdk: Sdk, kind_of_machine: Machine, scene: Callable[..., Scene]
) -> None:
    machine = scene(kind_of_machine.config())
    environment = machine.environment(kind_of_machine.environment(machine))
    environment |= {"JOBCRED_DIALECTS": "none", "NODE_EXTRA_CA_CERTS": environment["SSL_CERT_FILE"]}
    command = sdk.command(machine)
    without = found(machine, command, environment, "default")
    failure = kind_of_machine.failures.get(sdk.name)
    expected = None if failure else kind_of_machine.principal(machine.doubles.ready)["object_id"]
    assert without.oid == expected, without
    assert failure is None or failure in without.message, without
    assert found(machine, [places.built("jobcred"), "run", "--", *command], environment, "default") == without


def system_identity(ready: dict[str, Any]) -> dict[str, str]:
    """That of the machine, which its metadata service knows."""
    identity: dict[str, str] = ready["imds"]["identities"]["system"]
    return identity


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.label)
def test_l1_a_client_finds_the_same_identity_with_endpoints_off_as_without_jobcred(
    client: Client, scene: Callable[..., Scene]
) -> None:
    on_behalf = AZURE_ML not in client.dialects
    gap = client.dialects[ON_BEHALF_OF if on_behalf else AZURE_ML]
    chosen = of_platform("user-identity") if on_behalf else of_platform("compute-identity", options=ONE_IDENTITY)
    machine = scene(chosen.config())
    environment = machine.environment(chosen.environment(machine))
    environment["JOBCRED_DIALECTS"] = "none"
    command = client.command()
    with surroundings(client, machine):
        without = found(machine, command, environment, client.kind)
        if gap is None or gap is ELSEWHERE:
            principal = system_identity if gap else chosen.principal
            assert without.oid == principal(machine.doubles.ready)["object_id"], without
        else:
            assert without.oid is None, without
            assert str(gap.message) in without.message, without
        assert found(machine, [places.built("jobcred"), "run", "--", *command], environment, client.kind) == without
