"""Puts the training data into the emulated account, with its key: `seed.py KEY`."""

from __future__ import annotations

import io
import sys

import pyarrow as pa
import pyarrow.parquet
from azure.storage.blob import BlobServiceClient
from deltalake import write_deltalake
from read import ACCOUNT, FILE, HOST


def main() -> None:
    table = pa.table({"number": list(range(1000)), "label": [str(number % 7) for number in range(1000)]})
    service = BlobServiceClient(f"https://{HOST}", credential=sys.argv[1])
    container = service.create_container("data")
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer)
    container.upload_blob(FILE, buffer.getvalue())
    lines = ["number,label", *(f"{row['number']},{row['label']}" for row in table.to_pylist())]
    container.upload_blob("train.csv", "\n".join(lines))
    options = {"account_name": ACCOUNT, "account_key": sys.argv[1]}
    write_deltalake("az://data/table", table, storage_options=options)


if __name__ == "__main__":
    main()
