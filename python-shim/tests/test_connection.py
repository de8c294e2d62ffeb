"""Finding an agent, trusting it, and what may happen on the socket. Both twins."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fake_agent import SECRET, FakeAgent, reply
from jobcred import (
    AgentGoneError,
    AgentNotFoundError,
    DeniedError,
    InternalError,
    InvalidRequestError,
    JobCredential,
    TransientError,
    UntrustedAgentError,
    _connection,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Clock
    from twins import SyncTwin

SCOPE = "https://storage.azure.com/.default"
# More than any of these tests should ever wait; what runs into it fails.
LONG = 30


def test_one_connection_is_kept(twin: SyncTwin, agent: FakeAgent) -> None:
    credential = twin.make()
    for number in range(5):
        twin.get(credential, f"api://{number}")
    assert (len(agent.requests), agent.connections) == (5, 1)


def test_a_dead_kept_connection_is_replaced(twin: SyncTwin, agent: FakeAgent) -> None:
    credential = twin.make()
    twin.get(credential, "api://1")
    agent.close_kept()
    assert twin.get(credential, "api://2").token.endswith(".2")
    assert agent.connections == 2


def test_an_agent_that_restarts(twin: SyncTwin, agent: FakeAgent) -> None:
    credential = twin.make()
    twin.get(credential, "api://1")
    agent.restart()
    assert twin.get(credential, "api://2").token.endswith(".2")


def test_a_dead_kept_connection_does_not_raise_sigpipe(twin: SyncTwin, agent: FakeAgent) -> None:
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        credential = twin.make()
        for number in range(3):
            twin.get(credential, f"api://{number}")
            agent.close_kept()
    finally:
        signal.signal(signal.SIGPIPE, before)
    assert len(agent.requests) == 3


def test_only_a_kept_connection_is_tried_again(twin: SyncTwin, agent: FakeAgent) -> None:
    agent.answer = lambda _: None
    with pytest.raises(TransientError, match="without an answer"):
        twin.get(twin.make(), SCOPE)
    assert len(agent.requests) == 1
    agent.answer = agent.usual
    twin.get(twin.make(), SCOPE)
    agent.answer = lambda _: None
    with pytest.raises(TransientError, match="without an answer"):
        twin.get(twin.make(), "api://2")
    assert len(agent.requests) == 4, "once over the kept connection, once over a new one"


def test_an_old_connection_is_not_used(twin: SyncTwin, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    credential = twin.make()
    twin.get(credential, "api://1")
    monkeypatch.setattr(_connection, "MAX_IDLE_SECONDS", 0.0)
    twin.get(credential, "api://2")
    assert agent.connections == 2


def test_an_agent_that_closes_after_each_answer(twin: SyncTwin, agent: FakeAgent) -> None:
    agent.answer = lambda request: agent.usual(request).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
    credential = twin.make()
    twin.get(credential, "api://1")
    assert credential._agent.idle == []
    twin.get(credential, "api://2")
    assert agent.connections == 2


def test_a_hanging_agent(twin: SyncTwin, agent: FakeAgent) -> None:
    agent.gate.clear()
    credential = twin.make(timeout=0.2)
    with pytest.raises(TransientError, match=r"did not answer within 0\.2 s"):
        twin.get(credential, SCOPE)
    agent.gate.set()
    assert twin.get(twin.make(), SCOPE).token


def test_a_dripping_agent_does_not_prolong_the_timeout(twin: SyncTwin, tmp_path: Path) -> None:
    path = tmp_path / "drip.sock"
    stop = threading.Event()

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
            while not stop.wait(0.02):
                try:
                    connection.sendall(b"x")
                except OSError:
                    return

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        try:
            with pytest.raises(TransientError, match="did not answer within"):
                twin.get(twin.make(socket_path=path, timeout=0.3), SCOPE)
        finally:
            stop.set()
            thread.join()


def test_a_hanging_refresh_costs_little(
    twin: SyncTwin, agent: FakeAgent, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobcred._agent.EARLY_TIMEOUT", 0.2)
    monkeypatch.setattr("jobcred.aio.EARLY_TIMEOUT", 0.2)
    credential = twin.make(timeout=LONG)
    first = twin.get(credential, SCOPE)
    agent.gate.clear()
    clock.advance(agent.refresh_in + 1)
    for _ in range(10):
        assert twin.get(credential, SCOPE) == first
    assert len(agent.requests) == 2


BODY = b'{"access_token":"a.b","token_type":"Bearer","expires_on":99999999999,"refresh_on":99999999999}'


def head(length: int, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP/1.1"),
        (b"\x00\x01\x02\x03\x04\x05\x06\x07\x08", "not HTTP/1.1"),
        (b"HTTP/2.0 200 OK\r\n\r\n", "not HTTP/1.1"),
        (b"HTTP/1.1 abc OK\r\n\r\n", "not HTTP/1.1"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "not HTTP/1.1"),
        ("HTTP/1.1 ²²² OK\r\n\r\n".encode("latin-1"), "not HTTP/1.1"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "interim"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + BODY, "how long"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", "how long"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0x10\r\n\r\n", "how long"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", "two lengths"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1048577\r\n\r\n", "longer than 1048576"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: " + b"9" * 5000 + b"\r\n\r\n", "longer than 1048576"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", "transfer encoding"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "header is malformed"),
        (b"HTTP/1.1 200 OK\r\n folded: x\r\n\r\n", "header is malformed"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000, "do not end"),
        (head(0), "not a JSON object"),
        (head(2) + b"[]", "not a JSON object"),
        (head(4) + b"\xff\xfe{}", "not a JSON object"),
        (head(200_000) + b"[" * 200_000, "not a JSON object"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "not a JSON object"),
        (reply(200, {"token_type": "Bearer", "expires_on": 9**12}), "access_token"),
        (reply(200, {"access_token": 7, "token_type": "Bearer", "expires_on": 9**12}), "access_token"),
        (reply(200, {"access_token": "a b", "token_type": "Bearer", "expires_on": 9**12}), "access_token"),
        (reply(200, {"access_token": "a\r\nb", "token_type": "Bearer", "expires_on": 9**12}), "access_token"),
        (reply(200, {"access_token": "ä", "token_type": "Bearer", "expires_on": 9**12}), "access_token"),
        (reply(200, {"access_token": "a", "expires_on": 9**11}), "token_type"),
        (reply(200, {"access_token": "a", "token_type": "Bearer"}), "expires_on"),
        (reply(200, {"access_token": "a", "token_type": "Bearer", "expires_on": "9"}), "expires_on"),
        (reply(200, {"access_token": "a", "token_type": "Bearer", "expires_on": True}), "expires_on"),
        (reply(200, {"access_token": "a", "token_type": "Bearer", "expires_on": 1e300}), "expires_on"),
        (reply(200, {"access_token": "a", "token_type": "Bearer", "expires_on": 10**30}), "expires_on"),
    ],
)
def test_garbage(twin: SyncTwin, agent: FakeAgent, data: bytes, part: str) -> None:
    agent.answer = lambda _: data
    with pytest.raises(InternalError, match=part) as caught:
        twin.get(twin.make(), SCOPE)
    assert caught.value.code == "internal"
    assert agent.path in str(caught.value)
    agent.answer = agent.usual
    assert twin.get(twin.make(), SCOPE).token, "the next request is not touched by it"


@pytest.mark.parametrize("cut", [1, 8, 30, -1])
def test_an_answer_cut_short(twin: SyncTwin, agent: FakeAgent, cut: int) -> None:
    whole = reply(200, {"access_token": SECRET, "token_type": "Bearer", "expires_on": 9**11})

    def answer(_: object) -> bytes | None:
        agent.answer = lambda _: None
        threading.Timer(0.05, agent.close_kept).start()
        return whole[:cut]

    agent.answer = answer
    with pytest.raises(TransientError, match="middle of an answer") as caught:
        twin.get(twin.make(), SCOPE)
    assert SECRET not in str(caught.value)


def test_bytes_after_the_answer_end_the_connection(twin: SyncTwin, agent: FakeAgent) -> None:
    agent.answer = lambda request: agent.usual(request) + b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    credential = twin.make()
    assert twin.get(credential, "api://1").token.endswith(".1")
    agent.answer = agent.usual
    assert twin.get(credential, "api://2").token.endswith(".2")
    assert agent.connections == 2


def test_an_answer_of_the_largest_size(twin: SyncTwin, agent: FakeAgent) -> None:
    agent.answer = lambda _: head(1024 * 1024) + BODY.ljust(1024 * 1024)
    assert twin.get(twin.make(), SCOPE).token == "a.b"


def test_bare_statuses(twin: SyncTwin, agent: FakeAgent) -> None:
    for status, kind in ((400, InvalidRequestError), (431, InvalidRequestError), (500, InternalError)):
        agent.answer = lambda _, status=status: head(0, f"{status} X")  # type: ignore[misc]
        with pytest.raises(kind, match=f"HTTP status {status}"):
            twin.get(twin.make(), SCOPE)


# Finding


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A directory with a path short enough for any socket."""
    path = Path(tempfile.mkdtemp(prefix="jc-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


def test_the_places_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    uid = os.geteuid()
    assert _connection.socket_paths(None) == ["/run/jobcred/agent.sock", f"/tmp/jobcred-{uid}/agent.sock"]
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/x")
    assert _connection.socket_paths(None)[1] == "/x/jobcred/agent.sock"
    monkeypatch.setenv("XDG_RUNTIME_DIR", "relative")
    assert len(_connection.socket_paths(None)) == 2
    monkeypatch.setenv("JOBCRED_SOCKET", "")
    assert len(_connection.socket_paths(None)) == 2
    monkeypatch.setenv("JOBCRED_SOCKET", "/only")
    assert _connection.socket_paths(None) == ["/only"]
    assert _connection.socket_paths("/given") == ["/given"]


def test_the_next_place_is_tried_when_nobody_answers(
    twin: SyncTwin, short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [short_dir / name for name in ("absent", "file", "stale", "datagram", "live", "unused")]
    places[1].touch()
    with socket.socket(socket.AF_UNIX) as stale, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagram:
        stale.bind(str(places[2]))
        datagram.bind(str(places[3]))
        monkeypatch.setattr(_connection, "socket_paths", lambda _: [str(place) for place in places])
        live = FakeAgent(places[4]).start()
        unused = FakeAgent(places[5]).start()
        try:
            twin.get(twin.make(socket_path=None), SCOPE)
        finally:
            live.stop()
            unused.stop()
    assert (live.connections, unused.connections) == (1, 0)


def test_no_agent(twin: SyncTwin, short_dir: Path) -> None:
    absent = short_dir / "absent.sock"
    with pytest.raises(AgentGoneError, match="no socket there") as caught:
        twin.get(twin.make(socket_path=absent), SCOPE)
    # Not "unavailable": a chain of credentials must not go on to another identity because an agent is being restarted.
    assert caught.value.code == "transient"
    assert str(absent) in str(caught.value)


def test_no_agent_anywhere(twin: SyncTwin, short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [str(short_dir / name) for name in ("a.sock", "b.sock")]
    monkeypatch.setattr(_connection, "socket_paths", lambda _: places)
    with pytest.raises(AgentNotFoundError, match="no socket there") as caught:
        twin.get(twin.make(socket_path="/any"), SCOPE)
    assert caught.value.code == "unavailable"
    assert all(place in str(caught.value) for place in places)
    assert "jobcred run" in str(caught.value)


def test_a_process_without_descriptors_is_no_reason_for_another_identity() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
        with pytest.raises(TransientError, match="Too many open files"):
            _connection.drive(_connection.connect(None), time.monotonic() + LONG)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_timeout_without_an_end(twin: SyncTwin, agent: FakeAgent) -> None:
    assert twin.get(twin.make(timeout=float("inf")), SCOPE).token
    assert len(agent.requests) == 1


def test_an_agent_that_has_ended(twin: SyncTwin, agent: FakeAgent) -> None:
    agent.stop()
    with pytest.raises(AgentGoneError, match="nobody listens"):
        twin.get(twin.make(), SCOPE)
    agent.restart()
    assert twin.get(twin.make(), SCOPE).token


def test_a_socket_that_is_closed_to_this_user(
    twin: SyncTwin, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root passes every mode, so the kernel's answer is played.
    def closed(*_: object) -> None:
        raise PermissionError(errno.EACCES, "closed")

    monkeypatch.setattr(_connection, "_check_owner", closed)
    with pytest.raises(DeniedError, match="closed to this user") as caught:
        twin.get(twin.make(), SCOPE)
    assert str(agent.path) in str(caught.value)
    assert "JOBCRED_SOCKET_GROUP" in str(caught.value)


def test_a_path_that_is_too_long(twin: SyncTwin, short_dir: Path) -> None:
    with pytest.raises(AgentGoneError, match="too long: 108 bytes"):
        twin.get(twin.make(socket_path="/" + "x" * 107), SCOPE)
    longest = str(short_dir / "x")
    longest += "x" * (107 - len(longest))
    live = FakeAgent(longest).start()
    try:
        assert twin.get(twin.make(socket_path=longest), SCOPE).token
    finally:
        live.stop()


def test_the_variable_is_read_when_the_credential_is_first_used(
    agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    credential = JobCredential()
    monkeypatch.setenv("JOBCRED_SOCKET", agent.path)
    assert credential.get_token(SCOPE).token


def test_a_full_queue_is_waited_for(twin: SyncTwin, short_dir: Path) -> None:
    """An agent that is being restarted leaves its callers in the queue of its socket, which is finite."""
    path = str(short_dir / "q.sock")
    fake = FakeAgent(path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        waiting = []
        while True:
            waiting.append(socket.socket(socket.AF_UNIX))
            waiting[-1].setblocking(False)
            try:
                waiting[-1].connect(path)
            except BlockingIOError:
                break
        with pytest.raises(TransientError, match="did not answer within"):
            twin.get(twin.make(socket_path=path, timeout=0.2), SCOPE)
        threading.Timer(0.1, fake._accept, args=(listener,)).start()
        try:
            assert twin.get(twin.make(socket_path=path, timeout=LONG), SCOPE).token
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            fake.close_kept()
            for connection in waiting:
                connection.close()


# Trust


FOREIGN = """
import os, socket, sys
if os.geteuid() == 0:
    os.setgid(65534); os.setuid(65534)
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1]); os.chmod(sys.argv[1], 0o777); listener.listen()
print(os.geteuid(), flush=True)
connection, _ = listener.accept()
print(len(connection.recv(1000)), flush=True)
"""


@pytest.fixture
def foreign(short_dir: Path) -> Iterator[tuple[str, subprocess.Popen[str], int]]:
    short_dir.chmod(0o777)
    path = str(short_dir / "agent.sock")
    with subprocess.Popen([sys.executable, "-c", FOREIGN, path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        uid = int(process.stdout.readline())
        yield path, process, uid
        process.kill()


def test_a_socket_of_somebody_else_gets_nothing(
    twin: SyncTwin, foreign: tuple[str, subprocess.Popen[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, process, uid = foreign
    if uid == os.geteuid():
        # Without root there is no second user to be had; then it is this process that claims to be one.
        monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    with pytest.raises(UntrustedAgentError, match=f"belongs to uid {uid}") as caught:
        twin.get(twin.make(socket_path=path), SCOPE)
    assert caught.value.code == "untrusted_agent"
    assert f"JOBCRED_AGENT_UID={uid}" in str(caught.value)
    assert process.stdout is not None
    assert process.stdout.readline() == "0\n"


def test_a_socket_of_somebody_else_does_not_hide_the_own_one(
    twin: SyncTwin, agent: FakeAgent, foreign: tuple[str, subprocess.Popen[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, process, uid = foreign
    # The agent double runs as this process, which is root's where there is a second user at all.
    if uid == os.geteuid():
        pytest.skip("without root there is no second user whose socket could come first")
    monkeypatch.setattr(_connection, "socket_paths", lambda _: [path, str(agent.path)])
    assert twin.get(twin.make(socket_path="/both"), SCOPE).token.endswith(".1")
    assert process.stdout is not None
    assert process.stdout.readline() == "0\n"


@pytest.mark.parametrize("value", ["", " ", "65535"])
def test_a_variable_that_names_another_uid_changes_nothing(
    foreign: tuple[str, subprocess.Popen[str], int], monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    path, _, uid = foreign
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    monkeypatch.setenv("JOBCRED_AGENT_UID", value)
    with pytest.raises(UntrustedAgentError):
        JobCredential(socket_path=path).get_token(SCOPE)


@pytest.mark.parametrize("value", ["nonsense", "12x", "-1", "+1", "4294967296", "9" * 5000, "²"])
def test_a_variable_that_is_no_uid_is_an_error_that_names_it(
    twin: SyncTwin, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("JOBCRED_AGENT_UID", value)
    with pytest.raises(InvalidRequestError, match="JOBCRED_AGENT_UID is no uid"):
        twin.get(twin.make(socket_path=str(agent.path)), SCOPE)
    with pytest.raises(InvalidRequestError):
        twin.get(twin.make(socket_path="/no/such/agent.sock"), SCOPE)


def test_the_uid_in_the_variable_is_trusted(
    foreign: tuple[str, subprocess.Popen[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, process, uid = foreign
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    monkeypatch.setenv("JOBCRED_AGENT_UID", f" {uid} ")
    with pytest.raises(TransientError):
        JobCredential(socket_path=path).get_token(SCOPE)
    assert process.stdout is not None
    assert int(process.stdout.readline()) > 0, "it was asked, and closed"
