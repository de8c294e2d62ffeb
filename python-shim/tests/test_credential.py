"""Tokens and registry credentials: what is asked, what is remembered, for how long. Both twins."""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from fake_agent import SECRET, FakeAgent, reply
from jobcred import InvalidRequestError, TransientError, UnavailableError, registry_credential

if TYPE_CHECKING:
    from conftest import Clock
    from twins import SyncTwin

SCOPE = "https://storage.azure.com/.default"


def test_get_token(twin: SyncTwin, agent: FakeAgent) -> None:
    token = twin.get(twin.make(), SCOPE, enable_cae=True, something="else")
    assert token.token == f"{SECRET}.1"
    assert type(token.expires_on) is int
    assert token.expires_on == pytest.approx(time.time() + agent.life, abs=5)
    text, expires_on = token
    assert (text, expires_on) == (token.token, token.expires_on)


def test_get_token_info(twin: SyncTwin, agent: FakeAgent) -> None:
    info = twin.info(twin.make(), SCOPE, options={"enable_cae": True, "unknown": 1})
    assert info.token == f"{SECRET}.1"
    assert info.token_type == "Bearer"
    assert type(info.refresh_on) is int
    assert info.expires_on - info.refresh_on == agent.life - agent.refresh_in


def test_what_is_sent(twin: SyncTwin, agent: FakeAgent) -> None:
    credential = twin.make(client_id="c&1", min_validity=60)
    twin.info(credential, "api://a+b/.default", options={"claims": '{"a": "ü"}', "tenant_id": "t"})
    (request,) = agent.requests
    assert (request.method, request.path, request.version) == ("GET", "/v1/token", "HTTP/1.1")
    assert request.query == {
        "scope": "api://a+b/.default",
        "client_id": "c&1",
        "min_validity": "60",
        "claims": '{"a": "ü"}',
        "tenant_id": "t",
    }
    assert request.headers["host"] == "jobcred"
    assert request.headers["jobcred"] == "1"


def test_both_methods_and_all_credentials_share_one_memory(twin: SyncTwin, agent: FakeAgent) -> None:
    first = twin.get(twin.make(), SCOPE)
    assert twin.info(twin.make(), SCOPE.removesuffix("/.default")).token == first.token
    assert twin.get(twin.make(), SCOPE, tenant_id="") == first
    assert len(agent.requests) == 1


def test_what_differs_is_asked_for(twin: SyncTwin, agent: FakeAgent) -> None:
    scopes = [SCOPE, "https://storage.azure.com//.default", "https://storage.azure.com/.default/.default", "HTTPS://x"]
    tokens = {twin.get(twin.make(), scope).token for scope in scopes}
    for options in ({"client_id": "x"}, {"object_id": "x"}, {"resource_id": "x"}):
        tokens.add(twin.get(twin.make(**options), SCOPE).token)
    tokens.add(twin.get(twin.make(), SCOPE, tenant_id="t").token)
    assert len(tokens) == len(agent.requests) == 8
    for scope in scopes:
        twin.get(twin.make(), scope)
    assert len(agent.requests) == 8


def test_from_refresh_on_the_agent_is_asked_again(twin: SyncTwin, agent: FakeAgent, clock: Clock) -> None:
    credential = twin.make()
    twin.get(credential, SCOPE)
    clock.advance(agent.refresh_in - 10)
    assert twin.get(credential, SCOPE).token.endswith(".1")
    clock.advance(20)
    assert twin.get(credential, SCOPE).token.endswith(".2")
    # The double's clock did not move, so its token is due at once: asked again, but not before a pause.
    assert twin.get(credential, SCOPE).token.endswith(".2")
    clock.advance(6)
    assert twin.get(credential, SCOPE).token.endswith(".3")


@pytest.mark.parametrize("failure", ["unavailable", "rejected", "transient", "garbage", "gone", "expired"])
def test_a_failed_refresh_keeps_the_token(twin: SyncTwin, agent: FakeAgent, clock: Clock, failure: str) -> None:
    credential = twin.make()
    first = twin.get(credential, SCOPE)
    clock.advance(agent.refresh_in + 10)
    if failure == "garbage":
        agent.answer = lambda _: b"SSH-2.0-x\r\n\r\n"
    elif failure == "expired":
        agent.life = agent.refresh_in = 5
    elif failure == "gone":
        agent.stop()
    else:
        agent.fail(503, failure)
    for _ in range(5):
        assert twin.get(credential, SCOPE) == first
    if failure != "gone":
        assert len(agent.requests) == 2, "one try, then a pause"
        clock.advance(6)
        assert twin.get(credential, SCOPE) == first
        assert len(agent.requests) == 3
    clock.advance(agent.life if failure != "expired" else 3600)
    with pytest.raises(Exception, match=r"\["):
        twin.get(credential, SCOPE)


def test_retry_after_prolongs_the_pause(twin: SyncTwin, agent: FakeAgent, clock: Clock) -> None:
    credential = twin.make()
    twin.get(credential, SCOPE)
    clock.advance(agent.refresh_in + 10)
    agent.fail(503, "transient", retry_after=30)
    twin.get(credential, SCOPE)
    clock.advance(20)
    twin.get(credential, SCOPE)
    assert len(agent.requests) == 2
    clock.advance(20)
    twin.get(credential, SCOPE)
    assert len(agent.requests) == 3


def test_a_slow_failure_prolongs_the_pause(twin: SyncTwin, clock: Clock) -> None:
    """Early tries that run into their timeout must not cost a caller more than a tenth of the time."""
    credential = twin.make()
    twin.get(credential, SCOPE)
    (held,) = credential._agent.held.values()
    held.pause(0.1)
    assert held.retry_at - clock.monotonic() == pytest.approx(5, abs=1)
    held.pause(3.0)
    assert held.retry_at - clock.monotonic() == pytest.approx(30, abs=1)


def test_an_expired_token_is_never_given(twin: SyncTwin, agent: FakeAgent, clock: Clock) -> None:
    credential = twin.make()
    twin.get(credential, SCOPE)
    clock.advance(agent.life)
    agent.fail(503, "unavailable")
    with pytest.raises(UnavailableError):
        twin.get(credential, SCOPE)
    clock.ahead = 0.0
    agent.answer = agent.usual
    assert twin.get(credential, SCOPE).token.endswith(".1"), "wall time decides, also after the clock was set back"


def test_an_expired_answer_is_refused(twin: SyncTwin, agent: FakeAgent) -> None:
    agent.life = agent.refresh_in = -10
    with pytest.raises(TransientError, match="life left") as caught:
        twin.get(twin.make(), SCOPE)
    assert SECRET not in str(caught.value)


def test_min_validity(twin: SyncTwin, agent: FakeAgent) -> None:
    agent.life = agent.refresh_in = 100
    twin.get(twin.make(), SCOPE)
    with pytest.raises(TransientError, match="more than 300 s are needed"):
        twin.get(twin.make(min_validity=300), SCOPE)
    agent.life = 1000
    assert twin.get(twin.make(min_validity=300), SCOPE).token.endswith(".3")
    assert [request.query.get("min_validity") for request in agent.requests] == [None, "300", "300"]
    assert twin.get(twin.make(), SCOPE).token.endswith(".3")


def test_claims_pass_memory_and_their_answer_is_remembered(twin: SyncTwin, agent: FakeAgent) -> None:
    credential = twin.make()
    twin.get(credential, SCOPE)
    assert twin.get(credential, SCOPE, claims="{}").token.endswith(".2")
    assert twin.info(credential, SCOPE, options={"claims": "{}"}).token.endswith(".3")
    assert twin.get(credential, SCOPE).token.endswith(".3")
    assert len(agent.requests) == 3


@pytest.mark.parametrize(
    ("scopes", "part"),
    [
        ((), "no scope"),
        ((SCOPE, SCOPE), "2 scopes"),
        (("",), "empty"),
        ((f"{SCOPE} {SCOPE}",), "white space"),
        (("https://a\u2003b",), "white space"),
        (("https://a\r\nX: y",), "control character"),
        (("https://a\x00",), "control character"),
        (("https://a\x85",), "control character"),
        (("x" * 2049,), "at most 2048"),
        (("\ud800",), "Unicode"),
        ((7,), "must be a str"),
        (([SCOPE],), "must be a str"),
    ],
)
def test_bad_scopes(twin: SyncTwin, agent: FakeAgent, scopes: tuple[str, ...], part: str) -> None:
    with pytest.raises(InvalidRequestError, match=part) as caught:
        twin.get(twin.make(), *scopes)
    assert isinstance(caught.value, ValueError)
    with pytest.raises(ValueError, match=part):
        twin.info(twin.make(), *scopes)
    assert agent.connections == 0


@pytest.mark.parametrize("option", [{"claims": "a\nb"}, {"claims": "x" * 4097}, {"tenant_id": "a\nb"}])
def test_bad_options_of_a_call(twin: SyncTwin, agent: FakeAgent, option: dict[str, str]) -> None:
    with pytest.raises(InvalidRequestError):
        twin.get(twin.make(), SCOPE, **option)
    assert agent.connections == 0


@pytest.mark.parametrize(
    "options",
    [
        {"client_id": "a", "object_id": "b"},
        {"client_id": "a\n"},
        {"socket_path": "a\x00b"},
        {"timeout": 0},
        {"timeout": float("nan")},
        {"min_validity": -1},
        {"min_validity": 1.5},
    ],
)
def test_bad_options(twin: SyncTwin, options: dict[str, object]) -> None:
    with pytest.raises(InvalidRequestError):
        twin.make(**options)


def test_registry_credential(twin: SyncTwin, agent: FakeAgent) -> None:
    credential = twin.make()
    first = twin.run(credential.registry_credential("MyReg.azurecr.io"))
    assert first[:3] == ("myreg.azurecr.io", "u", f"{SECRET}.1")
    assert first.expires_on - first.refresh_on == agent.life - agent.refresh_in
    assert twin.run(credential.registry_credential("myreg.azurecr.io")) is first
    assert registry_credential("myreg.azurecr.io", socket_path=agent.path) is first
    assert [request.target for request in agent.requests] == ["/v1/registry?server=MyReg.azurecr.io"]
    for server in ("", "a\nb", "x" * 1025):
        with pytest.raises(InvalidRequestError):
            twin.run(credential.registry_credential(server))


def test_nothing_prints_a_secret(twin: SyncTwin) -> None:
    credential = twin.make()
    registry = twin.run(credential.registry_credential("r.azurecr.io"))
    twin.get(credential, SCOPE)
    for value in (registry, credential, *credential._agent.held.values()):
        assert SECRET not in f"{value!r} {value}"
    assert pickle.loads(pickle.dumps(registry)) == registry


def test_own_token_types_hide_the_token(agent: FakeAgent) -> None:
    """In a process without azure.core."""
    program = (
        "import sys, jobcred; c = jobcred.JobCredential()\n"
        f"t, i = c.get_token({SCOPE!r}), c.get_token_info({SCOPE!r})\n"
        "assert t.token == i.token and t[1] == i.expires_on and i.token_type == 'Bearer', 'values'\n"
        "print(repr(t), repr(i), str(t), repr(c), 'azure.core' in sys.modules)"
    )
    out = subprocess.run(
        [sys.executable, "-c", program],
        env={"JOBCRED_SOCKET": agent.path, "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert SECRET not in out
    assert out.count("<hidden>") == 3
    assert out.strip().endswith("False")


def test_memory_is_bounded(twin: SyncTwin, agent: FakeAgent) -> None:
    credential = twin.make()
    for number in range(300):
        agent.life = 10_000 + number
        twin.get(credential, f"api://{number}")
    assert len(credential._agent.held) == 256
    twin.get(credential, "api://299")
    assert len(agent.requests) == 300, "the newest is still there"
    twin.get(credential, "api://299", claims="{}")
    twin.get(credential, "api://44")
    assert len(agent.requests) == 301, "a renewal evicts nobody, not even the one that ends first"


def test_closing_and_context_managers(twin: SyncTwin, agent: FakeAgent) -> None:
    credential = twin.make()

    async def use_async() -> None:
        async with credential as entered:
            assert entered is credential
            await credential.get_token(SCOPE)
            assert len(credential._agent.idle) == 1

    if twin.name == "aio":
        twin.run(use_async())
    else:
        with credential as entered:
            assert entered is credential
            credential.get_token(SCOPE)
            assert len(credential._agent.idle) == 1
    assert credential._agent.idle == []
    twin.run(credential.close())
    assert twin.get(credential, SCOPE).token.endswith(".1"), "a closed credential still remembers"
    assert twin.get(credential, "api://other").token.endswith(".2"), "and works"


def test_unknown_fields_and_a_missing_refresh_time(twin: SyncTwin, agent: FakeAgent) -> None:
    end = int(time.time()) + 500
    agent.answer = lambda _: reply(200, {"access_token": "a.b", "token_type": "Bearer", "expires_on": end})
    info = twin.info(twin.make(), SCOPE)
    # Never up to the very end: the SDK adds up to a minute to this time.
    assert (info.token, info.expires_on, info.refresh_on) == ("a.b", end, end - 90)


def test_the_sdk_does_not_keep_a_short_token_to_its_end(twin: SyncTwin, agent: FakeAgent) -> None:
    agent.life, agent.refresh_in = 120, 100
    credential = twin.make()
    for _ in range(2):
        info = twin.info(credential, SCOPE)
        assert info.refresh_on == info.expires_on - 90
        assert info.token == f"{SECRET}.1", "what it asks for early comes from memory"
