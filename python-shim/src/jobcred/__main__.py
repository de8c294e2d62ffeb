"""``python -m jobcred``: what the agent of this environment is doing. Shows no token.

``python -m jobcred ARGUMENT...`` is the program ``jobcred`` with these arguments, wherever it was installed.
"""

from __future__ import annotations

import os
import sys
import time

from . import __version__, _binary
from ._agent import agent
from ._ask import read_object
from ._connection import TimedOut, drive
from ._errors import JobCredentialError
from ._http import request_bytes

TIMEOUT = 10.0


def main() -> int:
    """Print the agent's status, or become the program; give the exit status."""
    if len(sys.argv) > 1:
        return become_program(sys.argv[1:])
    known = agent(None)
    try:
        reply, path = drive(known.reply_to(request_bytes("GET", "/v1/status", [])), time.monotonic() + TIMEOUT)
        status = read_object(reply, path)
    except TimedOut:
        print(known.too_slow(TIMEOUT), file=sys.stderr)
        return 1
    except JobCredentialError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"jobcred for Python {__version__}; agent {status.get('version')} at {path}")
    print(f"strategy: {status.get('strategy')}; ready: {status.get('ready')}")
    principal = status.get("principal")
    if isinstance(principal, dict):
        print("principal: " + ", ".join(f"{name} {value}" for name, value in principal.items() if value is not None))
    tokens = status.get("tokens")
    for token in tokens if isinstance(tokens, list) else []:
        if not isinstance(token, dict):
            continue
        ends = token.get("expires_on")
        left = f"{int(ends - time.time())} s left" if isinstance(ends, int) else "none yet"
        print(f"{token.get('kind')}: {token.get('resource')} as {token.get('identity')}, {left}")
    return 0


def become_program(arguments: list[str]) -> int:
    """Replace this process by the program ``jobcred``; come back only where there is none."""
    try:
        program = _binary.find()
        os.execv(program, [program, *arguments])  # noqa: S606 - no shell is wanted
    except (JobCredentialError, OSError) as error:
        print(error, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
