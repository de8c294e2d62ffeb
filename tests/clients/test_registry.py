"""skopeo pushes and pulls by the docker credential helper."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import pytest

import places
from isolation import REGISTRY
from platforms import platform
from registry import make_image, registry_behind, use_helper
from scene import Finished, Scene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NULL_GUID = "00000000-0000-0000-0000-000000000000"
ACR, ARM = "https://containerregistry.azure.net", "https://management.azure.com"
REPOSITORY = f"docker://{REGISTRY}/team/app"


class Shop:
    """A job on a compute cluster, and a registry that it may use."""

    def __init__(self, machine: Scene) -> None:
        self.machine = machine
        self.platform = platform("compute-identity")
        self.skopeo = [places.system("skopeo"), "--insecure-policy"]
        use_helper(machine.directory)

    def environment(self) -> dict[str, str]:
        return self.platform.environment(self.machine.doubles, self.machine.directory)

    def job(self, *script: str, **variables: str) -> Finished:
        """Runs the lines of a shell script as a job."""
        text = "\n".join(["set -eu", *script])
        return self.machine.job(["sh", "-c", text], self.environment() | variables)

    def skopeo_line(self, *arguments: str) -> str:
        return " ".join([*self.skopeo, *arguments])

    def asked(self, endpoint: str, path: str) -> list[dict[str, Any]]:
        return [request for request in self.machine.doubles.requests()[endpoint] if request["path"] == path]

    def audiences(self) -> list[str]:
        """What tokens were asked for upstream, in order."""
        return [parse_qs(request["query"])["resource"][0] for request in self.asked("msi", "/MSI/auth")]


@pytest.fixture
def shop(scene: Callable[..., Scene], request: pytest.FixtureRequest) -> Iterator[Shop]:
    config = platform("compute-identity").config(3600)
    config["acr"] = {"bind": "127.0.0.1:443", "login_server": REGISTRY}
    config["azure_ml"].update(getattr(request, "param", {}))
    machine = scene(config)
    with registry_behind(machine.doubles, machine.directory / "registry"):
        yield Shop(machine)


NO_ACR_AUDIENCE = pytest.mark.parametrize(
    "shop", [{"refused_resources": [ACR]}], indirect=True, ids=["no-acr-audience"]
)


def test_skopeo_pushes_lists_and_pulls_with_one_exchange(shop: Shop) -> None:
    image = make_image(shop.machine.directory)

    done = shop.job(
        shop.skopeo_line("copy", image, f"{REPOSITORY}:1"),
        shop.skopeo_line("list-tags", REPOSITORY),
        shop.skopeo_line("copy", f"{REPOSITORY}:1", "oci:pulled:1"),
    )

    assert done.status == 0, str(done)
    assert '"1"' in done.stdout.split('"Tags"')[1], str(done)
    blobs = "blobs/sha256"
    names = {file.name for file in (shop.machine.directory / "pulled" / blobs).iterdir()}
    pushed = json.loads((shop.machine.directory / "image" / "index.json").read_text())["manifests"][-1]["digest"]
    assert pushed.removeprefix("sha256:") in names
    (exchange,) = shop.asked("acr", "/oauth2/exchange")
    form = {name: values[0] for name, values in parse_qs(exchange["body"]).items()}
    assert (form["grant_type"], form["service"]) == ("access_token", REGISTRY)
    assert shop.audiences() == [ACR]
    tokens = shop.asked("acr", "/oauth2/token")
    assert len(tokens) >= 3, tokens
    for asked in tokens:
        assert parse_qs(asked["query"])["account"] == [NULL_GUID]
        basic = dict(asked["headers"])["authorization"].removeprefix("Basic ")
        assert base64.b64decode(basic).decode().split(":")[0] == NULL_GUID
    issued = shop.machine.doubles.tokens()
    owner = shop.platform.principal(shop.machine.doubles.ready)
    assert [token["principal"] for token in issued["azure_ml"]] == [owner]


def test_without_credentials_the_registry_refuses(shop: Shop) -> None:
    done = shop.job(shop.skopeo_line("list-tags", "--no-creds", REPOSITORY))

    assert done.status != 0
    assert "authentication required" in done.stderr, str(done)
    assert shop.asked("acr", "/oauth2/exchange") == []


def test_without_an_agent_the_tool_is_told_why(shop: Shop) -> None:
    command = [*shop.skopeo, "list-tags", REPOSITORY]

    done = shop.machine.run(command, shop.machine.environment(shop.environment()))

    assert done.status != 0
    assert "jobcred run" in done.stderr, str(done)
    assert shop.machine.doubles.requests()["acr"] == []


def test_erase_drops_the_credential(shop: Shop) -> None:
    image = make_image(shop.machine.directory)
    helper = places.built("docker-credential-jobcred")

    done = shop.job(
        shop.skopeo_line("copy", image, f"{REPOSITORY}:1"),
        f"{helper} list",
        f"printf %s {REGISTRY} | {helper} erase",
        f"{helper} list",
        shop.skopeo_line("list-tags", REPOSITORY),
    )

    assert done.status == 0, str(done)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{") and line.endswith("}")]
    assert [json.loads(line) for line in lines] == [{REGISTRY: NULL_GUID}, {}], str(done)
    assert len(shop.asked("acr", "/oauth2/exchange")) == 2
    # The credential was dropped, not the token it was made from.
    assert shop.audiences() == [ACR]


@NO_ACR_AUDIENCE
def test_where_the_registry_audience_cannot_be_had_arm_serves_and_that_is_logged(shop: Shop) -> None:
    image = make_image(shop.machine.directory)

    done = shop.job(
        shop.skopeo_line("copy", image, f"{REPOSITORY}:1"),
        shop.skopeo_line("list-tags", REPOSITORY),
    )

    assert done.status == 0, str(done)
    assert shop.audiences()[0] == ACR
    assert shop.audiences()[-1].rstrip("/") == ARM
    assert len(shop.asked("acr", "/oauth2/exchange")) == 1
    warnings = [line for line in done.stderr.splitlines() if "WARN" in line and "Azure Resource Manager" in line]
    assert len(warnings) == 1, str(done)
    assert REGISTRY in warnings[0]


@NO_ACR_AUDIENCE
def test_the_fallback_can_be_forbidden(shop: Shop) -> None:
    done = shop.job(shop.skopeo_line("list-tags", REPOSITORY), JOBCRED_REGISTRY_ARM_FALLBACK="false")

    assert done.status != 0
    assert "registry_arm_fallback" in done.stderr, str(done)
    assert set(shop.audiences()) == {ACR}
    assert shop.machine.doubles.requests()["acr"] == []
