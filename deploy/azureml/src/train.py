"""Stands for a training: every process gets a storage token from the node's agent and says whose it is."""

from __future__ import annotations

import base64
import json
import os
import time

from jobcred import JobCredential


def main() -> None:
    """Says who this process is, never the token."""
    with JobCredential() as credential:
        token = credential.get_token("https://storage.azure.com/.default")
    payload = token.token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    minutes = (token.expires_on - int(time.time())) // 60
    print(f"rank {os.environ.get('RANK', '0')}: object id {claims['oid']}, {minutes} min left", flush=True)


if __name__ == "__main__":
    main()
