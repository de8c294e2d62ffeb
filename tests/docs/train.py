"""What the documentation calls train.py: one that gets a token by an unmodified SDK."""

from azure.identity import ManagedIdentityCredential

with ManagedIdentityCredential() as credential:
    credential.get_token("https://storage.azure.com/.default")
