"""Where no agent can run: the package imports, and says at once that nothing is to be had."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Takes away what those platforms do not have, before the package is imported.
PRETEND = {
    "win32": "for name in ('register_at_fork', 'geteuid', 'getuid', 'fork'): delattr(os, name)\n"
    "for name in ('AF_UNIX', 'MSG_NOSIGNAL', 'SO_PEERCRED'): delattr(_socket, name)\n",
    "darwin": "for name in ('MSG_NOSIGNAL', 'SO_PEERCRED'): delattr(_socket, name)\n",
}


def pretend(platform: str, program: str) -> subprocess.CompletedProcess[str]:
    # What Python's own modules take from the platform they take before.
    before = "import _socket, asyncio, os, subprocess, sys, sysconfig, tempfile\nimport azure.core, azure.identity\n"
    text = f"{before}{PRETEND[platform]}sys.platform = {platform!r}\n{program}"
    environment = {"PYTHONPATH": ":".join(sys.path), "PATH": "/nowhere", "JOBCRED_SOCKET": "/nowhere/agent.sock"}
    return subprocess.run([sys.executable, "-c", text], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("platform", PRETEND)
@pytest.mark.parametrize(
    "call",
    [
        "jobcred.JobCredential().get_token('https://storage.azure.com/.default')",
        "jobcred.registry_credential('r.azurecr.io')",
        "asyncio.run(jobcred.aio.JobCredential().get_token('https://storage.azure.com/.default'))",
    ],
)
def test_a_chain_goes_on_to_the_next_credential(platform: str, call: str) -> None:
    done = pretend(
        platform,
        "import jobcred, jobcred.aio\n"
        "from azure.identity import CredentialUnavailableError\n"
        f"try:\n    {call}\n"
        "except CredentialUnavailableError as error:\n"
        "    assert isinstance(error, jobcred.UnavailableError)\n    print(error)",
    )
    assert done.returncode == 0, done.stderr
    assert f"The jobcred agent does not run on {platform}. It runs on Linux" in done.stdout


@pytest.mark.parametrize("platform", PRETEND)
def test_the_program_is_said_not_to_exist_there(platform: str) -> None:
    done = pretend(platform, "from jobcred.__main__ import main\nsys.argv[1:] = ['explain']\nsys.exit(main())")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"The jobcred agent does not run on {platform}.")
    assert "Traceback" not in done.stderr
