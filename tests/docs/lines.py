"""What runs for a documented line, where that is not the line itself, and which lines do not run, and why."""

from __future__ import annotations

import re
from pathlib import Path

import places
from commands import SETTING

CAPI = Path(places.built_folder()).resolve()
# Words that stand for others.
WORDS = {
    "COMMAND": "true",
    "URL": "https://myaccount.blob.core.windows.net/data/train",
    "SHELL": "bash",
    "DIRECTORY": "manual",
    "FILE": "train.py",
    "ARGUMENT...": "status",
    "...": "true",
    "N": "0",
}
# An agent as in deploy/kubernetes, which ends with the shell.
SIDECAR = """\
export JOBCRED_SOCKET=/run/jobcred/agent/agent.sock
JOBCRED_ENDPOINT_PORT=8460 JOBCRED_GRACE=0s jobcred agent &
trap "kill $!" EXIT
jobcred wait
"""

# What runs instead.
INSTEAD = {
    "jobcred agent": "JOBCRED_GRACE=0s jobcred agent & jobcred wait; kill $!; wait $!",
    "jobcred check": "jobcred check URL",
    ". /run/jobcred/agent/endpoint.env": f"{SIDECAR}. /run/jobcred/agent/endpoint.env; python train.py",
    "sh -c '. /run/jobcred/agent/endpoint.env && exec python train.py'": (
        f"{SIDECAR}sh -c '. /run/jobcred/agent/endpoint.env && exec python train.py'"
    ),
    # Not to the system's own place, and what `make test` has built.
    "client-lib/capi/install /usr/local": (
        f"client-lib/capi/install $PWD/local {CAPI}\n"
        "export PKG_CONFIG_PATH=$PWD/local/lib/pkgconfig LD_LIBRARY_PATH=$PWD/local/lib"
    ),
}

# What does not run here, by its beginning.
NOT_RUN = {
    "az ": "needs a login at Azure",
    "azcopy ": "tests/clients runs it",
    "cargo build": "builds what these tests run",
    "UPDATE_DOCS=1 ": "writes into the documentation",
    "pip install": "tests/packaging installs the wheel; jobcred itself comes from an index",
    "pip uninstall jobcred": "the wheel is not installed here",
    "make wheel && cp ": "tests/containers builds the image of this folder with the wheel",
    "cd dist && ": "tests/packaging unpacks the archive",
    "tar -xzf jobcred-": "tests/packaging unpacks the archive",
    "install -m 755 /opt/jobcred-": "tests/packaging unpacks the archive",
    "docker ": "there is no engine here: tests/containers builds and runs the image",
    "kubectl ": "there is no cluster here: tests/kubernetes runs the lines of docs/kubernetes.md",
    "docker-credential-jobcred get": "needs a registry: tests/tests/end_to_end/registry.rs runs it",
    "echo myregistry.azurecr.io | docker-credential-jobcred get": "needs a registry: see above",
    "jobcred top": "needs a terminal: tests/tests/end_to_end/top.rs runs it",
    "kill $(pidof jobcred)": "would end every agent of the machine",
    "pkill jobcred": "would end every agent of the machine",
    "killall jobcred": "would end every agent of the machine",
    "mpirun -x IDENTITY_ENDPOINT": "an example of what does not work",
}


def reason(line: str) -> str | None:
    """Why a line does not run here, if so."""
    return next((why for start, why in NOT_RUN.items() if line == start.strip() or line.startswith(start)), None)


def runnable(line: str) -> str:
    """What runs for a line."""
    if line.startswith("make "):
        # What it builds and tests is not for here: it must be a recipe.
        return f"make --directory={places.ROOT} --dry-run --silent {line.removeprefix('make ')} >/dev/null"
    text = INSTEAD.get(line, line)
    if SETTING.match(text):
        # It must be no mistake. It may name an identity that is not here.
        text = f"{text} jobcred explain --anew || test $? = 121"
    for word, other in WORDS.items():
        text = re.sub(rf"(?<![\w$]){re.escape(word)}(?!\w)", other, text)
    # Options of `run` alone are shown without a command.
    if re.fullmatch(r"jobcred run( --?\w+)*( --)?", text):
        text = f"{text.removesuffix(' --')} -- true"
    return text


def starts_an_agent(text: str) -> bool:
    """Whether it needs no agent beside it."""
    return re.search(r"\bjobcred (run|agent)\b", text) is not None
