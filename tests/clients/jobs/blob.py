"""A job's program that keeps something in blob storage, with the Azure SDK and the job's own credential.

It writes and reads until it has used as many different tokens as it was told, and prints one line of JSON: whose they
were, and every status that the service answered. It never prints a token.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import time
import uuid
from pathlib import Path
from typing import Any

from azure.storage.blob import BlobServiceClient
from azure.storage.blob.aio import BlobServiceClient as AsyncBlobServiceClient

import jobcred
import jobcred.aio

# How often it writes; and when it gives up, should the tokens not change.
PAUSE_SECONDS = 0.3
LONGEST_SECONDS = 90
CLAIMS = ("oid", "tid", "appid", "aud", "idtyp", "jobcred_sandbox")


class Log:
    """What went over the wire."""

    def __init__(self, keep: str | None) -> None:
        self.tokens: dict[str, dict[str, Any]] = {}
        self.statuses: dict[int, int] = {}
        self._keep = Path(keep) if keep else None

    def note(self, response: Any) -> None:
        """Called by the SDK for every response, those that it would try again included."""
        exchange = response.http_response
        self.statuses[exchange.status_code] = self.statuses.get(exchange.status_code, 0) + 1
        token = exchange.request.headers["Authorization"].split(" ")[1]
        digest = hashlib.sha256(token.encode()).hexdigest()
        if digest not in self.tokens:
            payload = token.split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
            self.tokens[digest] = {name: claims.get(name) for name in CLAIMS}
            if self._keep:
                with self._keep.open("a") as file:
                    file.write(token + "\n")


def work(log: Log, url: str, tokens: int) -> int:
    """Writes and reads; gives how often."""
    rounds = 0
    end = time.monotonic() + LONGEST_SECONDS
    with (
        jobcred.JobCredential() as credential,
        BlobServiceClient(url, credential=credential, retry_total=0, raw_response_hook=log.note) as service,
    ):
        container = service.create_container(f"sync-{uuid.uuid4()}")
        while (len(log.tokens) < tokens or rounds == 0) and time.monotonic() < end:
            text = f"round {rounds}".encode()
            container.upload_blob("checkpoint", text, overwrite=True)
            assert container.download_blob("checkpoint").readall() == text
            rounds += 1
            if len(log.tokens) < tokens:
                time.sleep(PAUSE_SECONDS)
    return rounds


async def work_async(log: Log, url: str, tokens: int) -> int:
    """The same with the asynchronous SDK."""
    rounds = 0
    end = time.monotonic() + LONGEST_SECONDS
    async with (
        jobcred.aio.JobCredential() as credential,
        AsyncBlobServiceClient(url, credential=credential, retry_total=0, raw_response_hook=log.note) as service,
    ):
        container = await service.create_container(f"aio-{uuid.uuid4()}")
        while (len(log.tokens) < tokens or rounds == 0) and time.monotonic() < end:
            text = f"round {rounds}".encode()
            await container.upload_blob("checkpoint", text, overwrite=True)
            stream = await container.download_blob("checkpoint")
            assert await stream.readall() == text
            rounds += 1
            if len(log.tokens) < tokens:
                await asyncio.sleep(PAUSE_SECONDS)
    return rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="the storage account's")
    parser.add_argument("tokens", type=int, help="how many different tokens to use")
    parser.add_argument("--aio", action="store_true", help="with the asynchronous SDK")
    parser.add_argument("--keep", help="a file for the tokens")
    arguments = parser.parse_args()
    log = Log(arguments.keep)
    url: str = arguments.url
    tokens: int = arguments.tokens
    rounds = asyncio.run(work_async(log, url, tokens)) if arguments.aio else work(log, url, tokens)
    client = "aio" if arguments.aio else "sync"
    print(json.dumps({"client": client, "rounds": rounds, "statuses": log.statuses, "tokens": log.tokens}), flush=True)


if __name__ == "__main__":
    main()
