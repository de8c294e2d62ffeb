"""What a situation is: a function that makes a Job, sees what happens, and says it in a line."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from job import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cluster import Cluster

# All of them, in the order of their modules.
SITUATIONS: dict[str, Callable[[Scene], str]] = {}


def situation(function: Callable[[Scene], str]) -> Callable[[Scene], str]:
    """Registers a function that asserts, and returns what it saw."""
    SITUATIONS[function.__name__] = function
    return function


class Turn:
    """Several situations go on at the same time. One that changes what others see waits until it is alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._others = 0
        self._alone = False

    def _enter(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._others += 1

    def _leave(self) -> None:
        with self._changed:
            self._others -= 1
            self._changed.notify_all()

    @contextmanager
    def shared(self) -> Iterator[None]:
        self._enter()
        try:
            yield
        finally:
            self._leave()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Within `shared`."""
        self._leave()
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._alone = True
            self._changed.wait_for(lambda: self._others == 0)
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._others += 1
                self._changed.notify_all()


@dataclass(frozen=True)
class Scene:
    """What a situation has."""

    cluster: Cluster
    name: str
    manifest: Path
    turn: Turn

    def job(self, *, webhook: bool = True) -> Job:
        return Job(self.cluster, self.manifest, self.name, webhook=webhook)

    @property
    def own(self) -> str:
        """The object id of the Job's identity."""
        return self.cluster.application["object_id"]
