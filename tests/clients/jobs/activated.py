"""A program without ``jobcred run`` around it, as a shell or a notebook starts it. Says what it saw, a line each."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jobcred

SCOPE = "https://storage.azure.com/.default"
# What another process of the same user does, with none of this one's variables.
STRANGER = """
import json, sys, jobcred
token = jobcred.JobCredential().get_token("https://storage.azure.com/.default").token
own = jobcred.activate() if "activate" in sys.argv else None
print(json.dumps([token, own and own.pid, own and own.started]), flush=True)
sys.stdin.read()
print(json.dumps(jobcred.JobCredential(timeout=20).get_token("https://vault.azure.net/.default").token), flush=True)
"""


def say(what: str, **seen: Any) -> None:
    print(json.dumps({"what": what, **seen}), flush=True)


def token(scope: str = SCOPE) -> str:
    return str(jobcred.JobCredential().get_token(scope).token)


def stranger(*arguments: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "JOBCRED_SOCKET"}
    return subprocess.Popen(
        [sys.executable, "-c", STRANGER, *arguments],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def is_running(pid: int) -> bool:
    """Whether it has not ended; what nobody has waited for yet has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def answer(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()


def main() -> None:
    """Activates, and looks at it from all sides."""
    active = jobcred.activate()
    first = token()
    say("activated", pid=active.pid, started=active.started, socket=active.socket, strategy=active.strategy)
    principal = active.principal or {}
    say("principal", object_id=principal.get("object_id"))

    for method in multiprocessing.get_all_start_methods():
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
            say(method, same=set(pool.map(token, [SCOPE] * 4)) == {first})
    with ThreadPoolExecutor(8) as threads:
        say("threads", same=set(threads.map(token, [SCOPE] * 32)) == {first})

    guest, sharer = stranger(), stranger("activate")
    say("guest", same=answer(guest)[0] == first)
    shared, pid, started = answer(sharer)
    say("sharer", same=shared == first, same_agent=pid == active.pid, started=started)
    go_on(guest)
    answer(guest)
    guest.wait()

    assert active.pid is not None
    os.kill(active.pid, signal.SIGKILL)
    again = token("https://management.azure.com/.default")
    say("again", pid=active.pid, other=again != first, running=is_running(active.pid or 0))

    agent = active.pid or 0
    jobcred.deactivate()
    say("deactivated", named="JOBCRED_SOCKET" in os.environ)
    go_on(sharer)
    say("after", token=bool(answer(sharer)))
    sharer.wait()
    deadline = time.monotonic() + 60
    while is_running(agent) and time.monotonic() < deadline:
        time.sleep(0.05)
    say("end", running=is_running(agent))


if __name__ == "__main__":
    main()
