"""A job's program that reads its training data by a library of its user's choice, and knows nothing of jobcred.

`read.py LIBRARY` reads what `seed.py` has put there and prints how many rows it found, as JSON, or the error. All it
says of credentials is what the library's users say: the account's name, and that it is not anonymous.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ACCOUNT = "devstoreaccount1"
HOST = f"{ACCOUNT}.blob.core.windows.net"
FILE = "train.parquet"


def rows(data: bytes) -> int:
    import pyarrow.parquet

    return int(pyarrow.parquet.read_table(io.BytesIO(data)).num_rows)


def azure_storage_blob() -> int:
    from azure.identity import DefaultAzureCredential
    from azure.storage.blob import BlobServiceClient

    service = BlobServiceClient(f"https://{HOST}", credential=DefaultAzureCredential())
    return rows(service.get_blob_client("data", FILE).download_blob().readall())


def azure_storage_blob_aio() -> int:
    from azure.identity.aio import DefaultAzureCredential
    from azure.storage.blob.aio import BlobServiceClient

    async def read() -> bytes:
        async with (
            DefaultAzureCredential() as credential,
            BlobServiceClient(f"https://{HOST}", credential=credential) as service,
        ):
            return bytes(await (await service.get_blob_client("data", FILE).download_blob()).readall())

    return rows(asyncio.run(read()))


def adlfs() -> int:
    import fsspec

    # Without `anon`, it is what AZURE_STORAGE_ANON says.
    options = {} if "AZURE_STORAGE_ANON" in os.environ else {"anon": False}
    with fsspec.open(f"abfs://data/{FILE}", account_name=ACCOUNT, **options) as file:
        return rows(file.read())


def pandas() -> int:
    import pandas as pd

    options = {"anon": False}
    return len(pd.read_parquet(f"abfs://data@{ACCOUNT}.dfs.core.windows.net/{FILE}", storage_options=options))


def polars() -> int:
    import polars as pl

    return len(pl.read_parquet(f"abfss://data@{ACCOUNT}.dfs.core.windows.net/{FILE}"))


def polars_object_store() -> int:
    import polars as pl

    options = {"account_name": ACCOUNT}
    return len(pl.read_parquet(f"az://data/{FILE}", storage_options=options, credential_provider=None))


def pyarrow() -> int:
    import pyarrow.fs
    import pyarrow.parquet

    storage = pyarrow.fs.AzureFileSystem(account_name=ACCOUNT)
    return int(pyarrow.parquet.read_table(f"data/{FILE}", filesystem=storage).num_rows)


def duckdb() -> int:
    import duckdb as library
    import duckdb_extension_azure

    (extension,) = Path(str(duckdb_extension_azure.__file__)).parent.rglob("azure.duckdb_extension")
    database = library.connect()
    database.execute(f"LOAD '{extension}'")
    # As its users do on Debian: the extension looks for the system's roots at another distribution's place.
    database.execute("SET azure_transport_option_type = 'curl'")
    database.execute(
        f"CREATE SECRET (TYPE azure, PROVIDER credential_chain, CHAIN 'managed_identity', ACCOUNT_NAME '{ACCOUNT}')"
    )
    found: Any = database.execute(f"SELECT count(*) FROM 'az://data/{FILE}'").fetchone()
    return int(found[0])


def obstore() -> int:
    from obstore.store import AzureStore

    return rows(bytes(AzureStore("data", account_name=ACCOUNT).get(FILE).bytes()))


def deltalake() -> int:
    from deltalake import DeltaTable

    table = DeltaTable(f"abfss://data@{ACCOUNT}.dfs.core.windows.net/table", storage_options={"account_name": ACCOUNT})
    return int(table.to_pyarrow_table().num_rows)


def mltable() -> int:
    import mltable as library

    tables = (
        library.from_delimited_files([{"file": f"wasbs://data@{HOST}/train.csv"}]),
        library.from_parquet_files([{"file": f"abfss://data@{ACCOUNT}.dfs.core.windows.net/{FILE}"}]),
    )
    (count,) = {len(table.to_pandas_dataframe()) for table in tables}
    return count


def azureml_fsspec() -> int:
    import pandas as pd

    names = ("subscriptions", "SUBSCRIPTION"), ("resourcegroups", "RESOURCEGROUP"), ("workspaces", "WORKSPACE_NAME")
    workspace = "/".join(f"{kind}/{os.environ[f'AZUREML_ARM_{name}']}" for kind, name in names)
    return len(pd.read_parquet(f"azureml://{workspace}/datastores/data/paths/{FILE}"))


def rclone() -> int:
    return of_rclone(str(Path(sys.executable).parent / "rclone"))


def rclone_debian() -> int:
    return of_rclone("/usr/bin/rclone")


def azcopy() -> int:
    container = f"https://{HOST}/data"
    with tempfile.TemporaryDirectory(dir=os.environ["HOME"]) as directory:
        file = Path(directory, "train.csv")
        listed = of_azcopy("list", container)
        if "train.csv" not in listed:
            raise RuntimeError(listed)
        of_azcopy("copy", f"{container}/train.csv", str(file))
        of_azcopy("copy", str(file), f"{container}/azcopy/train.csv")
        return len(file.read_text().splitlines()) - 1


def of_azcopy(*arguments: str) -> str:
    done = subprocess.run([os.environ["AZCOPY"], *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stdout + done.stderr)
    return done.stdout


def of_rclone(program: str) -> int:
    arguments = ["cat", ":azureblob:data/train.csv", "--azureblob-account", ACCOUNT]
    if "RCLONE_AZUREBLOB_USE_MSI" not in os.environ:
        arguments.append("--azureblob-use-msi")
    done = subprocess.run([program, "--config", "", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    # The first line is the names of the columns.
    return len(done.stdout.splitlines()) - 1


LIBRARIES = (
    *(azure_storage_blob, azure_storage_blob_aio, adlfs, pandas, polars, polars_object_store),
    *(pyarrow, duckdb, obstore, deltalake, mltable, azureml_fsspec),
    *(rclone, rclone_debian, azcopy),
)


def main() -> None:
    library = {read.__name__: read for read in LIBRARIES}[sys.argv[1]]
    try:
        line: dict[str, Any] = {"rows": library(), "error": None, "message": None}
    except Exception as error:
        line = {"rows": None, "error": type(error).__name__, "message": str(error)}
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
