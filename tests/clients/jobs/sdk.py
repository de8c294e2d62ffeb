"""A job's program that gets tokens with an unmodified SDK and knows nothing of jobcred.

Each line of its standard input asks once, and is answered by a line of JSON: whose token came of it, or the error. It
never prints a token. `{"kind": KIND, "client_id": C?, "scope": S?, "fresh": true?}`: a credential is made once for each
kind and client id, as a program would, unless `fresh`.
"""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

STORAGE = "https://storage.azure.com/.default"


def managed(client_id: str | None) -> Any:
    from azure.identity import ManagedIdentityCredential

    return ManagedIdentityCredential(**named(client_id))


def managed_aio(client_id: str | None) -> Any:
    from azure.identity.aio import ManagedIdentityCredential

    return ManagedIdentityCredential(**named(client_id))


def default(client_id: str | None) -> Any:
    from azure.identity import DefaultAzureCredential

    return DefaultAzureCredential(**({"managed_identity_client_id": client_id} if client_id else {}))


def default_aio(client_id: str | None) -> Any:
    from azure.identity.aio import DefaultAzureCredential

    return DefaultAzureCredential(**({"managed_identity_client_id": client_id} if client_id else {}))


def on_behalf_of(_client_id: str | None) -> Any:
    from azure.ai.ml.identity import AzureMLOnBehalfOfCredential

    return AzureMLOnBehalfOfCredential()


def on_behalf_of_aio(_client_id: str | None) -> Any:
    from azure.ai.ml.identity._aio._credentials.aml_on_behalf_of import AzureMLOnBehalfOfCredential

    return AzureMLOnBehalfOfCredential()


def dataprep(client_id: str | None) -> Any:
    """What mltable and the data assets of Azure ML get their tokens from."""
    from azureml.dataprep.api import _azure_access_token_resolver as resolver

    class Credential:
        def get_token(self, scope: str) -> Any:
            class Token:
                # It says what it does on standard output.
                token = quietly(lambda: resolver._resolve_azure_access_token(scope, None, client_id))[0]  # noqa: SLF001

            return Token

    return Credential()


def az(client_id: str | None) -> Any:
    """The Azure CLI, logged in as this identity in a folder of its own."""
    settings = {"AZURE_CONFIG_DIR": str(Path.home() / f"az-{client_id}"), "AZURE_CORE_COLLECT_TELEMETRY": "no"}
    # It is slow to start where nothing of it is compiled.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | settings

    def run(*arguments: str) -> str:
        command = [str(Path(sys.executable).parent / "az"), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    run("login", "--identity", "--allow-no-subscriptions", *(["--client-id", client_id] if client_id else []))

    class Credential:
        def get_token(self, scope: str) -> Any:
            resource = scope.removesuffix(".default")

            class Token:
                token = json.loads(run("account", "get-access-token", "--resource", resource))["accessToken"]

            return Token

    return Credential()


KINDS = (managed, managed_aio, default, default_aio, on_behalf_of, on_behalf_of_aio, dataprep, az)


def named(client_id: str | None) -> dict[str, Any]:
    return {"client_id": client_id} if client_id else {}


def quietly(call: Callable[[], Any]) -> Any:
    """`call`, whose output goes to standard error."""
    kept, sys.stdout = sys.stdout, sys.stderr
    try:
        return call()
    finally:
        sys.stdout = kept


async def main() -> None:
    kinds = {make.__name__: make for make in KINDS}
    credentials: dict[tuple[str, str | None], Any] = {}
    for line in sys.stdin:
        request = json.loads(line)
        name = (request["kind"], request.get("client_id"))
        answer: dict[str, Any] = {"oid": None, "aud": None, "error": None, "message": None}
        try:
            if request.get("fresh") or name not in credentials:
                credentials[name] = kinds[name[0]](name[1])
            token = credentials[name].get_token(request.get("scope", STORAGE))
            token = (await token if inspect.isawaitable(token) else token).token
            payload = token.split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
            answer.update(oid=claims["oid"], aud=claims["aud"])
        except subprocess.CalledProcessError as error:
            answer.update(error=f"exit status {error.returncode}", message=error.stderr)
        except Exception as error:
            answer.update(error=type(error).__name__, message=str(error))
        print(json.dumps(answer), flush=True)
    # Sessions that nobody closed are no finding here.
    os._exit(0)


asyncio.run(main())
