"""Processes forked from one that has used its credential ask for different audiences at once, over what they inherited.

It prints one line of JSON: how many tokens came, how many were for what the sibling had asked for, and what failed.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import multiprocessing
import os
from typing import TYPE_CHECKING, Any

import azure.identity.aio
import requests
from azure.core.pipeline.transport import RequestsTransport
from azure.identity import ManagedIdentityCredential

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.queues import SimpleQueue
    from multiprocessing.synchronize import Barrier

    Ask = Callable[[str], str]

AUDIENCES = ("https://storage.azure.com", "https://management.azure.com")
MOST_ERRORS_TOLD = 3


def audience_of(token: str) -> str:
    payload = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return str(claims["aud"]).rstrip("/")


def sync(session: requests.Session, patience: float) -> Ask:
    """The blocking SDK's credential, with its own session."""
    del session
    held = ManagedIdentityCredential(retry_total=0, read_timeout=patience)
    return lambda audience: str(held.get_token(f"{audience}/.default").token)


def over_session(session: requests.Session, patience: float) -> Ask:
    """The same over a session that the program keeps, and shares with other things it does."""
    transport = RequestsTransport(session=session, session_owner=False, read_timeout=patience)
    held = ManagedIdentityCredential(transport=transport, retry_total=0)
    return lambda audience: str(held.get_token(f"{audience}/.default").token)


def plain(session: requests.Session, patience: float) -> Ask:
    """No SDK: a program that asks the endpoint by itself."""

    def ask(audience: str) -> str:
        response = session.get(
            os.environ["IDENTITY_ENDPOINT"],
            params={"api-version": "2019-08-01", "resource": audience},
            headers={"X-IDENTITY-HEADER": os.environ["IDENTITY_HEADER"]},
            timeout=patience,
        )
        response.raise_for_status()
        return str(response.json()["access_token"])

    return ask


def aio(session: requests.Session, patience: float) -> Ask:
    """The asynchronous SDK's credential, used before the fork. Each process has a loop of its own.

    What the credential's session keeps of the old loop makes it fail in another, whoever answers, so a sibling goes on
    with a credential of its own, as it would have to.
    """
    del session
    inherited, owner = _aio_credential(patience), os.getpid()
    own: dict[int, tuple[asyncio.AbstractEventLoop, azure.identity.aio.ManagedIdentityCredential]] = {}

    def ask(audience: str) -> str:
        loop, held = own.setdefault(os.getpid(), (asyncio.new_event_loop(), _aio_credential(patience)))
        try:
            return _ask_aio(loop, inherited, audience)
        except RuntimeError as error:
            if os.getpid() == owner or "loop" not in str(error):
                raise
        return _ask_aio(loop, held, audience)

    return ask


def aio_unused(session: requests.Session, patience: float) -> Ask:
    """The same, made before the fork and first used after it, while another was used before."""
    del session
    used, inherited, owner = _aio_credential(patience), _aio_credential(patience), os.getpid()
    loops: dict[int, asyncio.AbstractEventLoop] = {}

    def ask(audience: str) -> str:
        loop = loops.setdefault(os.getpid(), asyncio.new_event_loop())
        return _ask_aio(loop, used if os.getpid() == owner else inherited, audience)

    return ask


def _aio_credential(patience: float) -> azure.identity.aio.ManagedIdentityCredential:
    return azure.identity.aio.ManagedIdentityCredential(retry_total=0, read_timeout=patience)


def _ask_aio(loop: asyncio.AbstractEventLoop, held: azure.identity.aio.ManagedIdentityCredential, audience: str) -> str:
    # With claims it asks anew each time; else it would keep what it has for half a minute.
    return str(loop.run_until_complete(held.get_token(f"{audience}/.default", claims="{}")).token)


WAYS: dict[str, Callable[[requests.Session, float], Ask]] = {
    "sync": sync,
    "session": over_session,
    "plain": plain,
    "aio": aio,
    "aio-unused": aio_unused,
}


def sibling(ask: Ask, audience: str, times: int, at_once: Barrier, found: SimpleQueue[dict[str, Any]]) -> None:
    """Asks for its audience, again and again."""
    right, wrong, errors = 0, 0, []
    at_once.wait()
    for _ in range(times):
        try:
            if audience_of(ask(audience)) == audience:
                right += 1
            else:
                wrong += 1
        except Exception as error:
            errors.append(f"{type(error).__name__}: {error}")
    found.put({"right": right, "wrong": wrong, "failed": len(errors), "errors": errors[:MOST_ERRORS_TOLD]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("--siblings", type=int, default=8)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument(
        "--patience", type=float, default=60, help="seconds; of two that wait for one answer, one waits on"
    )
    arguments = parser.parse_args()

    session = requests.Session()
    ask = WAYS[arguments.way](session, arguments.patience)
    # So that there is a connection to inherit, where one is kept.
    assert audience_of(ask(AUDIENCES[0])) == AUDIENCES[0]

    context = multiprocessing.get_context("fork")
    at_once = context.Barrier(arguments.siblings)
    found: SimpleQueue[dict[str, Any]] = context.SimpleQueue()
    processes = [
        context.Process(target=sibling, args=(ask, AUDIENCES[number % 2], arguments.times, at_once, found))
        for number in range(arguments.siblings)
    ]
    for process in processes:
        process.start()
    parts = [found.get() for _ in processes]
    for process in processes:
        process.join()
    total: dict[str, Any] = {name: sum(part[name] for part in parts) for name in ("right", "wrong", "failed")}
    print(json.dumps({**total, "errors": [error for part in parts for error in part["errors"]]}), flush=True)


if __name__ == "__main__":
    main()
