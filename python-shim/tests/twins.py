"""The sync and the async credential behind one face, so that one test covers both."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import jobcred
import jobcred.aio

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken, AccessTokenInfo


class SyncTwin:
    name = "sync"
    cls: type[Any] = jobcred.JobCredential

    def __init__(self, socket_path: str) -> None:
        self.socket_path = socket_path

    def make(self, **options: Any) -> Any:
        return self.cls(**{"socket_path": self.socket_path, "timeout": 20, **options})

    def run(self, result: Any) -> Any:
        return result

    def get(self, credential: Any, *scopes: str, **more: Any) -> AccessToken:
        token: AccessToken = self.run(credential.get_token(*scopes, **more))
        return token

    def info(self, credential: Any, *scopes: str, **more: Any) -> AccessTokenInfo:
        token: AccessTokenInfo = self.run(credential.get_token_info(*scopes, **more))
        return token


class AsyncTwin(SyncTwin):
    name = "aio"
    cls = jobcred.aio.JobCredential

    def run(self, result: Any) -> Any:
        async def wait() -> Any:
            return await result

        return asyncio.run(wait(), debug=True)
