"""Threads, tasks, processes: one request for many callers, nothing shared that must not be."""

from __future__ import annotations

import asyncio
import copy
import multiprocessing
import os
import pickle
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from jobcred import JobCredential, JobCredentialError, RejectedError, TransientError, _agent, _ask, aio

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Clock
    from fake_agent import FakeAgent
    from twins import SyncTwin

SCOPE = "https://storage.azure.com/.default"
WAIT = 30


def in_threads(count: int, call: Callable[[], Any], agent: FakeAgent) -> list[Any]:
    """What ``count`` threads get that all call while the agent holds its answer back."""
    agent.gate.clear()
    ready = threading.Barrier(count + 1)

    def run() -> Any:
        ready.wait(WAIT)
        try:
            return call()
        except JobCredentialError as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(run) for _ in range(count)]
        ready.wait(WAIT)
        assert agent.arrived.acquire(timeout=WAIT)
        agent.gate.set()
        return [future.result(WAIT) for future in futures]


def test_64_threads_make_one_request(agent: FakeAgent) -> None:
    credential = JobCredential(socket_path=agent.path)
    tokens = in_threads(64, lambda: credential.get_token(SCOPE).token, agent)
    assert len(tokens) == 64
    assert len(set(tokens)) == 1
    assert len(agent.requests) == 1


def test_64_threads_with_a_credential_each_make_one_request(agent: FakeAgent) -> None:
    tokens = in_threads(64, lambda: JobCredential(socket_path=agent.path).get_token_info(SCOPE).token, agent)
    assert len(set(tokens)) == 1
    assert len(agent.requests) == 1


def test_threads_share_an_error(agent: FakeAgent) -> None:
    agent.fail(502, "rejected")
    credential = JobCredential(socket_path=agent.path)
    errors = in_threads(8, lambda: credential.get_token(SCOPE), agent)
    assert all(isinstance(error, RejectedError) for error in errors)
    assert len({id(error) for error in errors}) == 8, "each thread has its own, since tracebacks are written to them"
    # Threads that come after the answer ask anew: errors are not remembered here.
    assert 1 <= len(agent.requests) <= 8


def test_different_tokens_dont_wait_for_each_other(agent: FakeAgent) -> None:
    credential = JobCredential(socket_path=agent.path)
    agent.gate.clear()
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(credential.get_token, f"api://{number}") for number in range(4)]
        for _ in futures:
            assert agent.arrived.acquire(timeout=WAIT), "all four are with the agent at once"
        agent.gate.set()
        assert len({future.result(WAIT).token for future in futures}) == 4


def test_a_refresh_makes_only_one_thread_wait(agent: FakeAgent, clock: Clock) -> None:
    credential = JobCredential(socket_path=agent.path)
    first = credential.get_token(SCOPE)
    assert agent.arrived.acquire(timeout=WAIT)
    clock.advance(agent.refresh_in + 1)
    agent.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        refreshed = pool.submit(credential.get_token, SCOPE)
        assert agent.arrived.acquire(timeout=WAIT)
        assert credential.get_token(SCOPE) == first
        agent.gate.set()
        assert refreshed.result(WAIT).token.endswith(".2")


def test_a_waiting_thread_has_its_own_timeout(agent: FakeAgent) -> None:
    agent.gate.clear()
    patient = JobCredential(socket_path=agent.path, timeout=WAIT)
    with ThreadPoolExecutor(1) as pool:
        leader = pool.submit(patient.get_token, SCOPE)
        assert agent.arrived.acquire(timeout=WAIT)
        with pytest.raises(TransientError, match=r"within 0\.1 s"):
            JobCredential(socket_path=agent.path, timeout=0.1).get_token(SCOPE)
        agent.gate.set()
        assert leader.result(WAIT).token.endswith(".1")


class Interrupt(BaseException):
    pass


def test_an_interrupted_request_leaves_nothing_behind(agent: FakeAgent) -> None:
    """A Ctrl-C ends the wait of the thread that asked; a thread that waited for the same answer asks itself."""
    credential = JobCredential(socket_path=agent.path)
    agent.gate.clear()
    follower: list[Any] = []
    thread = threading.Thread(target=lambda: follower.append(credential.get_token(SCOPE)))

    def interrupt(*_: object) -> None:
        raise Interrupt

    def while_waiting() -> None:
        assert agent.arrived.acquire(timeout=WAIT)
        thread.start()
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        helper = threading.Thread(target=while_waiting)
        helper.start()
        with pytest.raises(Interrupt):
            credential.get_token(SCOPE)
    finally:
        signal.signal(signal.SIGUSR1, before)
    agent.gate.set()
    helper.join(WAIT)
    thread.join(WAIT)
    assert follower[0].token
    assert credential._agent.flights == {}
    assert all(connection.usable() for connection in credential._agent.idle)
    assert credential.get_token(SCOPE) == follower[0]


def test_a_signal_handler_may_ask_for_the_same_token(agent: FakeAgent) -> None:
    credential = JobCredential(socket_path=agent.path, timeout=WAIT)
    inner: list[Any] = []
    agent.gate.clear()

    def while_waiting() -> None:
        assert agent.arrived.acquire(timeout=WAIT)
        os.kill(os.getpid(), signal.SIGUSR1)

    def handler(*_: object) -> None:
        agent.gate.set()
        inner.append(credential.get_token(SCOPE))

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        helper = threading.Thread(target=while_waiting)
        helper.start()
        assert credential.get_token(SCOPE).token
        helper.join(WAIT)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(inner) == 1


def test_an_answer_that_lands_between_look_and_take_off(agent: FakeAgent) -> None:
    """A thread finds no token, another one lands with it, and only then the first one takes off."""
    credential = JobCredential(socket_path=agent.path)
    token = credential.get_token(SCOPE)
    known = credential._agent
    ((key, held),) = known.held.items()
    del known.held[key]

    class Late(dict[Any, Any]):
        def setdefault(self, name: Any, value: Any = None) -> Any:
            known.held[key] = held
            return super().setdefault(name, value)

    known.flights = Late()
    assert credential.get_token(SCOPE) == token
    assert len(agent.requests) == 1


# asyncio


def test_64_tasks_make_one_request(agent: FakeAgent) -> None:
    async def main() -> set[str]:
        async with aio.JobCredential(socket_path=agent.path) as credential:
            tokens = await asyncio.gather(*(credential.get_token(SCOPE) for _ in range(64)))
            return {token.token for token in tokens}

    assert len(asyncio.run(main(), debug=True)) == 1
    assert len(agent.requests) == 1


def test_a_cancelled_task_does_not_cancel_the_request(agent: FakeAgent) -> None:
    async def main() -> str:
        agent.gate.clear()
        credential = aio.JobCredential(socket_path=agent.path)
        first = asyncio.create_task(credential.get_token(SCOPE))
        second = asyncio.create_task(credential.get_token_info(SCOPE))
        assert await asyncio.to_thread(agent.arrived.acquire, timeout=WAIT)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        agent.gate.set()
        return (await second).token

    assert asyncio.run(main(), debug=True).endswith(".1")
    assert len(agent.requests) == 1


def test_the_loop_goes_on_while_the_agent_thinks(agent: FakeAgent) -> None:
    async def main() -> None:
        agent.gate.clear()
        credential = aio.JobCredential(socket_path=agent.path)
        task = asyncio.create_task(credential.get_token(SCOPE))
        assert await asyncio.to_thread(agent.arrived.acquire, timeout=WAIT)
        assert not task.done()
        agent.gate.set()
        await task

    asyncio.run(main(), debug=True)


def test_a_loop_that_ends_in_the_middle_leaves_nothing_behind(agent: FakeAgent) -> None:
    credential = aio.JobCredential(socket_path=agent.path)

    async def main() -> None:
        agent.gate.clear()
        task = asyncio.create_task(credential.get_token(SCOPE))
        assert await asyncio.to_thread(agent.arrived.acquire, timeout=WAIT)
        assert not task.done()

    asyncio.run(main(), debug=True)
    agent.gate.set()
    assert credential._agent.async_flights == {}

    async def again() -> str:
        return (await credential.get_token(SCOPE)).token

    assert asyncio.run(again(), debug=True)


def test_a_request_of_a_loop_that_is_gone_is_not_waited_for(agent: FakeAgent) -> None:
    """A new loop may be at the address of an old one that was dropped with a request under way."""
    credential = aio.JobCredential(socket_path=agent.path, timeout=WAIT)
    gone = asyncio.new_event_loop()
    pending = gone.create_task(asyncio.sleep(WAIT))

    async def main() -> str:
        key = _ask.token_key(None, SCOPE, None)
        ask = _ask.token_ask(key, SCOPE, min_validity=0, claims=None, tenant_id=None)
        flights: dict[Any, Any] = credential._agent.async_flights
        name = (id(asyncio.get_running_loop()), *ask.flight)
        flights[name] = pending
        return (await credential.get_token(SCOPE)).token

    try:
        assert asyncio.run(main(), debug=True).endswith(".1")
    finally:
        pending.cancel()
        gone.run_until_complete(asyncio.gather(pending, return_exceptions=True))
        gone.close()


def test_sync_and_async_share_memory_and_connections(agent: FakeAgent) -> None:
    sync = JobCredential(socket_path=agent.path)
    twin = aio.JobCredential(socket_path=agent.path)
    first = sync.get_token(SCOPE)

    async def main() -> None:
        assert await twin.get_token(SCOPE) == first
        await twin.get_token("api://2")
        # In the thread of the loop, as careless code does: slow, but no deadlock.
        sync.get_token("api://3")

    asyncio.run(main(), debug=True)
    assert (len(agent.requests), agent.connections) == (3, 1)


def test_a_sync_call_inside_the_loop_does_not_wait_for_the_loop(agent: FakeAgent) -> None:
    async def main() -> None:
        credential = aio.JobCredential(socket_path=agent.path)
        agent.gate.clear()
        task = asyncio.create_task(credential.get_token(SCOPE))
        assert await asyncio.to_thread(agent.arrived.acquire, timeout=WAIT)
        agent.gate.set()
        assert JobCredential(socket_path=agent.path, timeout=WAIT).get_token(SCOPE).token
        await task

    asyncio.run(main(), debug=True)


# Processes


def tokens_of(credential: JobCredential, scopes: list[str]) -> tuple[int, list[str]]:
    return os.getpid(), [credential.get_token(scope).token for scope in scopes]


def ask_in_child(credential: JobCredential, scopes: list[str], out: Any) -> None:
    out.put(tokens_of(credential, scopes))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_credential_goes_to_another_process(agent: FakeAgent, method: str) -> None:
    context: Any = multiprocessing.get_context(method)
    credential = JobCredential(socket_path=agent.path)
    credential.get_token(SCOPE)
    out = context.SimpleQueue()
    child = context.Process(target=ask_in_child, args=(credential, [SCOPE, "api://child"], out))
    child.start()
    pid, tokens = out.get()
    child.join(WAIT)
    assert child.exitcode == 0
    assert pid != os.getpid()
    assert tokens[-1].endswith(f".{len(agent.requests)}")
    # A forked child has what its parent knew; others begin with nothing.
    assert len(agent.requests) == (2 if method == "fork" else 3)
    assert agent.connections == 2, "the child has a connection of its own"
    assert credential.get_token("api://parent").token.endswith(f".{len(agent.requests)}")
    assert agent.connections == 2, "and the parent still has its own"


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_errors_come_back_from_a_pool(agent: FakeAgent, method: str) -> None:
    agent.fail(502, "grant_ended", hint="Submit it again.", retry_after=3)
    with multiprocessing.get_context(method).Pool(1) as pool:
        with pytest.raises(RejectedError) as caught:
            pool.apply(tokens_of, (JobCredential(socket_path=agent.path), [SCOPE]))
        pool.close()
        pool.join()
    error = caught.value
    assert (error.code, error.hint, error.retry_after) == ("grant_ended", "Submit it again.", 3)
    assert error.request_id == "req-1"


def fork(child: Callable[[], bool]) -> int:
    """Runs ``child`` in a forked process; gives its exit status."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            signal.alarm(WAIT)
            status = 0 if child() else 1
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_fork_in_the_middle_of_a_request(agent: FakeAgent) -> None:
    """Another thread has a request under way when the process forks: the child must neither wait for it nor read it."""
    credential = JobCredential(socket_path=agent.path, timeout=WAIT)
    agent.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(credential.get_token, SCOPE)
        assert agent.arrived.acquire(timeout=WAIT)

        def child() -> bool:
            # The double's gate is this process's copy: opening it here would do nothing. The parent opens its own.
            os.write(started[1], b"x")
            return credential.get_token(SCOPE).token.startswith("eyJ")

        started = os.pipe()

        def open_gate() -> None:
            os.read(started[0], 1)
            agent.gate.set()

        opener = threading.Thread(target=open_gate)
        opener.start()
        assert fork(child) == 0
        opener.join(WAIT)
        assert asked.result(WAIT).token.startswith("eyJ")
    for end in started:
        os.close(end)
    assert len(agent.requests) == 2
    assert agent.connections == 2


def test_a_forked_child_keeps_tokens_and_drops_the_rest(agent: FakeAgent) -> None:
    credential = JobCredential(socket_path=agent.path)
    first = credential.get_token(SCOPE)
    known = credential._agent
    (inherited,) = known.idle

    def child() -> bool:
        return (
            credential.get_token(SCOPE) == first
            and known.idle == []
            and inherited.sock.fileno() == -1
            and known.pid == os.getpid()
        )

    assert fork(child) == 0
    assert known.idle == [inherited]
    assert credential.get_token("api://2").token.endswith(".2")
    assert agent.connections == 1


def test_a_fork_behind_pythons_back(agent: FakeAgent) -> None:
    """A library that forks runs none of Python's hooks; then the process id tells."""
    credential = JobCredential(socket_path=agent.path, timeout=5)
    credential.get_token(SCOPE)
    known = credential._agent
    (inherited,) = known.idle
    # What such a child finds: the state of another process, with a request under way that will never end.
    known.pid = inherited.pid = os.getpid() + 1
    ask = _ask.token_ask(_ask.token_key(None, "api://2", None), "api://2", min_validity=0, claims=None, tenant_id=None)
    flight = known.flights[ask.flight] = _agent.Flight()
    flight.owner = 0
    assert credential.get_token("api://2").token.endswith(".2")
    assert agent.connections == 2
    assert known.pid == os.getpid()


def test_a_connection_of_another_process_is_not_used(agent: FakeAgent) -> None:
    credential = JobCredential(socket_path=agent.path)
    credential.get_token(SCOPE)
    (inherited,) = credential._agent.idle
    inherited.pid += 1
    credential.get_token("api://2")
    assert agent.connections == 2
    assert inherited.sock.fileno() == -1


def test_forking_under_load(agent: FakeAgent) -> None:
    """Threads that keep asking while the process forks again and again: no child hangs."""
    credential = JobCredential(socket_path=agent.path, timeout=WAIT)
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            credential.get_token(SCOPE, claims="{}")

    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(load) for _ in range(3)]
        try:
            statuses = [fork(lambda: credential.get_token(SCOPE, claims="{}").token != "") for _ in range(20)]
        finally:
            stop.set()
        for future in futures:
            future.result(WAIT)
    assert statuses == [0] * 20


def test_pickling(twin: SyncTwin, agent: FakeAgent) -> None:
    credential = twin.make(client_id="x", min_validity=5, timeout=7)
    token = twin.get(credential, SCOPE)
    data = pickle.dumps(credential)
    assert token.token.encode() not in data
    for other in (pickle.loads(data), copy.copy(credential), copy.deepcopy(credential)):
        assert other.__dict__ == {**credential.__dict__, "_cached_agent": None}
        assert twin.get(other, SCOPE) == token
    assert agent.requests[0].query["client_id"] == "x"
    assert len(agent.requests) == 1
