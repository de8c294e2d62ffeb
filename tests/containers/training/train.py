"""A training that gets a token at start, and another one for the checkpoint that it writes after SIGTERM."""

from __future__ import annotations

import base64
import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from jobcred import JobCredential

if TYPE_CHECKING:
    from collections.abc import Callable

AGENT = "jobcred"


def by_socket(scope: str) -> str:
    """A token by the library of jobcred."""
    with JobCredential() as credential:
        return credential.get_token(scope).token


def by_endpoint(scope: str) -> str:
    """A token as an unmodified SDK asks for it."""
    query = urlencode({"api-version": "2019-08-01", "resource": scope.removesuffix("/.default")})
    header = {"X-IDENTITY-HEADER": os.environ["IDENTITY_HEADER"]}
    with urlopen(Request(f"{os.environ['IDENTITY_ENDPOINT']}?{query}", headers=header), timeout=60) as answer:
        token: str = json.load(answer)["access_token"]
        return token


def say(said: str, scope: str, ask: Callable[[str], str] = by_socket, **more: Any) -> None:
    """Says whose token it has, never the token."""
    payload = ask(scope).split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    whose = {name: claims[name] for name in ("oid", "appid", "aud")}
    print(json.dumps({"said": said, **whose, **more}), flush=True)


def assertion() -> None:
    next(Path("/var/run/secrets").rglob("azure-identity-token")).read_text()


def volume() -> None:
    Path("/run/jobcred/agent.sock").write_text("")


def processes() -> None:
    next(path for path in Path("/proc").glob("[0-9]*/comm") if path.read_text().strip() == AGENT)


def cannot(attempts: dict[str, Callable[[], None]]) -> list[str]:
    """What of these things can't be done from here."""
    failed = []
    for name, attempt in attempts.items():
        try:
            attempt()
        except (OSError, StopIteration):
            failed.append(name)
    return failed


def main() -> None:
    """Trains until it is told to end."""
    told = {signal.SIGTERM}
    # Before anybody can know that it is there; as the first process of its container it would never see it else.
    signal.pthread_sigmask(signal.SIG_BLOCK, told)
    attempts = {
        "read the assertion": assertion,
        "write to the volume": volume,
        "see the agent's processes": processes,
    }
    azure = [name for name in os.environ if name.startswith("AZURE_")]
    say("start", "https://storage.azure.com/.default", cannot=cannot(attempts), azure=azure)
    say("endpoint", "https://storage.azure.com/.default", by_endpoint)
    say("trained", "https://storage.azure.com/.default")
    signal.sigwait(told)
    say("checkpoint", "https://vault.azure.net/.default")


if __name__ == "__main__":
    main()
