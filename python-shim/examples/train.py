"""A small training-like job: several worker processes, each of which needs Azure credentials.

Run it with `jobcred run --sandbox -- python3 train.py`. Each worker asks the agent for a storage token, as a data
loader would, and one asks for a registry credential; all of them print whose the token is, never the token.
"""

from __future__ import annotations

import base64
import json
import multiprocessing
import time

from jobcred import JobCredential

WORKERS = 4
STORAGE = "https://storage.azure.com/.default"
REGISTRY = "myregistry.azurecr.io"


def claims_of(token: str) -> dict[str, object]:
    """Reads the claims of a JWT, without any check: only the issuer's relying party can check them."""
    payload = token.split(".")[1]
    claims: dict[str, object] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims


def work(rank: int) -> None:
    """One worker: gets what it needs and says whose it is."""
    with JobCredential() as credential:
        token = credential.get_token(STORAGE)
        claims = claims_of(token.token)
        life = token.expires_on - int(time.time())
        print(
            f"rank {rank}: storage token for {claims['aud']}, "
            f"object id {claims['oid']}, tenant {claims['tid']}, {life // 60} min left"
            + (" [sandbox]" if claims.get("jobcred_sandbox") else ""),
            flush=True,
        )
        if rank == 0:
            registry = credential.registry_credential(REGISTRY)
            life = registry.expires_on - int(time.time())
            print(
                f"rank {rank}: registry credential for {registry.server}, "
                f"user {registry.username}, {life // 60} min left",
                flush=True,
            )


def main() -> None:
    """Starts the workers and fails if one of them does."""
    # Spawned, not forked: each worker is a process of its own from the start, as a launcher would make them.
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=work, args=(rank,)) for rank in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    failed = [rank for rank, worker in enumerate(workers) if worker.exitcode != 0]
    if failed:
        raise SystemExit(f"workers {failed} failed")
    print(f"all {WORKERS} workers have their credentials")


if __name__ == "__main__":
    main()
