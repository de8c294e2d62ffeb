"""For the type checker alone: the credentials are what Azure's packages want, and say what they give."""

from __future__ import annotations

from typing import TYPE_CHECKING

from azure.core.pipeline.policies import AsyncBearerTokenCredentialPolicy, BearerTokenCredentialPolicy
from azure.identity import ChainedTokenCredential

from jobcred import JobCredential, RegistryCredential, aio, registry_credential

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken, AccessTokenInfo, SupportsTokenInfo, TokenCredential, TokenProvider
    from azure.core.credentials_async import AsyncSupportsTokenInfo, AsyncTokenCredential, AsyncTokenProvider
    from azure.core.pipeline.transport import HttpRequest, HttpResponse


def sync_protocols(credential: JobCredential) -> tuple[TokenCredential, SupportsTokenInfo, TokenProvider]:
    return credential, credential, credential


def async_protocols(
    credential: aio.JobCredential,
) -> tuple[AsyncTokenCredential, AsyncSupportsTokenInfo, AsyncTokenProvider]:
    return credential, credential, credential


def results(credential: JobCredential) -> tuple[AccessToken, AccessTokenInfo, RegistryCredential, str]:
    return (
        credential.get_token("s", claims="c", tenant_id="t", enable_cae=True, extra=1),
        credential.get_token_info("s", options={"claims": "c"}),
        credential.registry_credential("r"),
        registry_credential("r").secret,
    )


async def async_results() -> tuple[AccessToken, AccessTokenInfo, RegistryCredential]:
    async with aio.JobCredential(client_id="c", timeout=1.5, min_validity=60) as credential:
        return (
            await credential.get_token("s"),
            await credential.get_token_info("s"),
            await credential.registry_credential("r"),
        )


def consumers() -> None:
    with JobCredential(socket_path="/s") as credential:
        ChainedTokenCredential(credential)
        policy: BearerTokenCredentialPolicy[HttpRequest, HttpResponse] = BearerTokenCredentialPolicy(credential, "s")
        del policy
    AsyncBearerTokenCredentialPolicy(aio.JobCredential(), "s")
