"""The credential for asyncio. Import it only where asyncio is used: asyncio is slow to import."""

from __future__ import annotations

import asyncio
import time

from . import _ask
from ._agent import EARLY_TIMEOUT, Agent, Held
from ._connection import CHUNK_BYTES, TimedOut
from ._credential import CredentialBase
from ._errors import JobCredentialError, for_caller

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from types import TracebackType
    from typing import Any, TypeVar

    from azure.core.credentials import AccessToken, AccessTokenInfo, TokenRequestOptions
    from typing_extensions import Self

    from ._connection import Steps
    from ._tokens import RegistryCredential, Token

    T = TypeVar("T")

__all__ = ["JobCredential"]


class JobCredential(CredentialBase):
    """Gets tokens from the jobcred agent; works wherever Azure's SDKs take an ``AsyncTokenCredential``.

    Options, behaviour and memory are those of :class:`jobcred.JobCredential`. One object serves any number of event
    loops and processes; a cancelled call does not cancel the request that others wait for.
    """

    async def get_token(
        self,
        *scopes: str,
        claims: str | None = None,
        tenant_id: str | None = None,
        enable_cae: bool = False,  # noqa: ARG002, FBT001, FBT002, RUF100 - Azure's signature; the agent decides
        **kwargs: Any,  # noqa: ARG002, RUF100 - Azure's signature
    ) -> AccessToken:
        """A token for a scope, for example ``https://storage.azure.com/.default``.

        :param scopes: exactly one scope, or a resource.
        :param claims: a claims challenge from a resource; asks the agent past this process's memory.
        :param tenant_id: the issuing tenant; refused where the identity cannot leave its own.
        :param enable_cae: accepted and ignored.
        :raises JobCredentialError: when there is no token; see ``code``.
        """
        return (await self._token(scopes, claims, tenant_id)).to_access_token()

    async def get_token_info(self, *scopes: str, options: TokenRequestOptions | None = None) -> AccessTokenInfo:
        """The same as :meth:`get_token`, with the time from which on to ask again.

        :param scopes: exactly one scope, or a resource.
        :param options: ``claims`` and ``tenant_id`` as in :meth:`get_token`; others are ignored.
        :raises JobCredentialError: when there is no token; see ``code``.
        """
        wanted = options or {}
        return (await self._token(scopes, wanted.get("claims"), wanted.get("tenant_id"))).to_access_token_info()

    async def registry_credential(self, server: str) -> RegistryCredential:
        """A user name and password for a container registry.

        :param server: the registry's login server, for example ``myregistry.azurecr.io``.
        :raises JobCredentialError: when there is none; see ``code``.
        """
        try:
            ask = _ask.registry_ask(server, min_validity=self._min_validity)
            return (await _obtain(self._agent, ask, self._timeout)).answer  # type: ignore[return-value]
        except JobCredentialError as error:
            raise for_caller(error) from None

    async def close(self) -> None:
        """Closes this process's idle connections to the agent. The credential can be used afterwards."""
        self._agent.close_idle()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.close()

    async def _token(self, scopes: tuple[str, ...], claims: str | None, tenant_id: str | None) -> Token:
        try:
            scope = _ask.one_scope(scopes)
            key = _ask.token_key(self._identity, scope, tenant_id)
            answer = None if claims else self._from_memory(key)
            if answer is None:
                ask = self._token_ask(key, scope, claims, tenant_id)
                answer = (await _obtain(self._agent, ask, self._timeout)).answer
        except JobCredentialError as error:
            raise for_caller(error) from None
        return answer  # type: ignore[return-value]


async def _obtain(agent: Agent, ask: _ask.Ask, timeout: float) -> Held:
    """What ``Agent.obtain`` does, for asyncio: one request under way per event loop and flight.

    Threads and event loops don't wait for each other's requests: a thread that waited for its own loop would do so
    for ever.
    """
    loop = asyncio.get_running_loop()
    deadline = time.monotonic() + timeout
    name = (id(loop), *ask.flight)
    while True:
        held = None if ask.claims else agent.find(ask.key, ask.min_validity)
        if held is not None and not held.due():
            return held
        task = agent.async_flights.get(name)
        if task is None or task.done() or task.get_loop() is not loop:
            # A task of its own, so that it outlives a caller that is cancelled.
            task = loop.create_task(_lead(agent, ask, held, deadline, timeout))
            agent.async_flights[name] = task
            task.add_done_callback(lambda done: _forget(agent, name, done))
        elif held is not None:
            # Somebody is asking for a newer one; this one is good.
            return held
        remaining = deadline - time.monotonic()
        if remaining <= 0 or not (await asyncio.wait([task], timeout=remaining))[0]:
            raise agent.too_slow(timeout)
        if not task.cancelled():
            outcome = task.result()
            if isinstance(outcome, JobCredentialError):
                raise outcome
            return outcome


def _forget(agent: Agent, name: tuple[object, ...], task: asyncio.Task[Held | JobCredentialError]) -> None:
    if agent.async_flights.get(name) is task:
        del agent.async_flights[name]


async def _lead(
    agent: Agent, ask: _ask.Ask, held: Held | None, deadline: float, timeout: float
) -> Held | JobCredentialError:
    """One request. An error is returned, since a raised one that nobody waits for any more would be reported."""
    began = time.monotonic()
    if held is not None:
        timeout = min(timeout, EARLY_TIMEOUT)
        deadline = began + timeout
    try:
        try:
            answer = await _drive(agent.exchange(ask), deadline)
        except TimedOut:
            raise agent.too_slow(timeout) from None
        return agent.keep(ask, answer, time.monotonic() - began)
    except JobCredentialError as error:
        return agent.stay(ask, held, error, time.monotonic() - began) or error


async def _drive(steps: Steps[T], deadline: float) -> T:
    """What ``_connection.drive`` does, for asyncio."""
    loop = asyncio.get_running_loop()
    try:
        step = next(steps)
        while True:
            remaining = deadline - time.monotonic()
            data = None
            try:
                if remaining <= 0:
                    raise TimedOut
                if isinstance(step, float):
                    await asyncio.sleep(min(step, remaining))
                else:
                    data = await _receive(loop, step, deadline)
            except (OSError, TimedOut) as error:
                step = steps.throw(error)
            else:
                step = steps.send(data)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    finally:
        # A cancellation lands here as well; closing the generator closes its connection.
        steps.close()


async def _receive(loop: asyncio.AbstractEventLoop, sock: _socket.socket, deadline: float) -> bytes:
    # By readiness and not by loop.sock_recv, so that the same connections serve threads and every kind of event loop.
    while True:
        try:
            return sock.recv(CHUNK_BYTES)
        except BlockingIOError:
            pass
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimedOut
        ready = loop.create_future()
        loop.add_reader(sock.fileno(), _wake, ready)
        timer = loop.call_later(remaining, _wake, ready)
        try:
            await ready
        finally:
            timer.cancel()
            loop.remove_reader(sock.fileno())


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
