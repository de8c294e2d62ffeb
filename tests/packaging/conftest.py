"""What is released, and places to use it in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from places import DIST, ROOTS, Root

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="session", autouse=True)
def _isolated() -> None:
    """Nothing is started where it could reach somebody else."""
    if os.environ.get("JOBCRED_ISOLATED") != "1":
        pytest.fail("run this under tests/isolated: what is tested may ask identity endpoints", pytrace=False)


def one(pattern: str) -> Path:
    """The one file of that kind in dist/."""
    (found,) = DIST.glob(pattern)
    return found


@pytest.fixture(scope="session")
def wheel() -> Path:
    """The wheel with the programs."""
    return one("jobcred-*-py3-none-*linux*.whl")


@pytest.fixture(scope="session")
def pure_wheel() -> Path:
    """The wheel for all other platforms."""
    return one("jobcred-*-py3-none-any.whl")


@pytest.fixture(scope="session")
def archive() -> Path:
    """The archive of the programs."""
    return one("jobcred-*-linux-*.tar.gz")


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """A clean environment of Python, with pip and nothing else."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    return tmp_path / "venv"


@pytest.fixture
def root(tmp_path: Path) -> Callable[[str], Root]:
    """Opens an old distribution, or with "empty" a root with nothing in it."""

    def enter(name: str) -> Root:
        root = Root(tmp_path / name)
        if name == "empty":
            root.furnish()
        else:
            root.lay_over(ROOTS / name, tmp_path)
        return root

    return enter
