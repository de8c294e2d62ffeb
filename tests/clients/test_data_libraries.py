"""The libraries that training data is read with, as users write it: no endpoint, no key, the account's usual name.

The account is the emulator, at the name and port that Azure's have, with certificates that the system trusts.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import pytest

import places
from azurite import ACCOUNT, Azurite
from catalogue import APP_SERVICE, LIBRARIES, Library, as_env_says, azcopy, reader, setting
from doubles import Doubles
from platforms import platform
from scene import answered, own_hosts, python
from workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from results import Results
    from scene import Scene

STORAGE = "127.0.0.2"
LIFETIME = 3600
CASES = [(library, dialect) for library in LIBRARIES for dialect in library.dialects]


class Account:
    """The storage account, with the training data in it."""

    def __init__(self, directory: Path) -> None:
        self.hosts = directory / "hosts"
        self.hosts.write_text(
            f"127.0.0.1 localhost\n{STORAGE} {ACCOUNT}.blob.core.windows.net {ACCOUNT}.dfs.core.windows.net\n"
        )
        # For its certificates alone.
        with Doubles(directory, {}) as certificates:
            ready = certificates.ready
            self.azurite = Azurite(
                directory, certificate=ready["certificate"], key=ready["key"], ca=ready["ca"], host=STORAGE, port=443
            )
        self.workspace = Workspace()
        self.ca = directory / "account.pem"
        self.ca.write_text(Path(self.azurite.ca).read_text())

    def prefix(self, ca: Path) -> list[str]:
        return own_hosts(self.hosts, roots=ca)


@pytest.fixture(scope="module")
def account(_isolated: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    made = Account(tmp_path_factory.mktemp("account"))
    with made.azurite as storage, made.workspace:
        seed = [places.installed("sdks", "bin/python"), str(places.JOBS / "seed.py"), storage.account_key]
        ca = str(storage.ca)
        variables = {"PATH": "/usr/bin:/bin", "REQUESTS_CA_BUNDLE": ca, "SSL_CERT_FILE": ca}
        subprocess.run([*made.prefix(made.ca), *seed], env=variables, check=True, timeout=120)
        yield made


@pytest.mark.parametrize(
    ("library", "dialect"), CASES, ids=[f"{library.label}-{dialect}" for library, dialect in CASES]
)
def test_a_library_reads_the_data_as_the_jobs_identity(
    library: Library, dialect: str, account: Account, scene: Callable[..., Scene], results: Results
) -> None:
    chosen = platform("compute-identity")
    config = chosen.config(LIFETIME)
    command = setting(library.wants, library.command())
    if library.is_fixed:
        # Nobody else may be at that address then.
        del config["imds"]
        command = [*python("metadata_address.py"), *command]
    read(scene(config, account.azurite), account, command, dialect)
    results.libraries[library.label, dialect] = "works"


@pytest.mark.parametrize(
    ("tool", "command"),
    [
        ("adlfs", reader("adlfs")),
        ("rclone", reader("rclone")),
        ("object_store", reader("deltalake")),
        ("azcopy", azcopy),
    ],
)
def test_what_jobcred_env_says_is_all_that_a_tool_needs(
    tool: str, command: Callable[[], list[str]], account: Account, scene: Callable[..., Scene]
) -> None:
    chosen = platform("compute-identity")
    read(scene(chosen.config(LIFETIME), account.azurite), account, as_env_says(tool, command()), APP_SERVICE)


def test_azcopy_gets_the_identity_that_it_names(account: Account, scene: Callable[..., Scene]) -> None:
    machine = scene(platform("compute-identity").config(LIFETIME), account.azurite)
    second = machine.doubles.ready["azure_ml"]["identities"]["user_assigned"][1]["client_id"]
    command = setting(f"AZCOPY_AUTO_LOGIN_TYPE=MSI AZCOPY_MSI_CLIENT_ID={second}", azcopy())
    read(machine, account, command, APP_SERVICE)
    (request,) = machine.doubles.requests()["msi"]
    assert parse_qs(request["query"])["clientid"] == [second]


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.label)
def test_l1_a_library_reads_the_same_with_endpoints_off_as_without_jobcred(
    library: Library, account: Account, scene: Callable[..., Scene]
) -> None:
    config = platform("compute-identity").config(LIFETIME)
    # Some of them name no identity. The endpoint of a cluster with one identity answers them.
    config["azure_ml"]["without_client_id"] = "first_identity"
    machine = scene(config, account.azurite)
    # Without the second, azcopy asks for no token.
    environment = job_environment(machine, account) | {"JOBCRED_DIALECTS": "none", "AZCOPY_AUTO_LOGIN_TYPE": "MSI"}
    command = library.command()
    found = []
    for prefix in ([], [places.built("jobcred"), "run", "--"]):
        before = machine.asked()
        done = machine.run([*prefix, *command], environment, prefix=account.prefix(machine.ca_bundle))
        (line,) = done.lines_of_json()
        assert line == {"rows": 1000, "error": None, "message": None}, str(done)
        found.append(machine.asked() - before)
    assert found[0] == found[1]
    assert sum(found[0].values()) >= 1


def job_environment(machine: Scene, account: Account) -> dict[str, str]:
    """What a job finds on a cluster, and in Azure ML's workspace."""
    chosen = platform("compute-identity")
    environment = machine.environment(chosen.environment(machine.doubles, machine.directory))
    environment |= dict.fromkeys(("NODE_EXTRA_CA_CERTS", "CURL_CA_INFO"), environment["SSL_CERT_FILE"])
    return environment | account.workspace.variables


def read(machine: Scene, account: Account, command: list[str], dialect: str) -> None:
    """Runs a program that reads the data, and looks whose tokens it did so with."""
    environment = job_environment(machine, account) | {"JOBCRED_DIALECTS": dialect}

    job = [places.built("jobcred"), "run", "--", *command]
    done = machine.run(job, environment, prefix=account.prefix(machine.ca_bundle))

    assert done.lines_of_json() == [{"rows": 1000, "error": None, "message": None}], str(done)
    # All of it as the job's identity: one request upstream, by way of jobcred, and nobody asked elsewhere.
    asked = machine.doubles.requests()
    assert {name: len(asked[name]) for name in asked if asked[name]} == {"msi": 1}, str(done)
    assert answered(done.stderr, dialect) >= 1, str(done)
