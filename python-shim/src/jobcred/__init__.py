"""Azure tokens from the jobcred agent, for every process of a training job.

    from azure.storage.blob import BlobServiceClient
    from jobcred import JobCredential

    client = BlobServiceClient("https://account.blob.core.windows.net", credential=JobCredential())

The async twin is :class:`jobcred.aio.JobCredential`.
"""

from ._credential import JobCredential, registry_credential
from ._errors import (
    AgentGoneError,
    AgentNotFoundError,
    DeniedError,
    GrantEndedError,
    InternalError,
    InvalidRequestError,
    JobCredentialError,
    RejectedError,
    TransientError,
    UnavailableError,
    UntrustedAgentError,
)
from ._tokens import RegistryCredential

__version__ = "0.1.0"

__all__ = [
    "AgentGoneError",
    "AgentNotFoundError",
    "DeniedError",
    "GrantEndedError",
    "InternalError",
    "InvalidRequestError",
    "JobCredential",
    "JobCredentialError",
    "RegistryCredential",
    "RejectedError",
    "TransientError",
    "UnavailableError",
    "UntrustedAgentError",
    "registry_credential",
]
