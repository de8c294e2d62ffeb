from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from fake_agent import FakeAgent
from jobcred import _agent, _connection, aio
from twins import AsyncTwin, SyncTwin

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that knows no agent, and an environment that names none."""
    for name in ("JOBCRED_SOCKET", "JOBCRED_AGENT_UID", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(_agent, "_agents", {})


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[FakeAgent]:
    fake = FakeAgent(tmp_path / "agent.sock").start()
    yield fake
    fake.gate.set()
    fake.stop()


@pytest.fixture(params=[SyncTwin, AsyncTwin], ids=lambda twin: twin.name)
def twin(request: pytest.FixtureRequest, agent: FakeAgent) -> SyncTwin:
    kind: type[SyncTwin] = request.param
    return kind(agent.path)


class Clock:
    """The package's wall and monotonic clock, moved by hand."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self.ahead_monotonic = 0.0

    def time(self) -> float:
        return time.time() + self.ahead

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_monotonic

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def advance(self, seconds: float) -> None:
        self.ahead += seconds
        self.ahead_monotonic += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    moved = Clock()
    for module in (_agent, _connection, aio):
        monkeypatch.setattr(module, "time", moved)
    return moved
