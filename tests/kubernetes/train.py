"""A training for the checks: one JSON line for each request, with the principal of the token.

Variables:

- TRAIN_CLIENTS: `socket`, `aio`, `managed` and `default`, the first by default.
- TRAIN_SECONDS: how long it asks again, each time with new credentials.
- TRAIN_PAUSE: seconds between these requests.
- TRAIN_STEPS: how many of them are for the same resource.
- TRAIN_CHECKPOINT: seconds between SIGTERM and the last request.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import sys
import time
from typing import Any

from azure.identity import DefaultAzureCredential, ManagedIdentityCredential

from jobcred import JobCredential
from jobcred.aio import JobCredential as AsyncJobCredential

STARTED = time.monotonic()
signals: list[float] = []


def say(**line: Any) -> None:
    print(json.dumps({"t": round(time.monotonic() - STARTED, 2), **line}), flush=True)


def token_of(client: str, scope: str) -> str:
    """A token, by a new credential of that client."""
    if client == "aio":
        return asyncio.run(_token_of_aio(scope))
    credential: Any = {
        "socket": JobCredential,
        "managed": ManagedIdentityCredential,
        "default": DefaultAzureCredential,
    }[client]()
    with credential:
        return str(credential.get_token(scope).token)


async def _token_of_aio(scope: str) -> str:
    async with AsyncJobCredential() as credential:
        return (await credential.get_token(scope)).token


def ask(at: str, scope: str) -> None:
    """Asks by each client, and says whose token it was. It never says the token."""
    for client in os.environ.get("TRAIN_CLIENTS", "socket").split(","):
        try:
            payload = token_of(client, scope).split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
            line = {"oid": claims["oid"]}
        except Exception as error:  # every kind is a finding
            line = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
        say(at=at, client=client, **line)


def number(name: str, default: float) -> float:
    return float(os.environ.get(name, default))


def receive(*_: object) -> None:
    signals.append(time.monotonic())
    say(at="SIGTERM")


def main() -> None:
    signal.signal(signal.SIGTERM, receive)
    ask("start", "https://storage.azure.com/.default")
    step = 0
    while time.monotonic() < STARTED + number("TRAIN_SECONDS", 0) and not signals:
        step += 1
        # A new resource every few steps: a process remembers the tokens it has.
        ask("step", f"https://step{step // int(number('TRAIN_STEPS', 4))}.example.org/.default")
        time.sleep(number("TRAIN_PAUSE", 1))
    if signals:
        while time.monotonic() < signals[0] + number("TRAIN_CHECKPOINT", 0):
            time.sleep(0.2)
        ask("checkpoint", "https://vault.azure.net/.default")
    say(at="end")
    sys.exit(0)


if __name__ == "__main__":
    main()
