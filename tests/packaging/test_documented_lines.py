"""The commands of docs/install.md, in an old distribution."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

from places import DIST, REPOSITORY, Root

if TYPE_CHECKING:
    from collections.abc import Callable

VENV = "python3 -m venv /venv && . /venv/bin/activate"


def blocks() -> list[str]:
    page = (REPOSITORY / "docs/install.md").read_text()
    return re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def test_k2_the_documented_lines_install_the_programs(root: Callable[[str], Root]) -> None:
    old = root("bullseye")
    shutil.copytree(DIST, old.path / "dist")
    wheel, archive = blocks()
    for name, text in {"wheel": f"{VENV}\n{wheel}", "archive": archive}.items():
        done = old.run("sh", "-ec", f"{text}\ncd /\njobcred --version\ndocker-credential-jobcred list")
        assert done.returncode == 0, f"{name}: {done.stderr}"
        assert "jobcred " in done.stdout
    done = old.run("sh", "-ec", ". /venv/bin/activate; pip uninstall --yes jobcred; ! test -e /venv/bin/jobcred")
    assert done.returncode == 0, done.stderr
