"""The package as a whole: what importing it costs, what it exports, its types, its command line."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import jobcred
from fake_agent import SECRET, FakeAgent, reply
from jobcred import aio

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parent.parent


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env: Mapping[str, str] = {"PYTHONPATH": ":".join(sys.path), **environment}
    return subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True, check=False)


def test_a_first_token_imports_nothing_slow(agent: FakeAgent) -> None:
    program = (
        "import sys; before = set(sys.modules); import jobcred\n"
        "jobcred.JobCredential().get_token('https://storage.azure.com/.default')\n"
        "jobcred.registry_credential('r.azurecr.io')\n"
        "print(' '.join(sorted(name.split('.')[0] for name in set(sys.modules) - before)))"
    )
    done = python("-S", "-c", program, JOBCRED_SOCKET=agent.path)
    assert done.returncode == 0, done.stderr
    imported = set(done.stdout.split())
    slow = {
        "azure",
        "asyncio",
        "http",
        "urllib",
        "email",
        "ssl",
        "socket",
        "select",
        "selectors",
        "typing",
        "threading",
    }
    slow |= {"logging", "dataclasses", "inspect", "contextlib", "subprocess", "tempfile", "pathlib", "concurrent"}
    assert imported & slow == set()
    assert {"jobcred", "json"} <= imported


def test_exported_names() -> None:
    public = {name for name in vars(jobcred) if not name.startswith("_")}
    assert public - {"aio"} == set(jobcred.__all__)
    assert jobcred.__all__ == sorted(jobcred.__all__)
    assert aio.__all__ == ["JobCredential"]


def test_the_version_is_the_same_everywhere() -> None:
    assert f'\nversion = "{jobcred.__version__}"\n' in (ROOT / "pyproject.toml").read_text()


def test_every_error_is_exported_and_explained() -> None:
    readme = (ROOT / "README.md").read_text()
    kinds = {jobcred.JobCredentialError}
    while (
        more := {sub for kind in kinds for sub in kind.__subclasses__() if sub.__module__ == "jobcred._errors"} - kinds
    ):
        kinds |= more
    for name in {kind.__name__ for kind in kinds}:
        assert name in jobcred.__all__
        assert f"`{name}`" in readme


def test_static_types() -> None:
    """The type checker, with azure-core and azure-identity at hand: without them it would see nothing."""
    assert find_spec("azure.core")
    assert find_spec("azure.identity")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "tests/conformance.py"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_type_checker_would_notice(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "from azure.core.credentials import SupportsTokenInfo\nfrom jobcred import aio\n"
        "wanted: SupportsTokenInfo = aio.JobCredential()\n"
    )
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", str(wrong)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Incompatible types in assignment" in done.stdout


STATUS = {
    "version": "1.2.3",
    "strategy": "compute-identity",
    "ready": True,
    "principal": {"object_id": "oid-1", "app_id": None},
    "tokens": [
        {"kind": "token", "identity": "default", "resource": "https://storage.azure.com/", "expires_on": 9**11},
        {"kind": "registry", "identity": "default", "resource": "r.azurecr.io"},
        7,
    ],
}


def test_the_command_line(agent: FakeAgent) -> None:
    agent.answer = lambda request: reply(200, STATUS) if request.path == "/v1/status" else None
    done = python("-m", "jobcred", JOBCRED_SOCKET=agent.path)
    assert (done.returncode, done.stderr) == (0, "")
    for part in ("1.2.3", agent.path, "compute-identity", "object_id oid-1", "s left", "none yet"):
        assert part in done.stdout
    assert SECRET not in done.stdout


@pytest.mark.parametrize("place", ["nowhere", "agent"])
def test_the_command_line_without_an_agent(agent: FakeAgent, place: str) -> None:
    agent.fail(500, "internal")
    done = python("-m", "jobcred", JOBCRED_SOCKET=agent.path if place == "agent" else "/nowhere")
    assert (done.returncode, done.stdout) == (1, "")
    assert ("told internal" if place == "agent" else "No jobcred agent answers") in done.stderr
    assert "Traceback" not in done.stderr
