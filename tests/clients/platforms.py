"""The platforms a job may run on: what each puts into the environment, who answers there, and for whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isolation import IMDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from doubles import Doubles

Variables = dict[str, str]
Principal = dict[str, str]

# A GUID that belongs to nobody here.
NOBODY = "0badc0de-0000-4000-8000-000000000000"
SANDBOX_PRINCIPAL = {
    "tenant_id": "5a5a5a5a-0000-4000-8000-000000000001",
    "object_id": "5a5a5a5a-0000-4000-8000-000000000002",
    "client_id": "5a5a5a5a-0000-4000-8000-000000000003",
    "kind": "application",
}
CLUSTER = {"AZUREML_RUN_ID": "keen_rhubarb_1", "AZ_BATCH_NODE_ID": "tvmps_1"}
POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}


@dataclass(frozen=True)
class Platform:
    """One kind of machine."""

    name: str
    strategy: str
    # The endpoint that may be asked, and the mint of its tokens; `None`: nobody.
    endpoint: str | None
    mint: str | None
    options: Callable[[int], dict[str, Any]]
    environment: Callable[[Doubles, Path], Variables]
    principal: Callable[[dict[str, Any]], Principal]
    # The parameters that the endpoint has to be asked with, beside the resource; `None`: absent.
    parameters: Callable[[dict[str, Any]], dict[str, str | None]] = lambda _ready: {}
    arguments: tuple[str, ...] = ()
    # Whether the strategy is known before the metadata service has answered.
    announced: bool = True
    # Requests besides those that give a token: a probe, a first try.
    extra_requests: int = 0
    # How many different tokens each client uses before it ends: one renewal, or more.
    tokens: int = 2

    def config(self, lifetime: int) -> dict[str, Any]:
        """The doubles' options. The metadata service is always there: whoever asks it unbidden is found out."""
        machine = {"bind": f"{IMDS}:80", "lifetime": lifetime, "identities": {"system": {}}}
        return {"imds": machine, **self.options(lifetime)}


def _responder(**options: Any) -> Callable[[int], dict[str, Any]]:
    return lambda lifetime: {"azure_ml": {"lifetime": lifetime, "user_lifetime": lifetime, **options}}


def _two_identities(**options: Any) -> Callable[[int], dict[str, Any]]:
    return _responder(identities={"user_assigned": [{}, {}]}, **options)


def _authority(lifetime: int) -> dict[str, Any]:
    # A responder beside it, which must not be asked.
    return {"entra": {"lifetime": lifetime}, "azure_ml": {"without_client_id": "first_identity"}}


def _user(ready: dict[str, Any]) -> Principal:
    user: Principal = ready["azure_ml"]["user"]
    return user


def _first_identity(ready: dict[str, Any]) -> Principal:
    first: Principal = ready["azure_ml"]["identities"]["user_assigned"][0]
    return first


def _machine(ready: dict[str, Any]) -> Principal:
    system: Principal = ready["imds"]["identities"]["system"]
    return system


def _application(ready: dict[str, Any]) -> Principal:
    application: Principal = ready["entra"]["application"]
    return application


def _user_environment(doubles: Doubles, _directory: Path) -> Variables:
    # The compute has no identity of its own.
    return {**CLUSTER, **doubles.ready["azure_ml"]["user_environment"], "DEFAULT_IDENTITY_CLIENT_ID": "clientid"}


def _cluster_environment(doubles: Doubles, _directory: Path) -> Variables:
    return {**CLUSTER, **doubles.ready["azure_ml"]["environment"]}


def _pod_environment(doubles: Doubles, _directory: Path) -> Variables:
    second = doubles.ready["azure_ml"]["identities"]["user_assigned"][1]["client_id"]
    return {
        **POD,
        "AZUREML_RUN_ID": "keen_rhubarb_1",
        **doubles.ready["azure_ml"]["environment"],
        # Set, and not to be used: it names another identity than the pod's.
        "DEFAULT_IDENTITY_CLIENT_ID": second,
    }


def _federated_environment(doubles: Doubles, directory: Path) -> Variables:
    file = directory / "azure-identity-token"
    file.write_text(doubles.assertion(3600))
    entra, application = doubles.ready["entra"], doubles.ready["entra"]["application"]
    return {
        **POD,
        **doubles.ready["azure_ml"]["environment"],
        "AZURE_AUTHORITY_HOST": entra["authority"] + "/",
        "AZURE_TENANT_ID": application["tenant_id"],
        "AZURE_CLIENT_ID": application["client_id"],
        "AZURE_FEDERATED_TOKEN_FILE": str(file),
    }


def _pipeline_environment(doubles: Doubles, _directory: Path) -> Variables:
    entra, application = doubles.ready["entra"], doubles.ready["entra"]["application"]
    return {
        **doubles.ready["azure_ml"]["environment"],
        "JOBCRED_STRATEGY": "service-principal",
        "AZURE_AUTHORITY_HOST": entra["authority"] + "/",
        "AZURE_TENANT_ID": application["tenant_id"],
        "AZURE_CLIENT_ID": application["client_id"],
        "AZURE_CLIENT_SECRET": entra["client_secret"],
    }


def _instance_environment(doubles: Doubles, _directory: Path) -> Variables:
    named = doubles.ready["azure_ml"]["environment"]
    return {**named, "DEFAULT_IDENTITY_CLIENT_ID": "clientid", "CI_NAME": "jane-ci"}


def _endpoint_environment(doubles: Doubles, _directory: Path) -> Variables:
    named = doubles.ready["azure_ml"]["environment"]
    return {**CLUSTER, **named, "DEFAULT_IDENTITY_CLIENT_ID": "clientid"}


PLATFORMS = (
    Platform(
        name="user-identity",
        strategy="user-identity",
        endpoint="obo",
        mint="user",
        options=_responder(),
        environment=_user_environment,
        principal=_user,
        parameters=lambda _ready: {"clientid": None, "api-version": None},
    ),
    Platform(
        name="compute-identity",
        strategy="compute-identity",
        tokens=3,
        endpoint="msi",
        mint="azure_ml",
        options=_two_identities(),
        environment=_cluster_environment,
        principal=_first_identity,
        parameters=lambda ready: {"clientid": _first_identity(ready)["client_id"], "api-version": "2017-09-01"},
    ),
    Platform(
        name="kubernetes-endpoint",
        strategy="kubernetes",
        endpoint="msi",
        mint="azure_ml",
        options=_two_identities(without_client_id="first_identity"),
        environment=_pod_environment,
        principal=_first_identity,
        parameters=lambda _ready: {"clientid": None},
    ),
    Platform(
        name="kubernetes-workload-identity",
        strategy="kubernetes",
        endpoint="entra",
        mint="entra",
        options=_authority,
        environment=_federated_environment,
        principal=_application,
    ),
    Platform(
        name="kubernetes-imds",
        strategy="kubernetes",
        endpoint="imds",
        mint="imds",
        options=lambda _lifetime: {},
        environment=lambda _doubles, _directory: {**POD, "AZUREML_RUN_ID": "keen_rhubarb_1"},
        principal=_machine,
        parameters=lambda _ready: {"client_id": None, "object_id": None, "msi_res_id": None},
        announced=False,
        extra_requests=1,
    ),
    Platform(
        name="system-identity-imds",
        strategy="system-identity",
        endpoint="imds",
        mint="imds",
        options=lambda _lifetime: {},
        environment=lambda _doubles, _directory: {},
        principal=_machine,
        parameters=lambda _ready: {"client_id": None, "object_id": None, "msi_res_id": None},
        announced=False,
        extra_requests=1,
    ),
    Platform(
        name="system-identity-endpoint",
        strategy="system-identity",
        endpoint="msi",
        mint="azure_ml",
        options=_responder(without_client_id="first_identity"),
        environment=_endpoint_environment,
        principal=_first_identity,
        parameters=lambda _ready: {"clientid": None},
    ),
    Platform(
        name="compute-instance-user",
        strategy="compute-instance-user",
        endpoint="msi",
        mint="user",
        options=_responder(without_client_id="signed_in_user"),
        environment=_instance_environment,
        principal=_user,
        parameters=lambda _ready: {"clientid": None},
    ),
    Platform(
        name="service-principal",
        strategy="service-principal",
        endpoint="entra",
        mint="entra",
        options=_authority,
        environment=_pipeline_environment,
        principal=_application,
    ),
    Platform(
        name="sandbox",
        strategy="sandbox",
        endpoint=None,
        mint=None,
        options=_two_identities(),
        # Real endpoints are in reach, and nobody asks them.
        environment=_cluster_environment,
        principal=lambda _ready: dict(SANDBOX_PRINCIPAL),
        arguments=("--sandbox",),
    ),
)


def platform(name: str) -> Platform:
    """The platform of that name."""
    return next(known for known in PLATFORMS if known.name == name)
