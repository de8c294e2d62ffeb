"""Azure tokens from the jobcred agent, for every process of a training job.

    from azure.storage.blob import BlobServiceClient
    from jobcred import JobCredential

    client = BlobServiceClient("https://account.blob.core.windows.net", credential=JobCredential())

The async twin is :class:`jobcred.aio.JobCredential`. Where no ``jobcred run`` is around the process, as in a notebook,
:func:`jobcred.activate` has an agent for it.
"""

from ._activate import Activation, activate, deactivate
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
    "Activation",
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
    "activate",
    "deactivate",
    "registry_credential",
]
