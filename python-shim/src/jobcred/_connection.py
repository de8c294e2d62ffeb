"""Finding an agent, making sure whose it is, and one exchange with it.

Everything here is a generator that does no waiting of its own. It yields either a number, to be resumed that many
seconds later, or a socket, to be resumed with the next bytes from it. A blocking driver (:func:`drive`, here) and an
asyncio one (``jobcred.aio``) run the same generator, so the protocol is written once.
"""

from __future__ import annotations

# _socket is the C half of the socket module. The Python half costs 12 ms and a megabyte and adds nothing needed here.
import _socket
import errno
import os
import sys
import time

from ._errors import (
    AgentGoneError,
    AgentNotFoundError,
    DeniedError,
    InvalidRequestError,
    JobCredentialError,
    TransientError,
    UntrustedAgentError,
    no_agent_on,
    not_an_agent,
)
from ._http import Reply, ReplyError, ReplyReader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Final, TypeVar, Union

    T = TypeVar("T")
    Steps = Generator[Union[float, _socket.socket], Union[bytes, None], T]

# sun_path of Linux is 108 bytes with the zero that ends it.
MAX_PATH_BYTES: Final = 107
MAX_UID: Final = 4294967295
CHUNK_BYTES: Final = 16 * 1024
# Below the 30 s after which an agent closes an idle connection.
MAX_IDLE_SECONDS: Final = 25.0
# Beyond it the kernel's clock would overflow.
LONGEST_WAIT: Final = 1e6
# How soon to try again when the queue of the listening socket is full.
FULL_QUEUE_PAUSE: Final = 0.01


class TimedOut(Exception):  # noqa: N818 - a signal to the generator, not an error of the package
    """Thrown into a generator by its driver when the time is over."""


class DeadConnection(Exception):  # noqa: N818 - as above
    """The connection was closed before any byte of an answer."""


class Connection:
    """One connection to an agent whose owner has been checked."""

    __slots__ = ("idle_since", "path", "pid", "sock")

    def __init__(self, sock: _socket.socket, path: str) -> None:
        self.sock = sock
        self.path = path
        self.pid = os.getpid()
        self.idle_since = 0.0

    def __del__(self) -> None:
        # Else the last one of a process, or one left behind by a fork, would be reported as a ResourceWarning.
        self.close()

    def usable(self) -> bool:
        """Whether another request may be sent: never in another process, not after the agent has lost patience."""
        return self.pid == os.getpid() and time.monotonic() - self.idle_since < MAX_IDLE_SECONDS

    def close(self) -> None:
        """Closes this process's end. In a forked child the parent's end stays open."""
        self.sock.close()

    def ask(self, request: bytes) -> Steps[Reply]:
        """Sends a request and reads its answer; closes the connection unless it can be used again."""
        reader = ReplyReader()
        try:
            self.sock.settimeout(0.0)
            yield from self._send(request)
            reply = None
            while reply is None:
                chunk = yield self.sock
                if not chunk:
                    raise ConnectionResetError
                reply = reader.feed(chunk)
        except OSError as error:
            self.close()
            if not reader.started:
                raise DeadConnection from error
            raise TransientError(
                f"The agent at {self.path} closed the connection in the middle of an answer."
            ) from None
        except ReplyError as error:
            self.close()
            raise not_an_agent(self.path, str(error)) from None
        except BaseException:
            self.close()
            raise
        if not reply.keep:
            self.close()
        return reply

    def _send(self, request: bytes) -> Steps[None]:
        left = memoryview(request)
        while left:
            try:
                # Without MSG_NOSIGNAL a dead connection would kill programs that have SIGPIPE at its default.
                left = left[self.sock.send(left, _socket.MSG_NOSIGNAL) :]
            except BlockingIOError:
                yield FULL_QUEUE_PAUSE


def socket_paths(explicit: str | None) -> list[str]:
    """Where to look for an agent, first to last (``docs/protocol.md``, "Finding the agent")."""
    explicit = explicit or os.environ.get("JOBCRED_SOCKET")
    if explicit:
        return [explicit]
    paths = ["/run/jobcred/agent.sock"]
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/"):
        paths.append(os.path.join(runtime, "jobcred", "agent.sock"))
    paths.append(f"/tmp/jobcred-{os.geteuid()}/agent.sock")  # noqa: S108 - the owner of what listens there is checked
    return paths


def connect(explicit: str | None) -> Steps[Connection]:
    """Connects to the first place where an agent answers whose owner can be trusted."""
    if sys.platform != "linux":
        raise no_agent_on(sys.platform)
    # A mistake in it is said whatever is found.
    _agent_uid()
    tried = []
    untrusted: UntrustedAgentError | None = None
    is_closed_to_us = False
    for path in socket_paths(explicit):
        name = os.fsencode(path)
        if len(name) > MAX_PATH_BYTES:
            tried.append(f"{path} (too long: {len(name)} bytes, a Unix socket's path has at most {MAX_PATH_BYTES})")
            continue
        try:
            sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        except OSError as error:
            # Says nothing of the agent, so no chain of credentials may go on because of it.
            raise TransientError(f"No connection to the jobcred agent can be opened: {error.strerror}.") from None
        try:
            sock.settimeout(0.0)
            while True:
                try:
                    sock.connect(name)
                    break
                except BlockingIOError:
                    # Linux says so when the queue is full, for example while the agent is being restarted.
                    yield FULL_QUEUE_PAUSE
            _check_owner(sock, path)
        except OSError as error:
            sock.close()
            tried.append(f"{path} ({_reason(error)})")
            is_closed_to_us = is_closed_to_us or error.errno in (errno.EACCES, errno.EPERM)
            continue
        except UntrustedAgentError as error:
            # Somebody else's socket must not stand between this process and its own agent.
            sock.close()
            untrusted = untrusted or error
            continue
        except BaseException:
            sock.close()
            raise
        return Connection(sock, path)
    raise untrusted or _nobody(tried, is_closed_to_us=is_closed_to_us)


def _nobody(tried: list[str], *, is_closed_to_us: bool) -> JobCredentialError:
    if len(tried) > 1:
        return AgentNotFoundError(
            f"No jobcred agent answers: tried {'; '.join(tried)}.",
            hint="Start the command with 'jobcred run -- COMMAND', or set JOBCRED_SOCKET to the agent's socket.",
        )
    # Only a place that was named is looked at alone.
    if is_closed_to_us:
        # No waiting changes a mode.
        return DeniedError(
            f"The jobcred agent's socket is closed to this user: {tried[0]}.",
            hint="Share it with a group this user is in: JOBCRED_SOCKET_GROUP where the agent runs.",
        )
    return AgentGoneError(
        f"No jobcred agent answers at {tried[0]}.",
        hint="JOBCRED_SOCKET or socket_path names that place: see whether the agent still runs, or is starting.",
    )


def _agent_uid() -> int | None:
    """The uid in ``JOBCRED_AGENT_UID``, if there is one."""
    text = os.environ.get("JOBCRED_AGENT_UID", "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= MAX_UID):
        # Whoever set it means somebody.
        raise InvalidRequestError(
            f"JOBCRED_AGENT_UID is no uid: it takes a number from 0 to {MAX_UID}.",
            hint="Set it to the uid that the agent runs as, or to nothing.",
        )
    return int(text)


def _check_owner(sock: _socket.socket, path: str) -> None:
    own = os.geteuid()
    allowed = {own, 0, _agent_uid()}
    # struct ucred: pid, uid, gid as 32-bit integers. For the side that connects, the kernel noted them at listen().
    credentials = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
    uid = int.from_bytes(credentials[4:8], sys.byteorder)
    if uid not in allowed:
        raise UntrustedAgentError(
            f"The socket {path} belongs to uid {uid}, and this process runs as uid {own}: nothing was sent.",
            hint=f"If that agent is meant, set JOBCRED_AGENT_UID={uid}; else set JOBCRED_SOCKET to the right socket.",
        )


def _reason(error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return "no socket there"
    if error.errno == errno.ECONNREFUSED:
        return "nobody listens"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "not accessible to this user"
    return os.strerror(error.errno) if error.errno else "not usable"


def drive(steps: Steps[T], deadline: float) -> T:
    """Runs a generator of this module by blocking, at most until ``deadline`` (monotonic seconds).

    :raises TimedOut: when the time is over.
    """
    try:
        step = next(steps)
        while True:
            remaining = deadline - time.monotonic()
            try:
                if remaining <= 0:
                    raise TimedOut
                if isinstance(step, float):
                    time.sleep(min(step, remaining))
                    data = None
                else:
                    step.settimeout(min(remaining, LONGEST_WAIT))
                    try:
                        data = step.recv(CHUNK_BYTES)
                    except _socket.timeout:
                        raise TimedOut from None
            except (OSError, TimedOut) as error:
                step = steps.throw(error)
            else:
                step = steps.send(data)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    finally:
        # A KeyboardInterrupt lands here as well; closing the generator closes its connection.
        steps.close()
