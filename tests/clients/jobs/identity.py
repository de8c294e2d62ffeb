"""A job's program that gets tokens with Azure's own SDK and knows nothing of jobcred.

It prints one line of JSON for each way it tried: whose token came of it, or the error. It never prints a token.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from typing import Any

import azure.identity
import azure.identity.aio

SCOPE = "https://storage.azure.com/.default"
WAYS: dict[str, dict[str, Any]] = {
    "unnamed": {},
    "named": {"client_id": os.environ.get("ASK_CLIENT_ID")},
    "nobody": {"client_id": "99999999-9999-9999-9999-999999999999"},
}


def report(way: str, kind: str, token: str | None, error: Exception | None) -> None:
    """One line of JSON."""
    claims: dict[str, Any] = {}
    if token is not None:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    line = {
        "way": way,
        "kind": kind,
        "oid": claims.get("oid"),
        "error": type(error).__name__ if error else None,
        "message": str(error) if error else None,
    }
    print(json.dumps(line), flush=True)


def ask(way: str, kind: str, credential: Any) -> None:
    """With the blocking SDK."""
    try:
        report(way, kind, credential.get_token(SCOPE).token, None)
    except Exception as error:
        report(way, kind, None, error)


async def ask_aio(way: str) -> None:
    """With the asynchronous one. It must find its cached token again, by the resource that the answer names."""
    async with azure.identity.aio.ManagedIdentityCredential(**WAYS[way]) as credential:
        try:
            first = (await credential.get_token(SCOPE)).token
            await credential.get_token(SCOPE)
            report(way, "aio", first, None)
        except Exception as error:
            report(way, "aio", None, error)


def main() -> None:
    for way in sys.argv[1:]:
        ask(way, "sync", azure.identity.ManagedIdentityCredential(**WAYS[way]))
        asyncio.run(ask_aio(way))
        if way == "unnamed":
            ask(way, "default", azure.identity.DefaultAzureCredential())


main()
