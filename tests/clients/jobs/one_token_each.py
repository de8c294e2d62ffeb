"""Many processes that need a token at the same moment, as ranks do at a job's start. It prints one line of JSON."""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from typing import TYPE_CHECKING

from azure.identity import ManagedIdentityCredential

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue
    from multiprocessing.synchronize import Barrier

SCOPE = "https://storage.azure.com/.default"
MOST_ERRORS_TOLD = 3


def process(at_once: Barrier, found: SimpleQueue[str | None]) -> None:
    """One of them, with a credential of its own. What went wrong, or nothing."""
    credential = ManagedIdentityCredential()
    at_once.wait()
    try:
        credential.get_token(SCOPE)
    except Exception as error:
        found.put(f"{type(error).__name__}: {error}")
    else:
        found.put(None)


def main(count: int) -> None:
    # Forked once the SDK is there: what is measured is not the start of interpreters.
    context = multiprocessing.get_context("fork")
    at_once = context.Barrier(count + 1)
    found: SimpleQueue[str | None] = context.SimpleQueue()
    processes = [context.Process(target=process, args=(at_once, found)) for _ in range(count)]
    for started in processes:
        started.start()
    at_once.wait()
    start = time.perf_counter()
    outcomes = [found.get() for _ in processes]
    seconds = time.perf_counter() - start
    for started in processes:
        started.join()
    errors = [outcome for outcome in outcomes if outcome is not None]
    print(json.dumps({"failed": len(errors), "seconds": seconds, "errors": errors[:MOST_ERRORS_TOLD]}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
