"""What runs for a documented line, where that is not the line itself, and which lines do not run, and why."""

from __future__ import annotations

import re
from pathlib import Path

import places
from commands import ELSEWHERE, SETTING

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
    # They serve until their standard input closes.
    "jobcred-doubles azure_ml imds": "jobcred-doubles azure_ml imds </dev/null",
    "jobcred-doubles --config doubles.json": (
        """echo '{"azure_ml": {"lifetime": 300}, "acr": {}}' >doubles.json\n"""
        "jobcred-doubles --config doubles.json </dev/null"
    ),
    # Not to the system's own place, and what `make test` has built.
    "client-lib/capi/install /usr/local": (
        f"client-lib/capi/install $PWD/local {CAPI}\n"
        "export PKG_CONFIG_PATH=$PWD/local/lib/pkgconfig LD_LIBRARY_PATH=$PWD/local/lib"
    ),
}

# What no test runs as it stands, each with its own reason.
NAME = "the name of a command, in a sentence about it"
ENDS_AGENTS = "would end every agent of the machine"
LOGIN = "needs a person's login at Azure"
NOT_RUN = {
    "az login": LOGIN,
    "az ad sp create --id APPLICATION": LOGIN,
    "az ml environment create --file environment.yml": f"{LOGIN}: tests/containers checks the file",
    "az ml job create --file job.yml": f"{LOGIN}: tests/containers checks the file",
    "az login --identity": "needs the Azure CLI: tests/clients runs it with an option",
    "az login --identity --allow-no-subscriptions": "needs the Azure CLI: tests/clients runs it",
    "az account get-access-token": "needs the Azure CLI: tests/clients runs it with an option",
    "azcopy list": "needs azcopy: tests/clients runs it with the container",
    "cargo build": "builds what these tests run",
    "cargo fuzz tmin": NAME,
    (
        "cargo fuzz run --sanitizer none token_answer corpus/token_answer seeds/token_answer"
        " -- -dict=dictionary -jobs=2"
    ): "never ends by itself",
    "docker pull": NAME,
    "docker-credential-jobcred get": "needs a registry: tests/tests/end_to_end/registry.rs runs it",
    "echo myregistry.azurecr.io | docker-credential-jobcred get": (
        "needs a registry: tests/tests/end_to_end/registry.rs does the same"
    ),
    "fuzz/run 600 token_answer": "takes ten minutes: `make test-fuzz` calls it with less",
    "jobcred top": "needs a terminal: tests/tests/end_to_end/top.rs runs it",
    "kill $(pidof jobcred)": ENDS_AGENTS,
    "killall jobcred": ENDS_AGENTS,
    "pkill jobcred": ENDS_AGENTS,
    "kubectl kustomize": "the name of a command, which tests/containers runs",
    "make wheel && cp dist/jobcred-*linux*.whl deploy/azureml/environment/": (
        "writes into the sources: tests/containers builds a copy of this folder with the wheel"
    ),
    "mpirun -x IDENTITY_ENDPOINT": "an example of what does not work",
    "pip install": NAME,
    "pip install jobcred": "no release is in an index yet",
    "UPDATE_DOCS=1 cargo test -p jobcred --test troubleshooting": "writes into the documentation",
    # Pages for contributors: they say how to run tests by hand.
    "tests/isolated [--imds-address] [--host myreg.azurecr.io]... COMMAND...": "a synopsis",
    (
        "PROPTEST_CASES=100000 .venv/bin/cargo-nextest nextest run -p jobcred -p jobcred-wire -p jobcred-client --lib "
        "-E 'test(nearly) | test(whatever)'"
    ): "builds, and takes minutes: `make test` runs fewer cases",
    "tests/setup clients && .venv/bin/cargo-nextest nextest run --workspace --all-features --no-run": (
        "installs and builds"
    ),
    (
        "JOBCRED_TARGET_DIR=$PWD/target/debug \\\n"
        "    tests/isolated --imds-address --host myreg.azurecr.io --host management.azure.com \\\n"
        "    .venv/bin/python -m pytest tests/clients -k sandbox"
    ): "a part of `make test-clients`",
    "JOBCRED_TRAINING_SECONDS=60": "a variable of tests/clients, not of jobcred",
    (
        "JOBCRED_TARGET_DIR=target/debug tests/isolated --host myaccount.blob.core.windows.net \\\n"
        "    .venv/bin/python -m pytest tests/docs -k kubernetes.md"
    ): "these tests themselves",
}


def reason(line: str) -> str | None:
    """Why a line does not run here, if so."""
    return f"tests/{ELSEWHERE[line]} runs it" if line in ELSEWHERE else NOT_RUN.get(line)


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
