"""An upstream that flaps: whenever a token is about to be renewed, the endpoint is in trouble for seconds."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import cycle
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from typing_extensions import Self

    from doubles import Doubles

# The arithmetic of a stretch. A token of 60 s is renewed at three quarters of its life, less a twentieth to a tenth of
# that: 40.5 s to 42.75 s after it came, so with 17.25 s left at the least. What meets an agent then:
#
# - A try that fails at once (connection reset, 503, 429 with two seconds of Retry-After). The agent tries again after
#   pauses of 0.8, 1.6, 3.2 s (2, 2, 3.2 with Retry-After), each by a quarter longer at most. The stretch ends
#   STRETCH_SECONDS after the first try met it, so the third or fourth try, 8 s after the first at the latest, finds the
#   endpoint well: 9 s are left.
# - A try that hangs. The agent gives it up after 10 s, by when the stretch is over, and tries again within a second:
#   6 s are left.
# - A slow answer is later than others, and that is all.
#
# Each of these is over before the next begins, as one begins only while no token is so old that its renewal may be
# under way. So an agent that renews in time, tries again and serves what it holds meanwhile always has a token with 6 s
# left or more.
LIFETIME_SECONDS = 60
STRETCH_SECONDS = 3.5
# The ages, in seconds, of the oldest token between which a stretch may begin.
BEGINS_FROM, BEGINS_UNTIL = 36, 40
LOOK_SECONDS = 0.2

TROUBLES: dict[str, dict[str, Any]] = {
    "reset": {"on_connect": "reset"},
    "503": {"default": {"kind": "status", "status": 503}},
    "slow": {"default": {"kind": "delay", "ms": 2000}},
    "429": {"default": {"kind": "status", "status": 429, "retry_after": "2"}},
    "hang": {"default": {"kind": "hang"}},
}


@dataclass
class Stretch:
    """Seconds of trouble."""

    trouble: str
    # The audiences that were asked for while it lasted; a connection that was reset says none.
    met: set[str] = field(default_factory=set)
    # How long it lasted from the first try that met it on.
    lasted: float = 0


class Weather:
    """Watches one endpoint for as long as the block lasts, and troubles it once `audiences` tokens are in use."""

    def __init__(self, doubles: Doubles, endpoint: str, audiences: int) -> None:
        self.stretches: list[Stretch] = []
        # Two requests for one audience that were being answered at the same time.
        self.doubled: set[tuple[int, ...]] = set()
        self.longest_look: float = 0
        self._doubles = doubles
        self._endpoint = endpoint
        self._audiences = audiences
        self._under_way: set[tuple[int, ...]] = set()
        self._over = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def __str__(self) -> str:
        stretches = ", ".join(f"{stretch.trouble} {stretch.lasted:.1f} s" for stretch in self.stretches)
        return f"trouble upstream: {stretches}; the longest time between two looks: {self.longest_look:.1f} s"

    def _run(self) -> None:
        try:
            troubles = cycle(TROUBLES)
            while self._look() is not None:
                ages = self._ages
                if len(ages) == self._audiences and BEGINS_FROM <= max(ages.values()) < BEGINS_UNTIL:
                    self._trouble(next(troubles))
        except Exception as error:  # raised where the block ends
            self._error = error

    def _trouble(self, name: str) -> None:
        stretch = Stretch(name)
        before = self._record
        known = len(before["requests"])
        self._doubles.order("/script", endpoint=self._endpoint, **TROUBLES[name])
        began = None
        while self._look() is not None:
            stretch.met |= {_audience(request) for request in self._record["requests"][known:]}
            if began is None and self._record["connections"] > before["connections"]:
                began = time.monotonic()
            if began is not None and time.monotonic() - began >= STRETCH_SECONDS:
                break
        self._doubles.order("/script", endpoint=self._endpoint, clear=True)
        if began is not None:
            stretch.lasted = time.monotonic() - began
            self.stretches.append(stretch)

    def _look(self) -> dict[str, Any] | None:
        """The record after a short while; nothing when it is over."""
        since = time.monotonic()
        if self._over.wait(LOOK_SECONDS):
            return None
        self._record = self._doubles.record(self._endpoint)
        self.longest_look = max(self.longest_look, time.monotonic() - since)
        self._note_doubled()
        return self._record

    @property
    def _ages(self) -> dict[str, float]:
        """How many seconds ago the last token of each audience was asked for, where it was given."""
        given = [request for request in self._record["requests"] if is_success(request)]
        return {_audience(request): time.time() - request["received_ms"] / 1000 for request in given}

    def _note_doubled(self) -> None:
        """Notes where two are under way for one audience, on two looks in a row.

        One that its client has just given up may still be on the record for a moment.
        """
        under_way = defaultdict(list)
        for request in self._record["requests"]:
            if request["outcome"] == "pending":
                under_way[_audience(request)].append(request["number"])
        several = {tuple(numbers) for numbers in under_way.values() if len(numbers) > 1}
        self.doubled |= several & self._under_way
        self._under_way = several


def is_success(request: dict[str, Any]) -> bool:
    """Whether a recorded request brought a token."""
    return bool(request["outcome"] == {"answered": 200})


def by_audience(requests: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Recorded requests, by what they asked for."""
    sorted_out = defaultdict(list)
    for request in requests:
        sorted_out[_audience(request)].append(request)
    return dict(sorted_out)


def _audience(request: dict[str, Any]) -> str:
    return str(parse_qs(request["query"])["resource"][0]).rstrip("/")
