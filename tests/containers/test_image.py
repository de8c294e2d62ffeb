"""The image: what is in it, and what it says of itself."""

from __future__ import annotations

import io
import json
import re
import stat
import tarfile
from typing import TYPE_CHECKING

import places

if TYPE_CHECKING:
    from pathlib import Path

    from engine import Engine

# The promise of docs/containers.md, in bytes.
LARGEST = 12_000_000
PROGRAM, FOLDER = 0o555, 0o755
CONTENTS = {
    "jobcred": PROGRAM,
    "docker-credential-jobcred": PROGRAM,
    "etc": FOLDER,
    "etc/ssl": FOLDER,
    "etc/ssl/certs": FOLDER,
    "etc/ssl/certs/ca-certificates.crt": 0o644,
    "run": FOLDER,
    # For every user to make a directory of their own in.
    "run/jobcred": 0o1777,
}


def test_nothing_is_in_it_but_the_programs_the_roots_and_the_folder(
    engine: Engine, jobcred: str, tmp_path: Path
) -> None:
    found: dict[str, int] = {}
    # As the engine would give it away: its layers, with nothing of what it adds when it runs one.
    engine.do("save", "--output", tmp_path / "image.tar", jobcred)
    with tarfile.open(tmp_path / "image.tar") as image:

        def read(name: str) -> bytes:
            packed = image.extractfile(name)
            assert packed is not None
            return packed.read()

        (manifest,) = json.loads(read("manifest.json"))
        for name in manifest["Layers"]:
            with tarfile.open(fileobj=io.BytesIO(read(name))) as layer:
                for member in layer:
                    assert (member.uid, member.gid) == (0, 0), member.name
                    found[member.name.rstrip("/")] = stat.S_IMODE(member.mode)
    assert found == CONTENTS


def test_it_is_small(engine: Engine, jobcred: str) -> None:
    size = engine.inspect(jobcred)["Size"]
    print(f"the image has {size} bytes")  # noqa: T201 # for whoever writes it down
    assert size <= LARGEST


def test_it_says_what_to_run_and_as_whom(engine: Engine, jobcred: str) -> None:
    config = engine.inspect(jobcred)["Config"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["/jobcred"]
    assert config["Cmd"] == ["agent"]
    assert "JOBCRED_SOCKET=/run/jobcred/agent/agent.sock" in config["Env"]
    assert config["Healthcheck"]["Test"] == ["CMD", "/jobcred", "health"]
    version = re.findall('^version = "(.*)"$', (places.ROOT / "Cargo.toml").read_text(), re.MULTILINE)[0]
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in config["Labels"].items()}
    assert labels["title"] == "jobcred"
    assert labels["licenses"] == "MIT"
    assert labels["version"] == version
    assert engine.run(jobcred, "--version").stdout == f"jobcred {version}\n"


def test_there_is_no_shell(engine: Engine, jobcred: str) -> None:
    done = engine.run(jobcred, "-c", "true", options=("--entrypoint", "/bin/sh"))
    assert done.returncode == 127, done


def test_the_docker_helper_is_in_it(engine: Engine, jobcred: str) -> None:
    done = engine.run(jobcred, "list", options=("--entrypoint", "/docker-credential-jobcred"))
    assert (done.returncode, done.stdout.strip()) == (0, "{}"), done.stderr
