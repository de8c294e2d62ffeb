"""The wheels: what is in them, and one of them installed and used."""

from __future__ import annotations

import calendar
import os
import re
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from places import DIST, REPOSITORY, run

PROGRAMS = {"jobcred", "docker-credential-jobcred"}
ASK = """
import jobcred
token = jobcred.JobCredential().get_token("https://storage.azure.com/.default")
print("parts:", len(token.token.split(".")))
"""


def install(venv: Path, wheel: Path, *options: str) -> None:
    done = run(
        venv / "bin/python", "-m", "pip", "install", "--no-index", "--disable-pip-version-check", *options, wheel
    )
    assert done.returncode == 0, done.stderr


def read(wheel: Path, ending: str) -> str:
    with zipfile.ZipFile(wheel) as packed:
        (name,) = [name for name in packed.namelist() if name.endswith(ending)]
        return packed.read(name).decode()


def files(directory: Path) -> set[str]:
    """Every file and link, but for what Python compiles as it goes."""
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if "__pycache__" not in path.parts}


def test_the_tags_say_what_the_programs_need(wheel: Path, pure_wheel: Path) -> None:
    machine = os.uname().machine
    tags = set(re.findall("^Tag: (.*)$", read(wheel, ".dist-info/WHEEL"), re.MULTILINE))
    platforms = ("manylinux2014", "manylinux_2_17", "musllinux_1_1")
    assert tags == {f"py3-none-{platform}_{machine}" for platform in platforms}
    assert "Root-Is-Purelib: false" in read(wheel, ".dist-info/WHEEL")
    assert "Tag: py3-none-any" in read(pure_wheel, ".dist-info/WHEEL")
    with zipfile.ZipFile(pure_wheel) as packed:
        assert not [name for name in packed.namelist() if ".data/" in name]


def test_the_programs_in_it_are_static_and_may_be_run(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        scripts = {entry for entry in packed.infolist() if ".data/scripts/" in entry.filename}
        assert {Path(entry.filename).name for entry in scripts} == PROGRAMS
        for entry in scripts:
            assert entry.external_attr >> 16 & 0o111 == 0o111, entry.filename
            # Nothing of the machine that built them.
            assert str(Path.home() / ".cargo").encode() not in packed.read(entry)
            assert str(REPOSITORY).encode() not in packed.read(entry)


def test_it_says_what_it_is_and_whose_work_is_in_it(wheel: Path) -> None:
    text = read(wheel, ".dist-info/METADATA")
    for line in ("Name: jobcred", "License-Expression: MIT", "License-File: LICENSE", "Requires-Python: >=3.9"):
        assert f"\n{line}\n" in text
    assert "Requires-Dist" not in text.replace("; extra == 'test'\n", "").partition("Provides-Extra")[0]
    # The long description: somebody reads it before there is anything else to read.
    assert "pip install jobcred" in text
    assert "Permission is hereby granted" in read(wheel, ".dist-info/licenses/LICENSE")
    notices = read(wheel, "THIRD-PARTY-LICENSES")
    for name in ("tokio", "rustls", "ring", "GNU C Library"):
        assert name in notices


def test_building_it_again_gives_the_same_bytes(wheel: Path, pure_wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        for name in packed.namelist():
            # In the zone of UTC, whatever the builder's.
            epoch = calendar.timegm((*packed.getinfo(name).date_time, 0, 0, 0))
            if ".data/scripts/" in name:
                (tmp_path / Path(name).name).write_bytes(packed.read(name))
                (tmp_path / Path(name).name).chmod(0o755)
    (tmp_path / "THIRD-PARTY-LICENSES").write_text(read(wheel, "THIRD-PARTY-LICENSES"))
    for original, variables in ((wheel, {"JOBCRED_BINARIES": str(tmp_path)}), (pure_wheel, {})):
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "again")]
        done = run(*command, cwd=REPOSITORY / "python-shim", SOURCE_DATE_EPOCH=str(epoch), **variables)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "again" / original.name).read_bytes() == original.read_bytes()


def test_a_program_that_needs_its_host_is_refused(tmp_path: Path) -> None:
    for name in PROGRAMS:
        shutil.copy("/bin/true", tmp_path / name)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "out")]
    done = run(*command, cwd=REPOSITORY / "python-shim", JOBCRED_BINARIES=str(tmp_path))
    assert done.returncode != 0
    assert "wants a dynamic loader" in done.stderr


def test_installed_in_a_clean_environment_it_works_and_leaves_nothing(venv: Path, wheel: Path) -> None:
    before = files(venv)
    install(venv, wheel)
    programs = venv / "bin"
    path = f"{programs}:/usr/bin:/bin"

    done = run("jobcred", "run", "--sandbox", "--", "python", "-c", ASK, PATH=path)
    assert (done.returncode, done.stdout) == (0, "parts: 3\n"), done.stderr
    version = wheel.name.split("-")[1]
    assert run("jobcred", "--version", PATH=path).stdout == f"jobcred {version}\n"
    done = run("docker-credential-jobcred", "list", PATH=path)
    assert (done.returncode, done.stdout.strip()) == (0, "{}"), done.stderr
    # Found without PATH, as a notebook's kernel has to.
    done = run(programs / "python", "-m", "jobcred", "--version", PATH="/nowhere")
    assert done.stdout == f"jobcred {version}\n", done.stderr
    shown = run(programs / "python", "-m", "pip", "show", "--files", "jobcred").stdout
    for part in (
        f"Version: {version}",
        "Summary: Azure tokens",
        "bin/jobcred",
        "Requires: \n",
    ):
        assert part in shown

    done = run(programs / "python", "-m", "pip", "uninstall", "--yes", "jobcred")
    assert done.returncode == 0, done.stderr
    assert files(venv) == before


def test_installed_into_a_directory_its_program_is_found(venv: Path, wheel: Path, tmp_path: Path) -> None:
    install(venv, wheel, "--target", str(tmp_path / "target"))
    done = run(venv / "bin/python", "-m", "jobcred", "--version", PYTHONPATH=str(tmp_path / "target"), PATH="/nowhere")
    assert done.stdout.startswith("jobcred "), done.stderr


def test_without_the_programs_the_package_says_so(venv: Path, pure_wheel: Path) -> None:
    install(venv, pure_wheel)
    done = run(venv / "bin/python", "-m", "jobcred", "explain", PATH="/nowhere")
    assert done.returncode == 1
    assert done.stderr.startswith("There is no program jobcred in ")
    done = run(venv / "bin/python", "-c", ASK, PATH="/nowhere")
    assert "jobcred._errors.AgentNotFoundError" in done.stderr


@pytest.mark.parametrize("pattern", ["*.whl", "*.tar.gz"])
def test_the_checksums_are_of_what_is_there(pattern: str) -> None:
    done = run("sha256sum", "--check", "--strict", "SHA256SUMS", cwd=DIST)
    assert done.returncode == 0, done.stdout
    for path in DIST.glob(pattern):
        assert f"{path.name}: OK" in done.stdout
