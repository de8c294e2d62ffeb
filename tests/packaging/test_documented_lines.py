"""The documented commands that install the wheel and the archive, in an old distribution."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from commands import run_by
from places import DIST, Root

if TYPE_CHECKING:
    from collections.abc import Callable

VENV = "python3 -m venv /venv && . /venv/bin/activate"


def test_k2_the_documented_lines_install_the_programs(root: Callable[[str], Root]) -> None:
    old = root("bullseye")
    shutil.copytree(DIST, old.path / "dist")
    wheel, uninstall, *archive = run_by("packaging")
    for name, lines in {"wheel": [VENV, wheel], "archive": archive}.items():
        text = "\n".join([*lines, "cd /", "jobcred --version", "docker-credential-jobcred list"])
        done = old.run("sh", "-ec", text)
        assert done.returncode == 0, f"{name}: {done.stderr}"
        assert "jobcred " in done.stdout
    text = f". /venv/bin/activate; test -e /venv/bin/jobcred; {uninstall}; ! test -e /venv/bin/jobcred"
    # It asks. This says yes.
    done = old.run("sh", "-ec", text, PIP_YES="1")
    assert done.returncode == 0, done.stderr
