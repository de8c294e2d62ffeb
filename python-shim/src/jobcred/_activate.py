"""``jobcred.activate()``: an agent for this process and all that it starts, without a ``jobcred run`` around it.

The agent lives as long as somebody holds a *lease*: a connection that stays open and is used for nothing else. This
process holds one from ``activate`` on; it ends with the process, however that ends. Nothing here waits for longer than
its caller allows, and nothing needs a thread.
"""

from __future__ import annotations

import _socket
import json
import os
import time
from _thread import allocate_lock

from . import _agent
from ._ask import read_object
from ._connection import DeadConnection, TimedOut, connect, drive
from ._errors import (
    AgentGoneError,
    AgentNotFoundError,
    DeniedError,
    InvalidRequestError,
    JobCredentialError,
    TransientError,
    UnavailableError,
    for_caller,
    not_an_agent,
    of_code,
)
from ._http import request_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import IO, Final

    from typing_extensions import Self

    from ._connection import Connection, Steps

SOCKET_VARIABLE: Final = "JOBCRED_SOCKET"
# The variable that switches jobcred off, and the values that do not.
DISABLED_VARIABLE: Final = "JOBCRED_DISABLED"
NOT_DISABLED: Final = ("", "0", "false", "no", "off")
# An agent starts within a tenth of a second; a first look at the metadata service takes it two seconds.
DEFAULT_TIMEOUT: Final = 30.0
# How often to look whether a program that was started has ended.
POLL: Final = 0.005
# The longest line that an agent says over a lease, and the longest output of `jobcred join` that is read.
MAX_LINE: Final = 256 * 1024
# How long to wait for another thread that is at it, where the caller has not said.
PATIENCE: Final = 5.0
# The least time between two tries to start an agent again after it has died.
REVIVE_PAUSE: Final = 5.0
NO_STRATEGY: Final = "none"


class Lease:
    """A connection that keeps the agent alive, and what the agent says over it."""

    def __init__(self, connection: Connection | None, path: str, told: dict[str, object]) -> None:
        # None where there is an agent that gives no lease: a sidecar, which lives by itself.
        self.connection = connection
        if connection is not None:
            # Whoever waited for the answer has set a time to wait.
            connection.sock.settimeout(0.0)
        # Not at the top, which all processes load, nor later, since a program that is ending can load nothing more.
        import select

        self._new_poll = select.poll
        self.path = path
        self.told = told
        self.rest = b""

    def text(self, name: str) -> str | None:
        """A text that the agent told."""
        value = self.told.get(name)
        return value if isinstance(value, str) else None

    def serves_the_same_as(self, other: Lease) -> bool:
        """Whether both agents have decided on the same, from the same configuration."""
        return all(self.text(name) == other.text(name) for name in ("strategy", "fingerprint"))

    def holds(self) -> bool:
        """Reads what the agent has said since, without waiting; whether it is still there, as far as one can see."""
        if self.connection is None:
            return True
        while True:
            try:
                chunk = self.connection.sock.recv(16 * 1024)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not chunk:
                return False
            self.rest = self._take_lines(self.rest + chunk)

    def is_broken(self) -> bool:
        """Whether the agent has hung up. Reads nothing, so that any thread may ask."""
        if self.connection is None:
            return False
        poll = self._new_poll()
        try:
            # Asked for nothing, poll tells of the end alone.
            poll.register(self.connection.sock, 0)
        except ValueError:
            return False  # given back just now
        return bool(poll.poll(0))

    def _take_lines(self, data: bytes) -> bytes:
        told, rest = _lines(data)
        self.told = told or self.told
        return rest[-MAX_LINE:]

    def close(self) -> None:
        """Gives it back. In a forked child the parent's end stays open."""
        if self.connection is not None:
            self.connection.close()


class Activation:
    """An agent that this process counts on. Made by :func:`jobcred.activate`.

    As a context manager it is given back at the end of the block.

    :ivar socket: the agent's socket; None when there is no agent.
    :ivar pid: the agent's process id, in its own pid namespace; None when it is not known.
    :ivar strategy: the way to tokens that the agent chose, for example ``system-identity``; ``none`` without one.
    :ivar started: whether this call has started the agent, rather than found one.
    """

    def __init__(self, lease: Lease | None, *, started: bool = False) -> None:
        self._owner = os.getpid()
        self._holds = 1
        self._lease = lease
        self._variables: dict[str, tuple[str, str | None]] = {}
        self._revive_at = 0.0
        # Where agents before this one were.
        self._places: list[str] = []
        self.started = started
        self.socket = lease.path if lease else None
        pid = lease.told.get("pid") if lease else None
        self.pid = pid if isinstance(pid, int) else None
        self.strategy = (lease and lease.text("strategy")) or NO_STRATEGY

    @property
    def active(self) -> bool:
        """Whether this process counts on the agent: not after ``deactivate``, and not in a forked child."""
        return self._lease is not None and self._owner == os.getpid()

    @property
    def principal(self) -> dict[str, object] | None:
        """Whose tokens the agent has got, as ids; None before the first."""
        lease = self._lease
        if lease is None:
            return None
        # Who has the lock reads as well; what is known is known.
        if _lock.acquire(blocking=False):
            try:
                lease.holds()
            finally:
                _lock.release()
        principal = lease.told.get("principal")
        return dict(principal) if isinstance(principal, dict) else None

    def __repr__(self) -> str:
        if not self.active:
            return "<jobcred.Activation: not active>"
        return f"<jobcred.Activation: {self.strategy}, agent {self.pid} at {self.socket}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        if self is not _current or self._owner != os.getpid():
            return
        self._holds -= 1
        if self._holds <= 0:
            deactivate()

    def _begin(self) -> None:
        # NO_PROXY is not touched: it is input for parsers that are not ours, and a socket goes through no proxy.
        path = self.socket or ""
        self._variables[SOCKET_VARIABLE] = (path, os.environ.get(SOCKET_VARIABLE))
        os.environ[SOCKET_VARIABLE] = path

    def _end(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.close()
        for name, (ours, before) in self._variables.items():
            # What somebody has changed since is theirs.
            if os.environ.get(name) == ours:
                if before is None:
                    del os.environ[name]
                else:
                    os.environ[name] = before
        self._variables.clear()

    def _move(self, lease: Lease) -> None:
        """Goes on with another agent in the place of one that has died."""
        old, self._lease = self._lease, lease
        if old is not None:
            old.close()
        pid = lease.told.get("pid")
        self.pid = pid if isinstance(pid, int) else None
        if lease.path != self.socket:
            self._places.append(self.socket or "")
            for known in list(_agent._agents.values()):
                if known.socket_path == self.socket:
                    known.socket_path = lease.path
            before = self._variables.get(SOCKET_VARIABLE, ("", None))[1]
            self._variables[SOCKET_VARIABLE] = (lease.path, before)
            os.environ[SOCKET_VARIABLE] = self.socket = lease.path


_current: Activation | None = None
# Held while one of these begins, ends or is begun again. A bare lock, as in _agent.
_lock = allocate_lock()


def activate(*, sandbox: bool = False, required: bool = True, timeout: float = DEFAULT_TIMEOUT) -> Activation:
    """Makes sure that there is an agent for this process and for all that it starts from now on.

    Under ``jobcred run``, or wherever ``JOBCRED_SOCKET`` names an agent that answers, that one is used. Else that of
    this user and environment is shared, or started when there is none; it ends with the last process that counts on it.
    ``JOBCRED_SOCKET`` is set in ``os.environ``, so that child processes find it too.

    May be called any number of times, from any thread; there is one activation per process. A forked child uses the
    agent as long as its parent counts on it, and may activate for itself.

    With ``JOBCRED_DISABLED=1`` this does nothing, and the activation has no agent.

    :param sandbox: an agent with marked tokens that are worth nothing, for laptops and tests. It is never shared by
        accident: only this process and what it starts find it.
    :param required: when False, a warning takes the place of an error, and the activation may have no agent.
    :param timeout: how many seconds the call may take at most.
    :raises UnavailableError: when the platform gives this process no identity, or there is no program ``jobcred``.
    :raises JobCredentialError: when the agent cannot be started or reached; see ``code``.
    """
    if os.environ.get(DISABLED_VARIABLE, "").strip().lower() not in NOT_DISABLED:
        return Activation(None)
    try:
        if not timeout > 0:
            raise InvalidRequestError("The timeout must be more than 0 seconds.")
        activation, said = _activate(sandbox=sandbox, timeout=float(timeout))
    except JobCredentialError as error:
        if required:
            raise for_caller(error) from None
        activation, said = Activation(None), f"jobcred is not active: {error}"
    if said:
        import warnings

        warnings.warn(said, RuntimeWarning, stacklevel=2)
    return activation


def deactivate() -> None:
    """Gives the agent back, and the variables to what they were. Does nothing where nothing is active.

    The agent ends when nobody else counts on it. Tokens that were handed out live on; those in memory are forgotten.
    """
    global _current
    if not _lock.acquire(timeout=PATIENCE):
        # A signal handler in the middle of this thread's own activate(), most likely. The lease ends with the process.
        return
    try:
        activation, _current = _current, None
        if activation is None or activation._owner != os.getpid():
            return
        _agent.retire(None, activation.socket)
        activation._end()
    finally:
        _lock.release()


def _activate(*, sandbox: bool, timeout: float) -> tuple[Activation, str]:
    global _current
    deadline = time.monotonic() + timeout
    if not _lock.acquire(timeout=min(timeout, 1e6)):
        raise _too_slow(timeout)
    try:
        current = _current
        died: Lease | None = None
        if current is not None and current.active and current._lease is not None:
            died = current._lease
            if died.holds():
                _check_sandbox(current.strategy, current.socket, wanted=sandbox)
                current._holds += 1
                return current, ""
            current._end()
            _current = None
        try:
            lease, started, said = drive(_begin(sandbox=sandbox), deadline)
            activation = Activation(lease, started=started)
            try:
                _check_sandbox(activation.strategy, lease.path, wanted=sandbox)
                if activation.strategy == NO_STRATEGY:
                    raise drive(_why_none(lease.path), deadline)
            except BaseException:
                lease.close()
                raise
        except TimedOut:
            raise _too_slow(timeout) from None
        if died is None or not lease.serves_the_same_as(died):
            _agent.retire(None, died.path if died else None)
        activation._begin()
        _current = activation
        # Of a sandbox it is always said that it is apart.
        return activation, "" if sandbox else said
    finally:
        _lock.release()


def _begin(*, sandbox: bool) -> Steps[tuple[Lease, bool, str]]:
    """A lease of the agent that is named, or of the one that `jobcred join` gives.

    With it, whether the agent was started for this, and what was said of it.
    """
    if os.environ.get(SOCKET_VARIABLE):
        try:
            return (yield from _lease(None)), False, ""
        except AgentGoneError:
            # Left over from an agent that has ended: the place where the next one goes.
            pass
    from . import _binary

    try:
        program = _binary.find()
    except UnavailableError as missing:
        if sandbox:
            raise
        try:
            return (yield from _lease(None)), False, ""
        except (AgentNotFoundError, AgentGoneError):
            raise missing from None
    path, started, said = yield from _join(program, sandbox=sandbox)
    return (yield from _lease(path)), started, said


def _join(program: str, *, sandbox: bool) -> Steps[tuple[str, bool, str]]:
    """Runs `jobcred join`: the socket of an agent, whether it was started for this, and what was said."""
    import subprocess

    command = [program, "join", *(["--sandbox"] if sandbox else [])]
    # Files and not pipes: whatever lives on behind the program, nobody waits for it.
    with _scratch() as out, _scratch() as err:
        try:
            # In a session of its own, since a ^C goes to all of a terminal's, or a notebook kernel's, process group.
            process = subprocess.Popen(  # noqa: S603 - the program that _binary found
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
            )
        except OSError as error:
            raise UnavailableError(f"{program} cannot be started: {error.strerror}.") from None
        try:
            while process.poll() is None:
                yield POLL
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        answer = _object(_beginning(out))
        path = answer.get("socket")
        said = _one_line(_beginning(err).decode("utf-8", "replace"))
        if isinstance(path, str) and path:
            return path, answer.get("started") is True, said
        raise UnavailableError(
            f"No jobcred agent could be started or joined (exit status {process.returncode}): "
            f"{said or 'no reason was given'}."
        )


def _scratch() -> IO[bytes]:
    """A file without a name; in memory, where this Python can make one, since there may be no disk to write to."""
    try:
        if hasattr(os, "memfd_create"):
            return open(os.memfd_create("jobcred"), "w+b")
        import tempfile

        return tempfile.TemporaryFile()
    except OSError as error:
        raise UnavailableError(
            f"There is no place for what the program jobcred says: {error.strerror}.",
            hint="Let TMPDIR name a directory that can be written to.",
        ) from None


def _one_line(said: str) -> str:
    words = [line.removeprefix("jobcred: ").strip() for line in said.splitlines()]
    reason = " ".join(word for word in words if word)[-2000:]
    return "".join(character if character.isprintable() else " " for character in reason)


def _beginning(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read(MAX_LINE)


def _lease(path: str | None) -> Steps[Lease]:
    """A lease of the agent at a path, or of the one that is found where agents are."""
    connection = yield from connect(path)
    try:
        connection.sock.settimeout(0.0)
        connection.sock.send(request_bytes("GET", "/v1/lease", []), _socket.MSG_NOSIGNAL)
        data = b""
        while True:
            chunk = yield connection.sock
            if not chunk:
                raise ConnectionResetError
            data += chunk
            status, _, _ = data.partition(b"\r\n")
            if len(data) > MAX_LINE:
                raise not_an_agent(connection.path, "it says too much")
            if status + b"\r\n" == data[: len(status) + 2] and not status.startswith(b"HTTP/1.1 200 "):
                break
            told, rest = _lines(data)
            if told is not None:
                lease = Lease(connection, connection.path, told)
                lease.rest = rest
                return lease
    except OSError:
        connection.close()
        raise TransientError(f"The agent at {connection.path} closed the connection.") from None
    except BaseException:
        connection.close()
        raise
    connection.close()
    # An agent of another user, or one that is older: it lives by itself.
    status_of = yield from _ask(connection.path, "/v1/status")
    return Lease(None, connection.path, status_of)


def _ask(path: str, target: str) -> Steps[dict[str, object]]:
    # Not by way of an Agent, which would have a dead one replaced: by whoever has the lock, and that is us.
    connection = yield from connect(path)
    try:
        reply = yield from connection.ask(request_bytes("GET", target, []))
    except DeadConnection:
        raise TransientError(f"The agent at {path} closed the connection.") from None
    finally:
        connection.close()
    return read_object(reply, path)


def _lines(data: bytes) -> tuple[dict[str, object] | None, bytes]:
    """The last whole JSON object in the lines of a chunked answer, and what follows its last line.

    Heads and chunk sizes come as lines too. None of them begins like an object.
    """
    *lines, rest = data.split(b"\n")
    told = None
    for line in lines:
        if line.startswith(b"{"):
            told = _object(line) or told
    return told, rest


def _object(text: bytes) -> dict[str, object]:
    try:
        value = json.loads(text.decode())
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _why_none(path: str) -> Steps[JobCredentialError]:
    """Why the agent at a path has no way to tokens."""
    try:
        explanation = yield from _ask(path, "/v1/explain")
    except JobCredentialError as error:
        return error
    message = explanation.get("message")
    text = message if isinstance(message, str) and message else "this process has no identity here"
    return of_code("unavailable")(
        f"The jobcred agent has no way to get tokens: {text.rstrip('.')}.",
        hint="'jobcred explain' shows what was looked for; activate(sandbox=True) gives tokens that are worth nothing.",
    )


def _check_sandbox(strategy: str, path: str | None, *, wanted: bool) -> None:
    if wanted and strategy != "sandbox":
        raise InvalidRequestError(
            f"A sandbox was asked for, and the agent at {path} serves {strategy}.",
            hint=f"Unset {SOCKET_VARIABLE}, or call deactivate() first.",
        )


def _too_slow(timeout: float) -> TransientError:
    return TransientError(
        f"No jobcred agent was ready within {timeout:g} s.", hint="'jobcred status' shows what it is waiting for."
    )


def _revive(path: str | None) -> Steps[bool]:
    """After nobody answered at a path: has an agent again, when it is the one that this process counts on.

    Whether to try that place once more.
    """
    while not _lock.acquire(blocking=False):
        # A bare wait would stop the event loop that the holder needs.
        yield POLL
    try:
        current = _current
        named = path or os.environ.get(SOCKET_VARIABLE)
        if current is None or current._lease is None or not current.active:
            return False
        if named in current._places or (named == current.socket and current._lease.holds()):
            # Another thread has been here, and there is a next agent.
            return True
        if named != current.socket:
            return False
        return (yield from _begin_again(current, current._lease))
    finally:
        _lock.release()


def _is_another(path: str | None) -> bool:
    """Whether the agent at a path that this process counts on has ended, so that what answers there is another."""
    current = _current
    if current is None or current._lease is None or not current.active:
        return False
    return (path or os.environ.get(SOCKET_VARIABLE)) == current.socket and current._lease.is_broken()


def _begin_again(current: Activation, lease: Lease) -> Steps[bool]:
    try:
        if time.monotonic() < current._revive_at:
            # Whatever has come up since may do; nothing is started.
            new = yield from _lease(current.socket)
        else:
            current._revive_at = time.monotonic() + REVIVE_PAUSE
            new, _, _ = yield from _begin(sandbox=current.strategy == "sandbox")
    except JobCredentialError:
        # What the caller is told is that the agent is gone.
        return False
    if not new.serves_the_same_as(lease):
        new.close()
        raise DeniedError(
            f"The jobcred agent has died, and the next one would serve {new.text('strategy')} instead of "
            f"{current.strategy}, or by another configuration.",
            hint="Call deactivate() and activate() to go on with it.",
        )
    current._move(new)
    return True


def _after_fork_in_child() -> None:
    global _current, _lock
    # Another thread may have held it.
    _lock = allocate_lock()
    activation, _current = _current, None
    if activation is not None and activation._lease is not None:
        # Left open, it would keep the agent for as long as this child lives.
        activation._lease.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
_agent.revive = _revive
_agent.is_another = _is_another
