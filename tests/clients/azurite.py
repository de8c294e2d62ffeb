"""A real blob service that checks tokens: Azurite, with OAuth, over TLS."""

from __future__ import annotations

import base64
import http.client
import os
import secrets
import socket
import ssl
import subprocess
import time
from typing import TYPE_CHECKING

import places

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

ACCOUNT = "devstoreaccount1"
# Node on a loaded machine: a bound for a start that failed, no measure of one that works.
START_SECONDS = 120


class Azurite:
    """One emulator, with blobs in memory. Port 0: any that is free."""

    def __init__(
        self, directory: Path, *, certificate: str, key: str, ca: str, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.ca = ca
        self.account_key = base64.b64encode(secrets.token_bytes(64)).decode()
        with socket.socket() as free:
            free.bind((host, port))
            port = free.getsockname()[1]
        self._address = (host, port)
        self.account_url = f"https://{host}:{port}/{ACCOUNT}"
        self._log = directory / "azurite.log"
        arguments = [
            *("--blobHost", host, "--blobPort", str(port)),
            *("--oauth", "basic", "--cert", certificate, "--key", key),
            *("--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry"),
            # By default it closes what has been idle for 5 s, which a job on a busy machine finds out too late.
            *("--blobKeepAliveTimeout", "600"),
        ]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [places.azurite(), *arguments],
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={
                    "PATH": os.environ["PATH"],
                    "HOME": str(directory),
                    "AZURITE_ACCOUNTS": f"{ACCOUNT}:{self.account_key}",
                },
            )
        self._await_answer()

    def _await_answer(self) -> None:
        context = ssl.create_default_context(cafile=self.ca)
        # Where it is is known; its certificate is of the names that clients use.
        context.check_hostname = False
        deadline = time.monotonic() + START_SECONDS
        while True:
            connection = http.client.HTTPSConnection(*self._address, context=context, timeout=10)
            try:
                connection.request("GET", f"/{ACCOUNT}?comp=list")
                assert connection.getresponse().status == 403
            except ConnectionRefusedError:
                stopped = self._process.poll() is not None
                if stopped or time.monotonic() > deadline:
                    raise RuntimeError(f"the emulator does not answer:\n{self._log.read_text()}") from None
                time.sleep(0.1)
            else:
                return
            finally:
                connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()
