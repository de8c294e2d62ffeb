"""Errors: what they say, and what Azure's packages do with them. Both twins."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from azure.core.credentials import AccessToken, AccessTokenInfo
from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError
from azure.core.pipeline import AsyncPipeline, Pipeline
from azure.core.pipeline.policies import (
    AsyncBearerTokenCredentialPolicy,
    AsyncRetryPolicy,
    BearerTokenCredentialPolicy,
    RetryPolicy,
)
from azure.core.pipeline.transport import AsyncHttpTransport, HttpTransport
from azure.core.rest import HttpRequest
from azure.identity import ChainedTokenCredential, CredentialUnavailableError
from azure.identity.aio import ChainedTokenCredential as AsyncChainedTokenCredential

import jobcred
from fake_agent import error, reply
from jobcred import JobCredential, JobCredentialError, _connection, aio

if TYPE_CHECKING:
    from pathlib import Path

    from fake_agent import FakeAgent
    from twins import SyncTwin

SCOPE = "https://storage.azure.com/.default"

KINDS = [
    ("invalid_request", 400, jobcred.InvalidRequestError, ClientAuthenticationError),
    ("denied", 403, jobcred.DeniedError, ClientAuthenticationError),
    ("unavailable", 503, jobcred.UnavailableError, CredentialUnavailableError),
    ("rejected", 502, jobcred.RejectedError, ClientAuthenticationError),
    ("grant_ended", 502, jobcred.GrantEndedError, ClientAuthenticationError),
    ("transient", 503, jobcred.TransientError, ServiceRequestError),
    ("internal", 500, jobcred.InternalError, ClientAuthenticationError),
    ("brand_new", 500, jobcred.InternalError, ClientAuthenticationError),
]


@pytest.mark.parametrize(("code", "status", "kind", "azure"), KINDS, ids=lambda value: str(value)[:20])
def test_kinds(  # noqa: PLR0917 - one row of a table
    twin: SyncTwin, agent: FakeAgent, code: str, status: int, kind: type, azure: type
) -> None:
    agent.fail(status, code, hint="Do that.", retry_after=4)
    for call in (twin.get, twin.info):
        with pytest.raises(JobCredentialError) as caught:
            call(twin.make(), SCOPE)
        raised = caught.value
        assert isinstance(raised, kind)
        assert isinstance(raised, azure)
        assert isinstance(raised, CredentialUnavailableError) is (code == "unavailable")
        assert (raised.hint, raised.retry_after, raised.request_id) == ("Do that.", 4, "req-1")
        assert str(raised) == raised.message
        assert f"told {code}. Do that. [" in str(raised)
        assert "request req-1]" in str(raised)
        assert raised.code == (code if code != "brand_new" else "internal")
    with pytest.raises(kind):
        twin.run(twin.make().registry_credential("r.azurecr.io"))


def test_errors_can_be_pickled(twin: SyncTwin, agent: FakeAgent) -> None:
    for code, status, kind, azure in KINDS:
        agent.fail(status, code, hint="h", retry_after=4)
        with pytest.raises(JobCredentialError) as caught:
            twin.get(twin.make(), SCOPE)
        copy = pickle.loads(pickle.dumps(caught.value))
        assert isinstance(copy, kind)
        assert isinstance(copy, azure)
        assert (str(copy), copy.details) == (str(caught.value), caught.value.details)


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"error": "text"},
        {"error": {"code": 7, "message": ["x"], "hint": {}, "retry_after": "soon", "request_id": 1}},
        {"error": {"code": "rejected", "message": "", "retry_after": -1}},
        {"error": {"code": "rejected", "message": "a\x1b[31m\r\nb", "retry_after": 1e400}},
        {"error": {"code": "rejected", "message": "x" * 100_000, "retry_after": True}},
        {"error": {"code": "rejected", "message": "\ud800", "retry_after": 1e300}},
    ],
)
def test_malformed_errors(twin: SyncTwin, agent: FakeAgent, body: object) -> None:
    agent.answer = lambda _: reply(502, body, headers="X-Request-Id: from-header\r\n")
    with pytest.raises(JobCredentialError) as caught:
        twin.get(twin.make(), SCOPE)
    text = str(caught.value)
    assert 10 < len(text) < 2200
    assert text.isprintable()
    assert caught.value.retry_after is None
    assert caught.value.request_id == "from-header"


def test_retry_after_of_the_header(twin: SyncTwin, agent: FakeAgent) -> None:
    agent.answer = lambda _: reply(503, {"error": {"code": "transient", "message": "m"}}, headers="Retry-After: 7\r\n")
    with pytest.raises(jobcred.TransientError) as caught:
        twin.get(twin.make(), SCOPE)
    assert caught.value.retry_after == 7


def test_errors_are_not_remembered(twin: SyncTwin, agent: FakeAgent) -> None:
    agent.fail(502, "rejected")
    for _ in range(2):
        with pytest.raises(jobcred.RejectedError):
            twin.get(twin.make(), SCOPE)
    agent.answer = agent.usual
    assert twin.get(twin.make(), SCOPE).token


def test_azure_types_where_azure_is_used(twin: SyncTwin) -> None:
    assert type(twin.get(twin.make(), SCOPE)) is AccessToken
    assert type(twin.info(twin.make(), SCOPE)) is AccessTokenInfo


BARE = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "azure":
            raise {error}
sys.meta_path.insert(0, Absent())
import jobcred
try:
    jobcred.JobCredential().get_token("api://x")
except jobcred.AgentGoneError as error:
    print(type(error).__mro__[1].__name__, error.code, "azure.identity" in sys.modules)
"""


@pytest.mark.parametrize("broken", ["ModuleNotFoundError(name)", "RuntimeError('broken install')"])
def test_without_azure(broken: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BARE.format(error=broken)],
        env={"JOBCRED_SOCKET": "/nowhere/x.sock", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "TransientError transient False\n"
    assert done.stderr == ""


# Chains


class Other:
    """The next credential of a chain."""

    calls = 0

    def get_token(self, *_: str, **__: Any) -> AccessToken:
        self.calls += 1
        return AccessToken("other", 9**10)


class AsyncOther(Other):
    async def get_token(self, *_: str, **__: Any) -> AccessToken:  # type: ignore[override]
        self.calls += 1
        return AccessToken("other", 9**10)


def chained(twin: SyncTwin, credential: Any) -> tuple[Any, Other]:
    if twin.name == "aio":
        other: Other = AsyncOther()
        return AsyncChainedTokenCredential(credential, other), other  # type: ignore[arg-type]
    other = Other()
    return ChainedTokenCredential(credential, other), other


def test_a_chain_takes_our_token(twin: SyncTwin) -> None:
    chain, other = chained(twin, twin.make())
    assert twin.get(chain, SCOPE).token.endswith(".1")
    assert other.calls == 0


def test_a_chain_goes_on_when_no_agent_was_meant_to_be_here(
    twin: SyncTwin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_connection, "socket_paths", lambda _: [str(tmp_path / "a"), str(tmp_path / "b")])
    chain, _ = chained(twin, twin.make(socket_path="/any"))
    assert twin.get(chain, SCOPE).token == "other"


def test_a_chain_stops_when_the_agent_that_was_named_is_gone(twin: SyncTwin, tmp_path: Path) -> None:
    chain, other = chained(twin, twin.make(socket_path=tmp_path / "none"))
    with pytest.raises(ClientAuthenticationError, match="No jobcred agent answers at"):
        twin.get(chain, SCOPE)
    assert other.calls == 0


def test_a_chain_goes_on_when_unavailable(twin: SyncTwin, agent: FakeAgent) -> None:
    agent.fail(503, "unavailable")
    chain, _ = chained(twin, twin.make())
    assert twin.get(chain, SCOPE).token == "other"


@pytest.mark.parametrize("code", ["invalid_request", "denied", "rejected", "grant_ended", "transient", "internal"])
def test_a_chain_stops_at_everything_else(twin: SyncTwin, agent: FakeAgent, code: str) -> None:
    agent.fail(502, code, hint="Do that.")
    chain, other = chained(twin, twin.make())
    with pytest.raises(ClientAuthenticationError, match=rf"told {code}\. Do that\."):
        twin.get(chain, SCOPE)
    assert other.calls == 0


# The pipeline of an SDK


class Response:
    content_type = "text/plain"

    def __init__(self, request: HttpRequest, status: int, headers: dict[str, str]) -> None:
        self.request, self.status_code, self.headers = request, status, headers


CHALLENGE = {"WWW-Authenticate": 'Bearer error="insufficient_claims", claims="eyJhIjogMX0="'}


class Service(HttpTransport[Any, Any]):
    """A service behind an SDK: notes the tokens that arrive, and asks for claims once if told so."""

    def __init__(self, *, challenge: bool = False) -> None:
        self.seen: list[str] = []
        self.challenge = challenge

    def answer(self, request: HttpRequest) -> Response:
        self.seen.append(request.headers["Authorization"])
        if self.challenge and len(self.seen) == 1:
            return Response(request, 401, CHALLENGE)
        return Response(request, 200, {})

    def send(self, request: Any, **_: Any) -> Any:
        return self.answer(request)

    def open(self) -> None: ...

    def close(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


class AsyncService(AsyncHttpTransport[Any, Any]):
    def __init__(self, service: Service) -> None:
        self.service = service

    async def send(self, request: Any, **_: Any) -> Any:
        return self.service.answer(request)

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...

    async def sleep(self, duration: float) -> None:
        await asyncio.sleep(min(duration, 0.01))


def send(twin: SyncTwin, credential: Any, service: Service, times: int = 1) -> None:
    def request() -> HttpRequest:
        return HttpRequest("GET", "https://service.invalid/")

    if twin.name == "aio":

        async def run() -> None:
            policies: list[Any] = [
                AsyncRetryPolicy(retry_backoff_factor=0.01),
                AsyncBearerTokenCredentialPolicy(credential, SCOPE),
            ]
            pipeline: AsyncPipeline[Any, Any] = AsyncPipeline(AsyncService(service), policies)
            for _ in range(times):
                await pipeline.run(request())

        twin.run(run())
    else:
        policies: list[Any] = [RetryPolicy(retry_backoff_factor=0.01), BearerTokenCredentialPolicy(credential, SCOPE)]
        pipeline: Pipeline[Any, Any] = Pipeline(service, policies)
        for _ in range(times):
            pipeline.run(request())


def test_the_bearer_policy(twin: SyncTwin, agent: FakeAgent) -> None:
    service = Service()
    send(twin, twin.make(), service, times=3)
    assert len(service.seen) == 3
    assert len(set(service.seen)) == 1
    assert service.seen[0].startswith("Bearer eyJ")
    assert len(agent.requests) == 1


def test_a_claims_challenge(twin: SyncTwin, agent: FakeAgent) -> None:
    service = Service(challenge=True)
    send(twin, twin.make(), service)
    assert [text[-2:] for text in service.seen] == [".1", ".2"]
    assert [request.query.get("claims") for request in agent.requests] == [None, '{"a": 1}']


def test_the_sdks_own_retries_bridge_a_transient_error(twin: SyncTwin, agent: FakeAgent) -> None:
    def answer(request: Any) -> bytes:
        return error(503, "transient") if len(agent.requests) == 1 else agent.usual(request)

    agent.answer = answer
    service = Service()
    send(twin, twin.make(), service)
    assert len(service.seen) == 1
    assert len(agent.requests) == 2


def test_the_sdk_does_not_retry_what_is_refused(twin: SyncTwin, agent: FakeAgent) -> None:
    agent.fail(502, "rejected")
    with pytest.raises(jobcred.RejectedError, match="told rejected"):
        send(twin, twin.make(), Service())
    assert len(agent.requests) == 1


def test_the_credentials_are_what_azure_core_says_they_are() -> None:
    from azure.core.credentials import SupportsTokenInfo, TokenCredential
    from azure.core.credentials_async import AsyncSupportsTokenInfo, AsyncTokenCredential

    assert isinstance(JobCredential(), TokenCredential)
    assert isinstance(JobCredential(), SupportsTokenInfo)
    assert isinstance(aio.JobCredential(), AsyncTokenCredential)
    assert isinstance(aio.JobCredential(), AsyncSupportsTokenInfo)
