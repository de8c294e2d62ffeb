"""A double of the Azure ML service that knows a workspace's datastores: `azureml://` leads to the account by it."""

from __future__ import annotations

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from azurite import ACCOUNT

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

SUBSCRIPTION, GROUP, NAME = "5ab5c819-0000-4000-8000-000000000001", "group", "workspace"
DATASTORES = (
    f"/datastore/v1.0/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers"
    f"/Microsoft.MachineLearningServices/workspaces/{NAME}/datastores/"
)


def _run_token(expires_on: int) -> str:
    """The token of a run, which is a JWT that its readers take the end from."""
    parts = (json.dumps({"alg": "none"}), json.dumps({"exp": expires_on}), "no signature")
    return ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts)


def _datastore(name: str) -> dict[str, object]:
    """One without credentials of its own: who reads it brings an identity."""
    storage = {"accountName": ACCOUNT, "containerName": name, "endpoint": "core.windows.net", "protocol": "https"}
    nothing = {"credentialType": "None", "serviceDataAccessAuthIdentity": "None"}
    return {"name": name, "dataStoreType": "AzureBlob", "azureStorageSection": storage | nothing}


class Workspace:
    """The service, for one run. A datastore has its container's name."""

    def __init__(self) -> None:
        expires_on = int(time.time()) + 24 * 3600
        self._token = _run_token(expires_on)
        token = self._token

        class Service(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                allowed = self.headers["Authorization"] == f"Bearer {token}"
                found = self.path.startswith(DATASTORES)
                body = json.dumps(_datastore(self.path.removeprefix(DATASTORES))).encode()
                self.send_response(200 if allowed and found else 404 if allowed else 401)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class has it)
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        # What every Azure ML job finds in its environment.
        self.variables = {
            "AZUREML_SERVICE_ENDPOINT": f"http://127.0.0.1:{self._server.server_port}",
            "AZUREML_ARM_SUBSCRIPTION": SUBSCRIPTION,
            "AZUREML_ARM_RESOURCEGROUP": GROUP,
            "AZUREML_ARM_WORKSPACE_NAME": NAME,
            "AZUREML_ARM_PROJECT_NAME": "experiment",
            "AZUREML_RUN_TOKEN": self._token,
            "AZUREML_RUN_TOKEN_EXPIRY": str(expires_on),
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
