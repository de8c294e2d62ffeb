"""Drives a notebook's kernel, as Jupyter does. Says what its cells printed, a line each."""

from __future__ import annotations

import json
import sys
from typing import Any

from jupyter_client.manager import KernelManager, start_new_kernel

WAIT = 60
ACTIVATE = """
import json, os, jobcred
active = jobcred.activate()
credential = jobcred.JobCredential()
credential.get_token("https://storage.azure.com/.default")
whose = (active.principal or {}).get("object_id")
print(json.dumps({"pid": active.pid, "socket": os.environ["JOBCRED_SOCKET"], "object_id": whose}))
"""
BUSY = "import time\nprint('busy', flush=True)\ntime.sleep(600)"
AGAIN = """
os.kill(active.pid, 0)
token = credential.get_token("https://vault.azure.net/.default")
print(json.dumps({"pid": active.pid, "seconds": token.expires_on}))
"""
SHELL = (
    "!{python} -c 'import jobcred; print(len(jobcred.JobCredential().get_token(\"https://storage.azure.com/\").token))'"
)


def cell(client: Any, code: str) -> str:
    """What a cell prints."""
    printed: list[str] = []

    def see(message: dict[str, Any]) -> None:
        if message["msg_type"] == "stream":
            printed.append(message["content"]["text"])
        elif message["msg_type"] == "error":
            printed.append("\n".join(message["content"]["traceback"]))

    client.execute_interactive(code, timeout=WAIT, output_hook=see)
    return "".join(printed).strip()


def interrupt(manager: KernelManager, client: Any) -> str:
    """Interrupts a cell in the middle of its work; the name of the error it ends with."""
    client.execute(BUSY)
    error = ""
    while not error:
        message = client.get_iopub_msg(timeout=WAIT)
        if message["msg_type"] == "stream" and "busy" in message["content"]["text"]:
            manager.interrupt_kernel()
        if message["msg_type"] == "error":
            error = message["content"]["ename"]
    while True:
        message = client.get_iopub_msg(timeout=WAIT)
        if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
            return error


def main() -> None:
    """Two kernels of one user, one of them interrupted and restarted."""
    manager, client = start_new_kernel(kernel_name="python3", startup_timeout=WAIT)
    other_manager, other = start_new_kernel(kernel_name="python3", startup_timeout=WAIT)
    try:
        print(json.dumps({"what": "first", **json.loads(cell(client, ACTIVATE))}))
        print(json.dumps({"what": "second", **json.loads(cell(other, ACTIVATE))}))
        print(json.dumps({"what": "interrupted", "error": interrupt(manager, client)}))
        print(json.dumps({"what": "again", **json.loads(cell(client, AGAIN))}))
        print(json.dumps({"what": "shell", "length": int(cell(client, SHELL.format(python=sys.executable)))}))
        client.stop_channels()
        manager.restart_kernel(now=True)
        client = manager.blocking_client()
        client.start_channels()
        client.wait_for_ready(timeout=WAIT)
        print(json.dumps({"what": "restarted", **json.loads(cell(client, ACTIVATE))}))
        print(json.dumps({"what": "other", **json.loads(cell(other, AGAIN))}))
    finally:
        for channels, kernel in ((client, manager), (other, other_manager)):
            channels.stop_channels()
            kernel.shutdown_kernel(now=True)


if __name__ == "__main__":
    main()
