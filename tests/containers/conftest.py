"""What the tests share: an engine, and the images."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import images
import places
import smoke
from engine import Engine
from images import Builder

if TYPE_CHECKING:
    from collections.abc import Iterator


# The image, and the pod of the example Job.
SMOKE = (
    "test_image.py::test_nothing_is_in_it_but_the_programs_the_roots_and_the_folder",
    "test_kubernetes.py::test_the_training_has_tokens_until_after_its_signal_and_the_sidecar_ends_last",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    smoke.mark(config, items, SMOKE)


@pytest.fixture(scope="session", autouse=True)
def _isolated() -> None:
    """Nothing is started where it could reach somebody else."""
    if os.environ.get("JOBCRED_ISOLATED") != "1":
        pytest.fail("run this under tests/isolated: what is tested may ask identity endpoints", pytrace=False)
    if os.geteuid() != 0:
        pytest.fail("run this as root: an engine that runs containers as any user needs it", pytrace=False)


@pytest.fixture(scope="session")
def store(_isolated: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where images and containers are kept: in memory, and gone with the namespace, however the tests end."""
    directory = tmp_path_factory.mktemp("store")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=711", "store", directory], check=True)
    return directory


@pytest.fixture(scope="session")
def builder(store: Path) -> Builder:
    """What builds images."""
    return Builder(store / "builder")


@pytest.fixture(scope="session")
def daemon(store: Path) -> Iterator[Engine]:
    """The one engine."""
    engine = Engine(store / "engine")
    yield engine
    engine.clear()
    engine.close()


@pytest.fixture
def engine(daemon: Engine) -> Iterator[Engine]:
    """The engine, without anything of another test."""
    yield daemon
    daemon.clear()


@pytest.fixture(scope="session")
def jobcred(builder: Builder, daemon: Engine) -> str:
    """The image of this project."""
    image = images.build_jobcred(builder)
    builder.hand_over(image, daemon)
    return image


@pytest.fixture(scope="session")
def environment(builder: Builder, daemon: Engine, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image of deploy/azureml: Python, and the wheel."""
    (wheel,) = Path(os.environ.get("JOBCRED_DIST") or places.ROOT / "dist").glob("jobcred-*-py3-none-*linux*.whl")
    image = images.build_environment(builder, wheel, tmp_path_factory.mktemp("environment"))
    builder.hand_over(image, daemon)
    return image
