"""Where the programs under test and the programs they are tested with are."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
JOBS = Path(__file__).resolve().parent / "jobs"
PYTHON_PACKAGE = ROOT / "python-shim" / "src"


def built_folder() -> str:
    """Where the programs under test are."""
    return _folders()[0]


def _folders() -> list[str]:
    """Where the workspace's programs are: the folders of `JOBCRED_TARGET_DIR` in turn, else the release build."""
    return (os.environ.get("JOBCRED_TARGET_DIR") or str(ROOT / "target" / "release")).split(":")


def built(name: str) -> str:
    """A program of this workspace."""
    for folder in _folders():
        path = Path(folder) / name
        if path.is_file():
            return str(path)
    raise FileNotFoundError(f"{name} is not built: run `make test-clients`, or set JOBCRED_TARGET_DIR")


def azurite() -> str:
    """The storage emulator: `JOBCRED_AZURITE` if that is set, else what `tests/setup clients` installed."""
    path = Path(
        os.environ.get("JOBCRED_AZURITE") or ROOT / ".tools" / "node" / "node_modules" / ".bin" / "azurite-blob"
    )
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there: run `tests/setup clients`")
    return str(path)


def installed(name: str, inside: str) -> str:
    """What `tests/setup clients` put into `.tools/NAME`."""
    path = ROOT / ".tools" / name / inside
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there: run `tests/setup clients`")
    return str(path)


def crates() -> str:
    """The program of `tests/clients/rust`: `JOBCRED_RUST_SDKS` if that is set, else what `make test-clients` built."""
    path = Path(os.environ.get("JOBCRED_RUST_SDKS") or ROOT / "target" / "sdks" / "debug" / "unmodified-sdks")
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not built: run `make test-clients`, or set JOBCRED_RUST_SDKS")
    return str(path)


def system(name: str) -> str:
    """A program of the system."""
    path = shutil.which(name)
    if path is None:
        raise FileNotFoundError(f"{name} is not installed: run `tests/setup clients`")
    return path
