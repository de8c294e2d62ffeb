"""Finding the agent's program."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import jobcred
from jobcred import _binary


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Every kind of place, with nothing in it."""
    site = tmp_path / "env/lib/python3/site-packages"
    found = {
        "scripts": tmp_path / "scripts",
        "user": tmp_path / "user",
        "target": site / "bin",
        "prefix": tmp_path / "env/bin",
        "path": tmp_path / "path",
    }
    for place in found.values():
        place.mkdir(parents=True)

    def scheme(name: str, scheme: str = "") -> str:
        assert name == "scripts"
        return str(found["user" if scheme else "scripts"])

    monkeypatch.setattr(sysconfig, "get_path", scheme)
    monkeypatch.setattr(_binary, "__file__", str(site / "jobcred/_binary.py"))
    monkeypatch.setenv("PATH", f"{found['path']}:")
    return found


def put(directory: Path, mode: int = 0o755) -> str:
    path = directory / "jobcred"
    path.write_text('#!/bin/sh\necho "$@"\n')
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize("place", ["scripts", "user", "target", "prefix", "path"])
def test_it_is_found_wherever_installers_put_it(places: dict[str, Path], place: str) -> None:
    program = put(places[place])
    assert _binary.find() == program


def test_the_one_that_came_with_the_package_is_preferred(places: dict[str, Path]) -> None:
    put(places["path"])
    program = put(places["scripts"])
    assert _binary.find() == program


def test_neither_a_folder_nor_a_file_without_the_right_to_run(places: dict[str, Path]) -> None:
    (places["scripts"] / "jobcred").mkdir()
    put(places["user"], 0o644)
    program = put(places["path"])
    assert _binary.find() == program


def test_nothing_is_started_from_the_current_directory(
    places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path)
    monkeypatch.setenv("PATH", f":.:{places['path']}")
    with pytest.raises(jobcred.UnavailableError) as caught:
        _binary.find()
    for place in places.values():
        assert str(place) in str(caught.value)
    assert "docs/install.md" in str(caught.value)


def test_the_module_passes_its_arguments_on(tmp_path: Path) -> None:
    put(tmp_path)
    environment = {"PYTHONPATH": ":".join(sys.path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = [sys.executable, "-m", "jobcred", "run", "--", "a b"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "run -- a b\n", "")
