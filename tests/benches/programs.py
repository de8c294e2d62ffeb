"""Python programs that import a client and get one token."""

from __future__ import annotations

SCOPE = "https://storage.azure.com/.default"
JOBCRED = f"from jobcred import JobCredential; JobCredential().get_token({SCOPE!r})"
AZURE_IDENTITY = (
    "import os; from azure.identity import ManagedIdentityCredential; "
    f"ManagedIdentityCredential(client_id=os.environ['DEFAULT_IDENTITY_CLIENT_ID']).get_token({SCOPE!r})"
)
