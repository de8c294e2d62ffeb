"""deploy/azureml: the files by Azure's own SDK, and every job's command in the environment."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

import places
from doubles import Doubles
from platforms import Platform, platform

if TYPE_CHECKING:
    from engine import Done, Engine

DEPLOY = places.ROOT / "deploy/azureml"
STAND_INS = Path(__file__).parent / "stand-ins"
# The environment of the SDK, which brings some ninety packages.
SDK = places.ROOT / ".tools/azureml/bin/python"
# Where each job is to run.
PLATFORMS = {
    "job.yml": "compute-identity",
    "job-torchrun.yml": "compute-identity",
    "job-processes.yml": "compute-identity",
    "job-user-identity.yml": "user-identity",
    "job-kubernetes.yml": "kubernetes-endpoint",
}
# What the platform sets for a job on several nodes.
NODE = {"NODE_RANK": "1", "MASTER_ADDR": "10.0.0.4", "MASTER_PORT": "6105"}


def job(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text())
    return document


def test_the_sdk_takes_every_file(tmp_path: Path) -> None:
    files = sorted(DEPLOY.glob("*.yml"))
    assert {file.name for file in files} == {*PLATFORMS, "environment.yml"}
    # It would tell.
    wrong = shutil.copytree(DEPLOY, tmp_path / "wrong") / "job.yml"
    wrong.write_text(wrong.read_text().replace("type: managed", "type: manged"))
    program = places.ROOT / "tests/containers/check_jobs.py"
    done = subprocess.run([SDK, program, *files, wrong], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *right, refused = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(right) == len(files)
    for found in right:
        expected = "Environment" if found["file"].endswith("environment.yml") else "Command"
        assert (found["type"], found["errors"]) == (expected, {}), found
    assert refused["errors"], refused


def test_every_job_has_its_environment() -> None:
    name = yaml.safe_load((DEPLOY / "environment.yml").read_text())["name"]
    for file in PLATFORMS:
        assert job(file)["environment"] == f"azureml:{name}@latest"


class Machine:
    """A node of a platform, with its doubles."""

    def __init__(self, engine: Engine, image: str, kind: Platform, doubles: Doubles, directory: Path) -> None:
        self._engine, self._image, self._directory = engine, image, directory
        self._variables = kind.environment(doubles, directory)
        if kind.name == "compute-identity":
            # What a cluster with a managed identity has.
            self._variables["DEFAULT_IDENTITY_CLIENT_ID"] = kind.principal(doubles.ready)["client_id"]

    def run(self, name: str, *, copies: int = 1) -> Done:
        """Runs the command of a job as the platform does: by a shell, in a copy of the code, with its variables."""
        document = job(name)
        shutil.copytree(DEPLOY / document["code"], self._directory / "code")
        variables = {**self._variables, **NODE, **document["environment_variables"]}
        options = [f"--env={key}={value}" for key, value in variables.items()]
        options += [f"--volume={self._directory / 'code'}:/job", "--workdir=/job"]
        options += [f"--volume={STAND_INS / 'torchrun'}:/usr/local/bin/torchrun:ro"]
        command = document["command"]
        if copies > 1:
            (self._directory / "code/command").write_text(command)
            command = f"for i in $(seq 0 {copies - 1}); do RANK=$i sh ./command & done; wait"
        return self._engine.run(self._image, "sh", "-c", command, options=tuple(options), network="host")


def ranks(done: Done, principal: dict[str, str]) -> list[int]:
    """Those that had a token of that principal."""
    found = re.findall(r"^rank (\d+): object id (\S+), \d+ min left$", done.stdout, re.MULTILINE)
    assert {whose for _, whose in found} == {principal["object_id"]}, done.stdout + done.stderr
    return sorted(int(rank) for rank, _ in found)


@pytest.mark.parametrize("name", PLATFORMS)
def test_the_command_of_every_job(engine: Engine, environment: str, name: str, tmp_path: Path) -> None:
    kind = platform(PLATFORMS[name])
    options = kind.config(3600)
    # Only the double of the endpoint is there: a loopback address serves it, and no container's metadata service does.
    del options["imds"]
    with Doubles(tmp_path / "doubles", options) as doubles:
        machine = Machine(engine, environment, kind, doubles, tmp_path)
        per_node = job(name).get("distribution", {}).get("process_count_per_instance", 1)
        done = machine.run(name, copies=per_node)
        assert done.returncode == 0, done.stderr
        expected = {"job-torchrun.yml": range(8, 16), "job-processes.yml": range(8)}.get(name, range(1))
        assert ranks(done, kind.principal(doubles.ready)) == list(expected)
        assert kind.strategy in done.stderr
        assert doubles.leaks((done.stdout + done.stderr).encode()) == []
        if name != "job-processes.yml":
            # However many processes there are.
            assert len(doubles.requests()[str(kind.endpoint)]) == 1


def test_without_the_user_the_job_that_requires_one_does_not_start(
    engine: Engine, environment: str, tmp_path: Path
) -> None:
    kind = platform("compute-identity")
    options = kind.config(3600)
    del options["imds"]
    with Doubles(tmp_path / "doubles", options) as doubles:
        done = Machine(engine, environment, kind, doubles, tmp_path).run("job-user-identity.yml")
        assert (done.returncode, done.stdout) == (121, ""), done.stderr
        assert doubles.requests()["msi"] == []
