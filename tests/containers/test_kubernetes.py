"""deploy/kubernetes: the manifests against the schemas of the API, and the pod in an engine."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

import places
from doubles import Doubles
from pod import CLIENT_ID, Identity, Pod

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from engine import Engine

DEPLOY = places.ROOT / "deploy/kubernetes"
TRAINING = Path(__file__).parent / "training"
# The first with native sidecars, and the newest that there is a schema of: docs/kubernetes.md names both.
VERSIONS = ("1.29", "1.37")
# Megabytes requested for the agent, of which docs/kubernetes.md says that they do.
REQUESTED = "16Mi"


def read(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text())
    return document


@pytest.fixture(scope="module")
def kustomized() -> dict[str, dict[str, Any]]:
    """What `kubectl apply -k` would apply, by kind."""
    done = subprocess.run(["kubectl", "kustomize", DEPLOY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    documents = list(yaml.safe_load_all(done.stdout))
    kinds = {document["kind"]: document for document in documents}
    assert len(kinds) == len(documents)
    return kinds


def test_the_documentation_names_the_versions() -> None:
    assert VERSIONS[-1] == kubernetes_validate.latest_version().rpartition(".")[0]
    assert f"API schemas of {VERSIONS[0]} and {VERSIONS[1]}" in (places.ROOT / "docs/kubernetes.md").read_text()


@pytest.mark.parametrize("version", VERSIONS)
def test_the_manifests_are_of_the_schema(kustomized: dict[str, dict[str, Any]], version: str) -> None:
    files = [read("job.yaml"), read("service-account.yaml")]
    for document in [*files, *kustomized.values()]:
        kubernetes_validate.validate(document, version, strict=True)
    # It would tell.
    wrong = copy.deepcopy(files[0])
    wrong["spec"]["template"]["spec"]["initContainers"][0]["restartPolicyy"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, version, strict=True)


def test_the_kustomization_puts_images_and_nothing_else(kustomized: dict[str, dict[str, Any]]) -> None:
    names = {image["name"]: f"{image['newName']}:{image['newTag']}" for image in read("kustomization.yaml")["images"]}
    assert kustomized.keys() == {"ServiceAccount", "Job"}
    assert kustomized["ServiceAccount"] == read("service-account.yaml")
    job = read("job.yaml")
    for containers in ("initContainers", "containers"):
        for container in job["spec"]["template"]["spec"][containers]:
            container["image"] = names.pop(container["image"])
    assert kustomized["Job"] == job
    assert not names


@pytest.fixture
def entra(tmp_path: Path) -> Iterator[Doubles]:
    """Entra with the one application of the service account, and a federated credential for it."""
    client = read("service-account.yaml")["metadata"]["annotations"][CLIENT_ID]
    name = read("service-account.yaml")["metadata"]["name"]
    application = {
        "tenant_id": "33333333-3333-4333-8333-333333333333",
        "object_id": "44444444-4444-4444-8444-444444444444",
        "client_id": client,
        "kind": "application",
    }
    options = {"application": application, "assertion_subject": f"system:serviceaccount:default:{name}"}
    with Doubles(tmp_path / "doubles", {"entra": options}) as doubles:
        yield doubles


@pytest.fixture
def train(engine: Engine, environment: str, tmp_path: Path) -> str:
    """The image of the training: the environment with a program that is named as in the manifest."""
    shutil.copytree(TRAINING, tmp_path / "training")
    engine.do("build", "--quiet", "--tag", "train:test", "--build-arg", f"BASE={environment}", tmp_path / "training")
    return "train:test"


@pytest.fixture
def pod(engine: Engine, jobcred: str, train: str, tmp_path: Path) -> Iterator[Callable[[Identity | None], Pod]]:
    """Makes the test's one pod."""
    made: list[Pod] = []

    def make(identity: Identity | None) -> Pod:
        images = {"jobcred": jobcred, "train": train}
        pod = Pod(engine, read("job.yaml"), read("service-account.yaml"), images, tmp_path / "pod", identity)
        made.append(pod)
        return pod

    yield make
    engine.clear()
    for pod in made:
        pod.close()


def identity(doubles: Doubles) -> Identity:
    entra = doubles.ready["entra"]
    variables = {
        "AZURE_AUTHORITY_HOST": entra["authority"] + "/",
        "AZURE_TENANT_ID": entra["application"]["tenant_id"],
    }
    authorities = Path(doubles.ready["ca"])
    authorities.chmod(0o644)
    return Identity(variables, doubles.assertion(3600), authorities)


def test_the_training_has_tokens_until_after_its_signal_and_the_sidecar_ends_last(
    pod: Callable[[Identity | None], Pod], entra: Doubles
) -> None:
    here = pod(identity(entra))
    sidecar = here.start(here.sidecar)
    assert here.started_up(here.sidecar, sidecar), sidecar.output()
    # The declared token is there before the training is.
    assert len(entra.tokens()["entra"]) == 1

    training = here.start(here.training)
    training.until_said("trained")
    training.signal("TERM")
    assert training.wait() == 0, training.output()
    said = [json.loads(line) for line in training.output().splitlines()]
    assert [line["said"] for line in said] == ["start", "endpoint", "trained", "checkpoint"], said
    application = entra.ready["entra"]["application"]
    for line in said:
        assert (line["oid"], line["appid"]) == (application["object_id"], application["client_id"])
    # That one was asked for after the signal: it can be from nobody's memory.
    assert said[-1]["aud"] != said[0]["aud"]
    # What the training can not do.
    assert said[0]["cannot"] == ["read the assertion", "write to the volume", "see the agent's processes"]
    assert said[0]["azure"] == []

    # Told last, it ends at once and well, having fitted into what was requested for it.
    assert here.sidecar["resources"]["requests"]["memory"] == REQUESTED
    assert peak(sidecar.state["Pid"]) < 16 * 1024
    assert sidecar.state["Running"]
    sidecar.signal("TERM")
    assert sidecar.wait() == 0
    assert "still answering" not in sidecar.output()
    assert entra.leaks((training.output() + sidecar.output()).encode()) == []


def peak(pid: int) -> int:
    """The most memory a process has had, in KiB."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = [line for line in status if line.startswith("VmHWM")]
    return int(line.split()[1])


def test_until_a_token_can_be_had_the_training_is_not_started(
    pod: Callable[[Identity | None], Pod], entra: Doubles
) -> None:
    entra.order("/state", federated_credential_removed=True)
    here = pod(identity(entra))
    sidecar = here.start(here.sidecar)
    sidecar.until_said("AADSTS70021")
    command = here.sidecar["startupProbe"]["exec"]["command"]
    done = sidecar.run(*command)
    assert done.returncode != 0, done
    # It may be healed while it waits.
    assert sidecar.state["Running"]
    entra.order("/state", federated_credential_removed=False)
    assert here.started_up(here.sidecar, sidecar), sidecar.output()


def test_without_the_webhook_it_does_not_take_the_nodes_identity(pod: Callable[[Identity | None], Pod]) -> None:
    here = pod(None)
    sidecar = here.start(here.sidecar)
    assert sidecar.wait() == 121
    assert "Only when the node's identity is really meant" in sidecar.output()
