"""What a process knows of one agent: answers held, requests under way, connections kept.

There is one :class:`Agent` per process and socket, shared by all credentials, sync and async. No lock is held over
I/O, and there is none that a fork could leave locked: a process that finds itself to be another one than before drops
requests and connections and keeps the answers.
"""

from __future__ import annotations

import os
import time
from _thread import allocate_lock, get_ident

from ._connection import DeadConnection, TimedOut, connect, drive
from ._errors import AgentGoneError, JobCredentialError, TransientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import Task
    from collections.abc import Callable
    from typing import Final

    from ._ask import Answer, Ask, Key
    from ._connection import Connection, Steps
    from ._http import Reply

# Different tokens held at once; a job uses a handful.
MAX_HELD: Final = 256
# Connections kept per process and agent. A process rarely has more than two requests under way at once.
MAX_IDLE: Final = 2
# Asking early is a courtesy: it may cost a caller, who has a good token, no more than this.
EARLY_TIMEOUT: Final = 5.0
# The least time between two early tries for one token, and the share of time that early tries may take in all.
EARLY_PAUSE: Final = 5.0
EARLY_SHARE: Final = 0.1


class Held:
    """An answer in memory. Never changed but for ``retry_at``."""

    __slots__ = ("answer", "retry_at")

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        # Monotonic seconds, since it is a pause; what an answer says of itself is wall time.
        self.retry_at = 0.0

    def lives(self, min_validity: int) -> bool:
        """Whether a caller that needs so many seconds may have it."""
        return self.answer.expires_on - time.time() > min_validity

    def due(self) -> bool:
        """Whether to ask for a newer one before this one ends."""
        return time.time() >= self.answer.refresh_on and time.monotonic() >= self.retry_at

    def pause(self, took: float, retry_after: float | None = None) -> None:
        """Puts the next early try off, after one that took so many seconds."""
        self.retry_at = time.monotonic() + max(EARLY_PAUSE, retry_after or 0.0, took / EARLY_SHARE)


class Flight:
    """A request under way, for the threads that wait for the same answer."""

    __slots__ = ("_landed", "outcome", "owner")

    def __init__(self) -> None:
        # Locked until the outcome is there. A bare lock, because threading takes longer to import than this package.
        self._landed = allocate_lock()
        self._landed.acquire()
        self.owner = get_ident()
        self.outcome: Held | JobCredentialError | None = None

    def land(self) -> None:
        """Lets the waiting threads go."""
        self._landed.release()

    def wait(self, seconds: float) -> bool:
        """Waits for the outcome."""
        landed = self._landed.acquire(timeout=max(0.0, min(seconds, 1e6)))
        if landed:
            self._landed.release()
        return landed


class Agent:
    """One agent, as this process knows it."""

    def __init__(self, socket_path: str | None) -> None:
        self.socket_path = socket_path
        # Whether credentials that know this one have to look for an agent anew; see `retire`.
        self.retired = False
        self.held: dict[Key, Held] = {}
        self.restart()

    def restart(self) -> None:
        """Begins anew in this process: what another process has under way is none of our business."""
        # Setting one name after the other is enough: a forked process has one thread, and what two threads of one that
        # was forked behind Python's back could do to each other here is to ask twice.
        self.pid = os.getpid()
        self.idle: list[Connection] = []
        # Single operations on dicts are atomic, so these need no lock.
        self.flights: dict[tuple[object, ...], Flight] = {}
        self.async_flights: dict[tuple[object, ...], Task[Held | JobCredentialError]] = {}

    def close_idle(self) -> None:
        """Closes kept connections; the next request opens another."""
        while True:
            try:
                connection = self.idle.pop()
            except IndexError:
                return
            connection.close()

    # Answers

    def find(self, key: Key, min_validity: int) -> Held | None:
        """What is held under ``key``, if a caller may have it."""
        held = self.held.get(key)
        return held if held is not None and held.lives(min_validity) else None

    def keep(self, ask: Ask, answer: Answer, took: float) -> Held:
        """Puts an answer into memory."""
        held = Held(answer)
        if not held.lives(ask.min_validity):
            left = int(answer.expires_on - time.time())
            raise TransientError(
                f"The agent's answer has {left} s of life left, and more than {ask.min_validity} s are needed.",
                hint="Try again later; if it lasts, compare the clocks, and see 'jobcred status'.",
            )
        if held.due():
            # It could get nothing newer itself.
            held.pause(took)
        if ask.key not in self.held and len(self.held) >= MAX_HELD:
            self._evict()
        self.held[ask.key] = held
        return held

    def stay(self, ask: Ask, held: Held | None, error: JobCredentialError, took: float) -> Held | None:
        """After an early try that failed: the answer held, if it is still good, with the next try put off."""
        if held is None or not held.lives(ask.min_validity):
            return None
        held.pause(took, error.retry_after)
        return held

    def _evict(self) -> None:
        # Copied in one operation, because other threads go on.
        ends = [(held.answer.expires_on, key) for key, held in self.held.copy().items()]
        self.held.pop(min(ends, key=lambda end: end[0])[1], None)

    # Requests

    def exchange(self, ask: Ask) -> Steps[Answer]:
        """Asks the agent: over a kept connection, or a new one where that is dead or there is none."""
        reply, path = yield from self.reply_to(ask.request)
        return ask.read(reply, path)

    def reply_to(self, request: bytes) -> Steps[tuple[Reply, str]]:
        """The answer to a request and the socket it came from."""
        connection = self._take()
        if connection is not None:
            try:
                reply = yield from connection.ask(request)
            except DeadConnection:
                pass
            else:
                return self._done(connection, reply)
        try:
            connection = yield from connect(self.socket_path)
            if is_another is not None and is_another(self.socket_path):
                connection.close()
                raise AgentGoneError(
                    f"The jobcred agent at {connection.path} has ended, and what answers there is another one.",
                    hint="Call deactivate() and activate() to go on with it.",
                )
        except AgentGoneError:
            if revive is None or not (yield from revive(self.socket_path)):
                raise
            connection = yield from connect(self.socket_path)
        try:
            try:
                reply = yield from connection.ask(request)
            except DeadConnection:
                # One that was killed may still have listened when it was connected to.
                has_ended = is_another is not None and is_another(self.socket_path)
                if not has_ended or revive is None or not (yield from revive(self.socket_path)):
                    raise
                connection = yield from connect(self.socket_path)
                reply = yield from connection.ask(request)
        except DeadConnection:
            raise TransientError(
                f"The agent at {connection.path} closed the connection without an answer.",
                hint="It is being restarted or has too many connections; try again.",
            ) from None
        return self._done(connection, reply)

    def _take(self) -> Connection | None:
        while True:
            try:
                connection = self.idle.pop()
            except IndexError:
                return None
            if connection.usable():
                return connection
            connection.close()

    def _done(self, connection: Connection, reply: Reply) -> tuple[Reply, str]:
        if reply.keep:
            connection.idle_since = time.monotonic()
            if connection.pid == os.getpid() and len(self.idle) < MAX_IDLE:
                self.idle.append(connection)
            else:
                connection.close()
        return reply, connection.path

    def too_slow(self, timeout: float) -> TransientError:
        """The error for an answer that did not come in time."""
        place = self.socket_path or "its socket"
        return TransientError(
            f"The agent at {place} did not answer within {timeout:g} s.",
            hint="'jobcred status' shows what it is waiting for.",
        )

    def obtain(self, ask: Ask, timeout: float) -> Held:
        """An answer to ``ask``, from memory or from the agent; blocks at most ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            held = None if ask.claims else self.find(ask.key, ask.min_validity)
            if held is not None and not held.due():
                return held
            mine = Flight()
            flight = self.flights.setdefault(ask.flight, mine)
            if flight is mine:
                try:
                    return self._lead(ask, flight, held, deadline, timeout)
                finally:
                    if self.flights.get(ask.flight) is flight:
                        del self.flights[ask.flight]
                    flight.land()
            if held is not None:
                # Somebody is asking for a newer one; this one is good.
                return held
            if flight.owner == get_ident():
                # A signal handler or a finaliser runs in the middle of this thread's own request: don't wait for it.
                return self._fetch(ask, deadline, timeout)
            if not flight.wait(deadline - time.monotonic()):
                raise self.too_slow(timeout)
            if isinstance(flight.outcome, JobCredentialError):
                raise flight.outcome
            if flight.outcome is not None:
                return flight.outcome
            # The thread that asked was interrupted; somebody else has to ask.

    def _lead(self, ask: Ask, flight: Flight, held: Held | None, deadline: float, timeout: float) -> Held:
        # Another thread may have landed between the look into memory and the take-off.
        current = None if ask.claims else self.find(ask.key, ask.min_validity)
        if current is not None and not current.due():
            flight.outcome = current
            return current
        began = time.monotonic()
        try:
            if held is None:
                flight.outcome = self._fetch(ask, deadline, timeout)
            else:
                early = min(timeout, EARLY_TIMEOUT)
                flight.outcome = self._fetch(ask, began + early, early)
        except JobCredentialError as error:
            good = self.stay(ask, held, error, time.monotonic() - began)
            flight.outcome = good or error
            if good is None:
                raise
            return good
        return flight.outcome

    def _fetch(self, ask: Ask, deadline: float, timeout: float) -> Held:
        began = time.monotonic()
        try:
            answer = drive(self.exchange(ask), deadline)
        except TimedOut:
            raise self.too_slow(timeout) from None
        return self.keep(ask, answer, time.monotonic() - began)


_agents: dict[str, Agent] = {}
# Has an agent again where nobody answers any more; set by _activate, which knows the ones that this process counts on.
revive: Callable[[str | None], Steps[bool]] | None = None
# Whether what listens at a path is known to be another agent than the one that this process counts on there; as above.
is_another: Callable[[str | None], bool] | None = None


def agent(socket_path: str | None) -> Agent:
    """The process's view of the agent at a socket, or of the one that is found where agents are."""
    explicit = socket_path or os.environ.get("JOBCRED_SOCKET") or None
    known = _agents.get(explicit or "")
    return known or _agents.setdefault(explicit or "", Agent(explicit))


def retire(*paths: str | None) -> None:
    """Forgets what came from agents at these paths (None: from wherever one was found), so that it is asked for anew.

    The next one at a path, or the next one that is found, may serve somebody else.
    """
    for name, known in list(_agents.items()):
        if known.socket_path in paths:
            _agents.pop(name, None)
            known.retired = True
            known.held = {}
            known.close_idle()


def _after_fork_in_child() -> None:
    for known in list(_agents.values()):
        # Closes only the child's ends. Left open, they would keep the agent from seeing the parent's end close.
        known.close_idle()
        known.restart()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
