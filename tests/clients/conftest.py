"""What the tests share: the storage of the session, and the scene of a test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import isolation
import smoke
from azurite import Azurite
from doubles import Doubles
from results import Results
from scene import Scene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Any


# One client or two of each language and dialect, and of each family of parsers.
SMOKE = (
    *(
        f"test_compatibility.py::test_a_client_gets_the_identity_it_asks_for[{client}]"
        for client in (
            "PyPI-azure-identity-managed-app_service",
            "PyPI-azure-identity-managed-azure_ml",
            "PyPI-azure-identity-managed-imds",
            "PyPI-azure-ai-ml-on_behalf_of-on_behalf_of",
            "npm-@azure-identity-default-app_service",
            "crates.io-azure_identity-managed-app_service",
            "crates.io-object_store-object_store-imds",
        )
    ),
    *(
        f"test_data_libraries.py::test_a_library_reads_the_data_as_the_jobs_identity[{library}]"
        for library in (
            "PyPI-azure-storage-blob-BlobServiceClient-app_service",
            "npm-@azure-storage-blob-BlobServiceClient-app_service",
            "PyPI-mltable-from_delimited_filesfrom_parquet_files-app_service",
            "PyPI-azureml-fsspec-pandasread_parquetazureml-azure_ml",
        )
    ),
    *(
        f"test_proxy_variables.py::test_l1_c3_c4_a_run_changes_nothing_but_the_way_to_loopback[{fetcher}]"
        for fetcher in ("curl", "urllib", "azure_node", "go")
    ),
    "test_proxy_variables.py::test_l1_a_run_without_endpoints_adds_variables_of_its_own_name_alone",
    *(
        f"test_l1_an_sdk_finds_the_same_identity_with_endpoints_off_as_without_jobcred[{sdk}]"
        for sdk in (
            "python-compute-identity",
            "node-kubernetes-workload-identity",
            "go-app-service",
            "java-app-service",
        )
    ),
    "test_doors.py::test_s1_a_redirect_to_the_socket_gets_no_token",
    "test_doors.py::test_l2_what_asks_by_nodes_fetch_gets_the_jobs_own_identity[fetch]",
    "test_second_container.py::test_another_container_reads_and_writes_blobs",
    "test_registry.py::test_skopeo_pushes_lists_and_pulls_with_one_exchange",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    smoke.mark(config, items, SMOKE)


@pytest.fixture(scope="session", autouse=True)
def _isolated() -> None:
    """Nothing is started where it could reach somebody else."""
    reason = isolation.why_not()
    if reason is not None:
        pytest.fail(reason, pytrace=False)


@pytest.fixture(scope="session")
def azurite(_isolated: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    directory = tmp_path_factory.mktemp("azurite")
    # For its certificates alone.
    with Doubles(directory, {}) as certificates:
        ready = certificates.ready
        with Azurite(directory, certificate=ready["certificate"], key=ready["key"], ca=ready["ca"]) as server:
            yield server


@pytest.fixture(scope="session")
def results() -> Results:
    """What the tests of this session found out about clients."""
    return Results()


@pytest.fixture
def scene(_isolated: None, tmp_path: Path) -> Iterator[Callable[[dict[str, Any], Azurite | None], Scene]]:
    """Makes the test's one scene from the options of its doubles."""
    started: list[Doubles] = []

    def make(config: dict[str, Any], storage: Azurite | None = None) -> Scene:
        doubles = Doubles(tmp_path / "doubles", config)
        started.append(doubles)
        return Scene(tmp_path, doubles, storage)

    yield make
    for doubles in started:
        doubles.__exit__(None, None, None)
