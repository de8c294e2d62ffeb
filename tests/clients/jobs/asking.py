"""How one process of a training job asks for tokens, with unmodified azure-identity, and what it holds each to."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from azure.identity import DefaultAzureCredential, ManagedIdentityCredential

if TYPE_CHECKING:
    from collections.abc import Callable

# Both SDKs, and both ways to get at a managed identity.
KINDS = ("managed", "default", "managed aio", "default aio")
# What is asked for, and how many seconds after the job's start it is first needed: as in a job that reads its data,
# then a secret, then writes down what it did. So the tokens are not renewed at the same moment.
AUDIENCES = (
    ("https://storage.azure.com", 0),
    ("https://vault.azure.net", 14),
    ("https://management.azure.com", 28),
)
PAUSE_SECONDS = 1.0
# A token with less than this left is of no use for a request that takes its time.
LEAST_SECONDS = 3
MOST_FAILURES_TOLD = 3

# Every status that an SDK of this process was answered with, tries that it makes by itself included.
_statuses: Counter[int] = Counter()


@dataclass
class Tally:
    """What one process got."""

    name: str
    kind: str
    pid: int = 0
    tokens: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    failed: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    # Seconds: the shortest life of a token that came, the longest wait for one, and how much too long a pause took at
    # most, which is the machine's doing.
    least_left: float = 1e9
    longest_wait: float = 0
    longest_lag: float = 0

    def fail(self, reason: str) -> None:
        self.failed += 1
        if len(self.failures) < MOST_FAILURES_TOLD:
            self.failures.append(reason)

    def paused(self, since: float) -> None:
        self.longest_lag = max(self.longest_lag, time.monotonic() - since - PAUSE_SECONDS)


class Asker:
    """A process that asks for one audience after the other."""

    def __init__(self, name: str, kind: str, *, principal: str, launched: float) -> None:
        _statuses.clear()
        self.tally = Tally(name, kind, os.getpid())
        self._principal = principal
        self._launched = launched
        self._seen: dict[str, str] = {}
        self._round = 0

    def _audience(self) -> str:
        age = time.monotonic() - self._launched
        needed = [audience for audience, after in AUDIENCES if age >= after]
        self._round += 1
        return needed[self._round % len(needed)]

    def _judge(self, audience: str, token: str, before: float) -> None:
        """Notes what came. `before` is the wall time before it was asked for."""
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        now = time.time()
        self.tally.longest_wait = max(self.tally.longest_wait, now - before)
        if claims["aud"].rstrip("/") != audience:
            self.tally.fail(f"asked for {audience}, got a token for {claims['aud']}")
        if claims["oid"] != self._principal:
            self.tally.fail(f"got a token of {claims['oid']}")
        if claims["exp"] <= before:
            self.tally.fail(f"a token for {audience} had ended {before - claims['exp']:.1f} s before it was asked for")
        # The asynchronous SDK gives out a token that it holds for as long as 30 s, however soon it ends, so what has
        # just come has to have time left, and what was there already must not have ended.
        if "aio" not in self.tally.kind or self._seen.get(audience) != token:
            left = claims["exp"] - now
            self.tally.least_left = min(self.tally.least_left, left)
            if left < LEAST_SECONDS:
                self.tally.fail(f"a token for {audience} had {left:.1f} s left, after {now - before:.1f} s of waiting")
        self._seen[audience] = token
        self.tally.tokens[audience] = self.tally.tokens.get(audience, 0) + 1

    def ask(self, credential: Any) -> None:
        """Once, with the blocking SDK."""
        audience, before = self._audience(), time.time()
        try:
            self._judge(audience, credential.get_token(f"{audience}/.default").token, before)
        except Exception as error:
            self.tally.fail(f"{audience}: {type(error).__name__}: {error}")

    async def ask_aio(self, credential: Any) -> None:
        """Once, with the asynchronous one."""
        audience, before = self._audience(), time.time()
        try:
            self._judge(audience, (await credential.get_token(f"{audience}/.default")).token, before)
        except Exception as error:
            self.tally.fail(f"{audience}: {type(error).__name__}: {error}")

    def work(self, given: Any, *, first: Callable[[], object], is_over: Callable[[], bool]) -> Tally:
        """Asks until it is over. `given` is a credential to use; without one it makes its own, as its kind says.

        `first` is called when the first answer is there.
        """
        if "aio" in self.tally.kind:
            asyncio.run(self._work_aio(first, is_over))
        else:
            held = given if given is not None else credential(self.tally.kind)
            self.ask(held)
            first()
            while not is_over():
                since = time.monotonic()
                time.sleep(PAUSE_SECONDS)
                self.tally.paused(since)
                self.ask(held)
        self.tally.statuses = {str(status): count for status, count in _statuses.items()}
        return self.tally

    async def _work_aio(self, first: Callable[[], object], is_over: Callable[[], bool]) -> None:
        import azure.identity.aio

        default = self.tally.kind.startswith("default")
        kind: Any = getattr(azure.identity.aio, "DefaultAzureCredential" if default else "ManagedIdentityCredential")
        async with kind(raw_response_hook=_note) as held:
            await self.ask_aio(held)
            first()
            while not is_over():
                since = time.monotonic()
                await asyncio.sleep(PAUSE_SECONDS)
                self.tally.paused(since)
                await self.ask_aio(held)


def credential(kind: str) -> Any:
    """One for the blocking SDK."""
    if kind.startswith("default"):
        return DefaultAzureCredential(raw_response_hook=_note)
    return ManagedIdentityCredential(raw_response_hook=_note)


def _note(response: Any) -> None:
    _statuses[response.http_response.status_code] += 1
