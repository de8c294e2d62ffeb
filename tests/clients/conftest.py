"""What the tests share: the storage of the session, and the scene of a test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import isolation
from azurite import Azurite
from doubles import Doubles
from results import Results
from scene import Scene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Any


@pytest.fixture(scope="session", autouse=True)
def _isolated() -> None:
    """Nothing is started where it could reach somebody else."""
    reason = isolation.why_not()
    if reason is not None:
        pytest.fail(reason, pytrace=False)


@pytest.fixture(scope="session")
def azurite(_isolated: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    directory = tmp_path_factory.mktemp("azurite")
    # For its certificates alone.
    with Doubles(directory, {}) as certificates:
        ready = certificates.ready
        with Azurite(directory, certificate=ready["certificate"], key=ready["key"], ca=ready["ca"]) as server:
            yield server


@pytest.fixture(scope="session")
def results() -> Results:
    """What the tests of this session found out about clients."""
    return Results()


@pytest.fixture
def scene(_isolated: None, tmp_path: Path) -> Iterator[Callable[[dict[str, Any], Azurite | None], Scene]]:
    """Makes the test's one scene from the options of its doubles."""
    started: list[Doubles] = []

    def make(config: dict[str, Any], storage: Azurite | None = None) -> Scene:
        doubles = Doubles(tmp_path / "doubles", config)
        started.append(doubles)
        return Scene(tmp_path, doubles, storage)

    yield make
    for doubles in started:
        doubles.__exit__(None, None, None)
