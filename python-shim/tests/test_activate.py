"""``activate()``: finding or starting an agent, holding on to it, giving it back. The program here is a stand-in."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

import jobcred
from fake_agent import FakeAgent, Request, error, reply
from jobcred import _activate, _binary, activate, deactivate
from twins import AsyncTwin, SyncTwin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


SCOPE = "https://storage.azure.com/.default"
WAIT = 30


def until(condition: Callable[[], bool], what: str) -> None:
    """Waits for something that another process or thread does."""
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, f"not yet: {what}"
        time.sleep(0.005)


class LeasedAgent(FakeAgent):
    """An agent that gives leases: answers that don't end."""

    def __init__(self, path: Path | str, strategy: str = "system-identity", fingerprint: str = "f1") -> None:
        super().__init__(path)
        self.told: dict[str, Any] = {"pid": 4711, "strategy": strategy, "fingerprint": fingerprint, "version": "1"}
        self.answer = self.leased

    def leased(self, request: Request) -> bytes:
        if request.path == "/v1/lease":
            line = json.dumps(self.told).encode() + b"\n"
            head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
            return head + f"{len(line):x}\r\n".encode() + line + b"\r\n"
        if request.path == "/v1/explain":
            return reply(200, {"strategy": self.told["strategy"], "message": "no endpoint and no marker was found."})
        return self.usual(request)

    def tell(self, **more: object) -> None:
        """Says more over the leases there are."""
        line = json.dumps({**self.told, **more}).encode() + b"\n"
        with self._lock:
            opened = list(self._open)
        for connection in opened:
            connection.sendall(f"{len(line):x}\r\n".encode() + line + b"\r\n")

    @property
    def open(self) -> int:
        with self._lock:
            return len(self._open)

    def asked(self, path: str) -> int:
        return len([request for request in self.requests if request.path == path])


class Program:
    """A stand-in for the program ``jobcred``."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "jobcred"
        self.log = directory / "calls"
        self.log.touch()

    def does(self, script: str) -> None:
        self.path.write_text(f'#!/bin/sh\necho "$@" >>{self.log}\n{script}\n')
        self.path.chmod(self.path.stat().st_mode | stat.S_IXUSR)

    def says(self, socket: str, *, started: bool = True) -> None:
        answer = json.dumps({"socket": socket, "pid": 4711, "started": started})
        self.does(f"echo '{answer}'")

    @property
    def calls(self) -> list[str]:
        return self.log.read_text().splitlines()


@pytest.fixture(autouse=True)
def _inactive() -> Iterator[None]:
    yield
    deactivate()


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    stand_in = Program(tmp_path)
    monkeypatch.setattr(_binary, "find", lambda: str(stand_in.path))
    return stand_in


@pytest.fixture
def leased(tmp_path: Path) -> Iterator[LeasedAgent]:
    agent = LeasedAgent(tmp_path / "leased.sock")
    agent.start()
    yield agent
    agent.stop()


def test_an_agent_is_started_and_given_back(leased: LeasedAgent, program: Program) -> None:
    program.says(leased.path)
    before = dict(os.environ)
    active = activate()
    assert (active.socket, active.pid, active.strategy) == (leased.path, 4711, "system-identity")
    assert is_active(active)
    assert active.started
    assert active.principal is None
    assert program.calls == ["join"]
    assert os.environ["JOBCRED_SOCKET"] == leased.path
    assert jobcred.JobCredential().get_token(SCOPE).token
    deactivate()
    assert dict(os.environ) == before
    assert not is_active(active)
    until(lambda: leased.open == 0, "the lease and all else is given back")
    deactivate()


def test_children_find_it(leased: LeasedAgent, program: Program) -> None:
    program.says(leased.path)
    activate()
    code = "import jobcred; print(jobcred.JobCredential().get_token('https://storage.azure.com/.default').token)"
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=WAIT, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_an_agent_around_is_used_and_none_is_started(
    leased: LeasedAgent, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBCRED_SOCKET", leased.path)
    program.does("exit 9")
    active = activate()
    assert not active.started
    assert program.calls == []
    assert leased.asked("/v1/lease") == 1
    deactivate()
    assert os.environ["JOBCRED_SOCKET"] == leased.path


def test_a_socket_left_over_is_where_the_next_agent_goes(
    leased: LeasedAgent, program: Program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("JOBCRED_SOCKET", str(tmp_path / "dead.sock"))
    program.says(leased.path)
    assert activate().socket == leased.path
    assert os.environ["JOBCRED_SOCKET"] == leased.path
    deactivate()
    assert os.environ["JOBCRED_SOCKET"] == str(tmp_path / "dead.sock")


def test_once_is_enough(leased: LeasedAgent, program: Program) -> None:
    program.says(leased.path)
    first = activate()
    with activate() as second:
        assert second is first
    assert is_active(first)
    assert leased.asked("/v1/lease") == 1
    with first:
        assert is_active(first)
    assert not is_active(first)
    with activate() as third:
        assert is_active(third)
    assert not is_active(third)
    assert "JOBCRED_SOCKET" not in os.environ


def test_threads_activate_once(leased: LeasedAgent, program: Program) -> None:
    program.says(leased.path)
    ready = threading.Barrier(16)

    def run() -> object:
        ready.wait(WAIT)
        return activate()

    with ThreadPoolExecutor(16) as pool:
        found = [future.result(WAIT) for future in [pool.submit(run) for _ in range(16)]]
    assert len(set(map(id, found))) == 1
    assert program.calls == ["join"]
    assert leased.asked("/v1/lease") == 1


def test_a_socket_variable_that_the_program_changed_is_left_alone(
    leased: LeasedAgent, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JOBCRED_SOCKET", raising=False)
    program.says(leased.path)
    activate()
    monkeypatch.setenv("JOBCRED_SOCKET", "mine")
    deactivate()
    assert os.environ["JOBCRED_SOCKET"] == "mine"


@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
@pytest.mark.parametrize("value", [None, "", "a", "*", "localhost, x,"])
def test_l1_activate_leaves_no_proxy_untouched(
    leased: LeasedAgent, program: Program, monkeypatch: pytest.MonkeyPatch, name: str, value: str | None
) -> None:
    for each in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(each, raising=False)
    if value is not None:
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    program.says(leased.path)
    activate()
    assert {key: each for key, each in os.environ.items() if key != "JOBCRED_SOCKET"} == before


def is_active(activation: jobcred.Activation) -> bool:
    """What it says of itself, asked anew."""
    return activation.active


def in_fork(run: Callable[[], object]) -> int:
    """The status of a forked child that runs something."""
    pid = os.fork()
    if pid == 0:
        try:
            run()
        except BaseException as failure:  # noqa: BLE001, RUF100 - the parent's stack is not for the child
            os.write(2, f"{type(failure).__name__}: {failure}\n".encode())
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_forked_child_uses_the_agent_and_holds_nothing(leased: LeasedAgent, program: Program) -> None:
    program.says(leased.path)
    active = activate()
    ready, go = os.pipe(), os.pipe()

    def child() -> None:
        assert not active.active
        assert jobcred.JobCredential().get_token(SCOPE).token
        deactivate()
        assert os.environ["JOBCRED_SOCKET"] == leased.path
        jobcred.JobCredential().close()
        os.write(ready[1], b"r")
        os.read(go[0], 1)

    pid = os.fork()
    if pid == 0:
        try:
            child()
        finally:
            os.write(ready[1], b"x")
            os._exit(0)
    try:
        assert os.read(ready[0], 1) == b"r"
        deactivate()
        until(lambda: leased.open == 0, "the lease is given back while the child lives")
    finally:
        os.write(go[1], b"g")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        for end in (*ready, *go):
            os.close(end)


def test_a_forked_child_may_activate_for_itself(leased: LeasedAgent, program: Program) -> None:
    program.says(leased.path)
    activate()

    def child() -> None:
        own = activate()
        assert own.active
        assert not own.started

    assert in_fork(child) == 0
    assert leased.asked("/v1/lease") == 2
    assert program.calls == ["join"]


def test_a_fork_while_a_thread_activates_blocks_nobody(leased: LeasedAgent, program: Program) -> None:
    program.says(leased.path)
    with _activate._lock:
        assert in_fork(activate) == 0


def test_a_signal_handler_in_the_middle_of_it_hangs_nothing(
    leased: LeasedAgent, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    program.says(leased.path)
    active = activate()
    monkeypatch.setattr(_activate, "PATIENCE", 0.05)
    with _activate._lock:
        deactivate()
        assert active.principal is None
        with pytest.raises(jobcred.TransientError):
            activate(timeout=0.05)
    assert active.active


def test_the_principal_is_told_when_it_is_known(leased: LeasedAgent, program: Program) -> None:
    program.says(leased.path)
    active = activate()
    until(lambda: leased.open == 1, "the lease")
    leased.tell(principal={"object_id": "oid-1"})
    until(lambda: active.principal == {"object_id": "oid-1"}, "the principal")
    assert "system-identity" in repr(active)


@pytest.mark.parametrize("code", [404, 403])
def test_an_agent_that_gives_no_lease_is_used_all_the_same(
    leased: LeasedAgent, program: Program, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setenv("JOBCRED_SOCKET", leased.path)
    program.does("exit 9")
    status = {"strategy": "kubernetes", "version": "1", "principal": {"object_id": "o"}}

    def answer(request: Request) -> bytes:
        if request.path == "/v1/lease":
            return error(code, "denied")
        return reply(200, status) if request.path == "/v1/status" else leased.usual(request)

    leased.answer = answer
    active = activate()
    assert (active.strategy, active.principal) == ("kubernetes", {"object_id": "o"})
    assert active.active
    assert jobcred.JobCredential().get_token(SCOPE).token


@pytest.mark.parametrize("value", ["1", "True", " yes ", "on", "something else"])
def test_switched_off_it_does_nothing(program: Program, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("JOBCRED_DISABLED", value)
    before = dict(os.environ)
    with activate() as activation:
        assert not activation.active
        assert (activation.socket, activation.strategy) == (None, "none")
    assert dict(os.environ) == before
    assert program.calls == []


@pytest.mark.parametrize("value", ["", "0", "False", "no", "off"])
def test_not_switched_off_there_is_an_agent(
    leased: LeasedAgent, program: Program, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("JOBCRED_DISABLED", value)
    program.says(leased.path)
    assert activate().active


def test_without_an_identity_the_reason_is_raised(leased: LeasedAgent, program: Program) -> None:
    leased.told["strategy"] = "none"
    program.says(leased.path)
    before = dict(os.environ)
    with pytest.raises(jobcred.UnavailableError, match="no endpoint and no marker was found"):
        activate()
    assert dict(os.environ) == before
    until(lambda: leased.open == 0, "the lease is given back")
    with pytest.warns(RuntimeWarning, match="no endpoint and no marker"):
        assert not activate(required=False).active


def test_what_the_program_says_of_a_good_agent_is_a_warning(leased: LeasedAgent, program: Program) -> None:
    program.says(leased.path)
    script = program.path.read_text()
    program.path.write_text(f"{script}echo 'jobcred: there is an agent of our own' >&2\n")
    with pytest.warns(RuntimeWarning, match="^there is an agent of our own$") as warned:
        assert activate().active
    assert warned[0].filename == __file__


def test_what_the_program_says_is_the_reason(program: Program) -> None:
    program.does("echo 'jobcred: the directory /run/jobcred is not ours' >&2; exit 71")
    with pytest.raises(jobcred.UnavailableError, match=r"exit status 71\): the directory /run/jobcred is not ours"):
        activate()


def test_without_a_program_the_way_to_one_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(_binary, "_places", lambda: iter([str(tmp_path)]))
    monkeypatch.setattr("jobcred._connection.socket_paths", lambda _: [str(tmp_path / "a"), str(tmp_path / "b")])
    with pytest.raises(jobcred.UnavailableError, match="no program jobcred in") as caught:
        activate()
    assert type(caught.value).__mro__[1] is jobcred.UnavailableError
    with pytest.warns(RuntimeWarning) as warned:
        activate(required=False)
    assert warned[0].filename == __file__


def test_without_a_program_an_agent_that_is_there_will_do(
    leased: LeasedAgent, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(_binary, "_places", lambda: iter([str(tmp_path)]))
    monkeypatch.setattr("jobcred._connection.socket_paths", lambda _: [str(tmp_path / "a"), leased.path])
    assert activate().socket == leased.path


def test_elsewhere_there_are_no_agents(monkeypatch: pytest.MonkeyPatch, program: Program) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setenv("JOBCRED_SOCKET", "/x")
    with pytest.raises(jobcred.UnavailableError, match="darwin"):
        activate()
    assert program.calls == []


@pytest.mark.parametrize("output", ["", "nonsense", "[]", '{"socket": 7}'])
def test_an_answer_that_is_none_is_an_error(program: Program, output: str) -> None:
    program.does(f"echo '{output}'")
    with pytest.raises(jobcred.UnavailableError, match="exit status 0"):
        activate()


def test_nobody_waits_for_a_program_that_hangs(program: Program, tmp_path: Path) -> None:
    program.does(f"echo $$ >{tmp_path}/pid; exec sleep 600")
    began = time.monotonic()
    with pytest.raises(jobcred.TransientError, match=r"within 0\.5 s"):
        activate(timeout=0.5)
    assert time.monotonic() - began < WAIT
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_nobody_waits_for_what_the_program_leaves_running(
    leased: LeasedAgent, program: Program, tmp_path: Path
) -> None:
    program.says(leased.path)
    script = program.path.read_text()
    program.path.write_text(script.replace("echo '{", f"sleep 600 & echo $! >{tmp_path}/pid\necho '{{"))
    assert activate().active
    os.kill(int((tmp_path / "pid").read_text()), 9)


def test_an_agent_that_hangs_holds_nobody_up(
    leased: LeasedAgent, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBCRED_SOCKET", leased.path)
    program.does("exit 9")
    leased.gate.clear()
    with pytest.raises(jobcred.TransientError, match=r"within 0\.3 s"):
        activate(timeout=0.3)
    leased.gate.set()
    assert activate().active


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH\r\n", b"", b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 300_000])
def test_what_is_no_agent_is_an_error(
    leased: LeasedAgent, program: Program, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    monkeypatch.setenv("JOBCRED_SOCKET", leased.path)
    program.does("exit 9")
    leased.answer = lambda _: answer or None
    with pytest.raises((jobcred.TransientError, jobcred.InternalError)):
        activate(timeout=5)
    assert program.calls == []


def test_a_sandbox_is_a_sandbox(leased: LeasedAgent, program: Program) -> None:
    leased.told["strategy"] = "sandbox"
    program.says(leased.path)
    assert activate(sandbox=True).strategy == "sandbox"
    assert program.calls == ["join --sandbox"]
    assert activate().strategy == "sandbox"


def test_real_tokens_are_never_given_for_a_sandbox(
    leased: LeasedAgent, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    program.says(leased.path)
    with activate(), pytest.raises(jobcred.InvalidRequestError, match="serves system-identity"):
        activate(sandbox=True)
    monkeypatch.setenv("JOBCRED_SOCKET", leased.path)
    with pytest.raises(jobcred.InvalidRequestError, match="Unset JOBCRED_SOCKET"):
        activate(sandbox=True)


@pytest.fixture
def second(tmp_path: Path) -> Iterator[LeasedAgent]:
    agent = LeasedAgent(tmp_path / "second.sock")
    agent.start()
    yield agent
    agent.stop()


@pytest.mark.parametrize("credential", ["made before", "made after"])
def test_an_agent_that_died_is_replaced_by_the_next_request(
    leased: LeasedAgent, second: LeasedAgent, program: Program, credential: str
) -> None:
    early = jobcred.JobCredential()
    program.says(leased.path)
    active = activate()
    late = jobcred.JobCredential()
    using = early if credential == "made before" else late
    assert using.get_token(SCOPE).token
    leased.stop()
    program.says(second.path)
    assert using.get_token("https://vault.azure.net/.default").token
    assert active.active
    assert active.socket == second.path == os.environ["JOBCRED_SOCKET"]
    assert program.calls == ["join", "join"]
    assert early.get_token("https://management.azure.com/.default").token
    assert late.get_token("https://graph.microsoft.com/.default").token
    assert len(program.calls) == 2
    deactivate()
    assert "JOBCRED_SOCKET" not in os.environ
    until(lambda: second.open == 0, "the new lease is given back")


def test_many_who_find_it_dead_start_one(leased: LeasedAgent, second: LeasedAgent, program: Program) -> None:
    program.says(leased.path)
    activate()
    leased.stop()
    program.says(second.path)
    credential = jobcred.JobCredential()
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(credential.get_token, f"https://r{number}.example/.default") for number in range(8)]
        assert all(call.result(WAIT).token for call in calls)
    assert program.calls == ["join", "join"]
    assert second.asked("/v1/lease") == 1


@pytest.mark.parametrize("kind", [SyncTwin, AsyncTwin])
def test_callers_of_either_kind_have_it_again(
    leased: LeasedAgent, second: LeasedAgent, program: Program, kind: type[SyncTwin]
) -> None:
    program.says(leased.path)
    activate()
    twin = kind(leased.path)
    credential = twin.make()
    assert twin.get(credential, SCOPE).token
    leased.stop()
    program.says(second.path)
    assert twin.get(credential, "https://vault.azure.net/.default").token
    assert len(program.calls) == 2


def test_nobody_else_takes_its_place(leased: LeasedAgent, second: LeasedAgent, program: Program) -> None:
    program.says(leased.path)
    activate()
    leased.stop()
    second.told["strategy"] = "user-identity"
    program.says(second.path)
    with pytest.raises(jobcred.DeniedError, match="would serve user-identity instead of system-identity"):
        jobcred.JobCredential().get_token(SCOPE)
    assert second.asked("/v1/token") == 0
    until(lambda: second.open == 0, "its lease is given back")


def test_without_a_next_one_the_error_is_the_usual_one(leased: LeasedAgent, program: Program) -> None:
    program.says(leased.path)
    activate()
    leased.stop()
    program.does("exit 71")
    credential = jobcred.JobCredential()
    for _ in range(3):
        with pytest.raises(jobcred.AgentGoneError):
            credential.get_token(SCOPE)
    assert program.calls == ["join", "join"], "it is not tried for every request"


def test_activate_has_one_again_too(leased: LeasedAgent, second: LeasedAgent, program: Program) -> None:
    program.says(leased.path)
    first = activate()
    leased.stop()
    program.says(second.path)
    again = activate()
    assert again.socket == second.path
    assert not first.active


def test_agents_of_others_are_not_replaced(leased: LeasedAgent, program: Program, tmp_path: Path) -> None:
    program.says(leased.path)
    activate()
    with pytest.raises(jobcred.AgentGoneError):
        jobcred.JobCredential(socket_path=tmp_path / "other.sock").get_token(SCOPE)
    assert program.calls == ["join"]


def descriptors() -> list[str]:
    """What the descriptors of this process lead to."""
    links = []
    for number in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:
            continue  # the one of the listing itself
    return sorted(links)


def test_no_resource_is_left_open(leased: LeasedAgent, program: Program) -> None:
    program.says(leased.path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = descriptors()
        with activate():
            jobcred.JobCredential().get_token(SCOPE)
        until(lambda: descriptors() == before, "no descriptor more than before")


@pytest.mark.parametrize("used", ["before it", "during it"])
@pytest.mark.parametrize("place", ["same", "another"])
def test_the_next_activation_serves_nothing_of_the_one_before(
    leased: LeasedAgent, second: LeasedAgent, program: Program, used: str, place: str
) -> None:
    early = jobcred.JobCredential()
    if used == "before it":
        with pytest.raises(jobcred.UnavailableError):
            early.get_token(SCOPE)
    program.says(leased.path)
    activate()
    assert early.get_token(SCOPE).token
    assert jobcred.JobCredential().get_token(SCOPE).token
    deactivate()
    following = leased if place == "same" else second
    following.told.update(strategy="azure-cli", fingerprint="f2")
    program.says(following.path)
    asked = following.asked("/v1/token")
    assert activate().strategy == "azure-cli"
    new = early.get_token(SCOPE).token
    assert following.asked("/v1/token") == asked + 1
    assert jobcred.JobCredential(socket_path=following.path).get_token(SCOPE).token == new
    assert following.asked("/v1/token") == asked + 1, "then from memory"


def test_the_next_agent_after_a_dead_one_serves_nothing_of_it(
    leased: LeasedAgent, second: LeasedAgent, program: Program
) -> None:
    program.says(leased.path)
    activate()
    credential = jobcred.JobCredential()
    credential.get_token(SCOPE)
    leased.stop()
    second.told.update(strategy="azure-cli", fingerprint="f2")
    program.says(second.path)
    assert activate().strategy == "azure-cli"
    credential.get_token(SCOPE)
    assert second.asked("/v1/token") == 1


@pytest.mark.parametrize("kind", [SyncTwin, AsyncTwin])
def test_whoever_takes_the_place_of_a_dead_agent_is_looked_at_first(
    leased: LeasedAgent, program: Program, kind: type[SyncTwin]
) -> None:
    program.says(leased.path)
    activate()
    twin = kind(leased.path)
    credential = twin.make()
    leased.told.update(strategy="user-identity")
    leased.restart()
    for _ in range(2):
        with pytest.raises(jobcred.DeniedError, match="would serve user-identity instead of system-identity"):
            twin.get(credential, SCOPE)
    assert leased.asked("/v1/token") == 0
    leased.told.update(strategy="system-identity")
    assert twin.get(credential, SCOPE).token
    assert program.calls == ["join"], "it is asked where it is"


def test_an_agent_that_ends_while_it_is_asked_holds_nobody_up(
    leased: LeasedAgent, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBCRED_SOCKET", leased.path)
    program.does("exit 9")

    def answer(_: Request) -> bytes:
        os.unlink(leased.path)
        return error(404, "invalid_request")

    leased.answer = answer
    began = time.monotonic()
    # It was a leftover after all, so the next one would have taken its place.
    with pytest.raises(jobcred.UnavailableError, match="exit status 9"):
        activate(timeout=WAIT)
    assert time.monotonic() - began < WAIT


def test_without_a_place_for_temporary_files_there_is_an_agent_all_the_same(
    leased: LeasedAgent, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    program.says(leased.path)

    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "_get_default_tempdir", none)
    monkeypatch.setattr(tempfile, "tempdir", None)
    with activate() as active:
        assert active.socket == leased.path
    # Not every Python can make files in memory.
    monkeypatch.delattr(os, "memfd_create", raising=False)
    with pytest.raises(jobcred.UnavailableError, match="No usable temporary directory"):
        activate()


def test_a_bad_timeout_is_an_error() -> None:
    with pytest.raises(jobcred.InvalidRequestError):
        activate(timeout=0)
