"""A job's program that asks for a storage token once, and says in JSON whose it got or what went wrong."""

from __future__ import annotations

import base64
import json

from jobcred import JobCredential, JobCredentialError


def main() -> None:
    try:
        token = JobCredential(timeout=10).get_token("https://storage.azure.com/.default").token
    except JobCredentialError as error:
        names = [kind.__name__ for kind in type(error).__mro__]
        print(json.dumps({"error": names, "message": str(error)}))
        return
    payload = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    print(json.dumps({"oid": claims["oid"]}))


if __name__ == "__main__":
    main()
