"""What callers get: tokens and registry credentials."""

from __future__ import annotations

import sys
from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    from azure.core.credentials import AccessToken, AccessTokenInfo

    class RegistryCredential(NamedTuple):
        """A user name and password for one container registry. Times are unix seconds."""

        server: str
        username: str
        secret: str
        expires_on: int
        refresh_on: int

else:
    # collections.namedtuple instead of typing's: typing takes longer to import than all of this package.

    class AccessToken(namedtuple("AccessToken", ("token", "expires_on"))):
        """A bearer token and when it ends, in unix seconds."""

        __slots__ = ()

        def __repr__(self):
            return f"AccessToken(token=<hidden>, expires_on={self.expires_on})"

    class AccessTokenInfo:
        """A bearer token, when it ends and when to ask again, in unix seconds."""

        __slots__ = ("expires_on", "refresh_on", "token", "token_type")

        def __init__(self, token, expires_on, *, token_type="Bearer", refresh_on=None):  # noqa: S107 - no password
            self.token = token
            self.expires_on = expires_on
            self.token_type = token_type
            self.refresh_on = refresh_on

        def __repr__(self):
            return f"AccessTokenInfo(token=<hidden>, expires_on={self.expires_on}, refresh_on={self.refresh_on})"

    class RegistryCredential(
        namedtuple("RegistryCredential", ("server", "username", "secret", "expires_on", "refresh_on"))
    ):
        """A user name and password for one container registry. Times are unix seconds."""

        __slots__ = ()

        def __repr__(self):
            return (
                f"RegistryCredential(server={self.server!r}, username={self.username!r}, secret=<hidden>, "
                f"expires_on={self.expires_on}, refresh_on={self.refresh_on})"
            )


# azure.core asks for a new token up to 60 s after `refresh_on`, at random. A token that lives for minutes alone would
# so be sent in its very last moment, and arrive too late.
SDK_DELAY = 90


class Token:
    """A token as the agent gave it. Has no repr of its own, so that it cannot be printed by accident."""

    __slots__ = ("expires_on", "refresh_on", "token", "token_type")

    def __init__(self, token: str, token_type: str, expires_on: int, refresh_on: int) -> None:
        self.token = token
        self.token_type = token_type
        self.expires_on = expires_on
        self.refresh_on = refresh_on

    def to_access_token(self) -> AccessToken:
        """As ``get_token`` returns it: azure.core's own class in a process that uses azure.core, else our like."""
        azure = sys.modules.get("azure.core.credentials")
        cls = getattr(azure, "AccessToken", AccessToken)
        return cls(self.token, self.expires_on)

    def to_access_token_info(self) -> AccessTokenInfo:
        """As ``get_token_info`` returns it: azure.core's own class where it has one, else our like."""
        azure = sys.modules.get("azure.core.credentials")
        cls = getattr(azure, "AccessTokenInfo", AccessTokenInfo)
        # The SDK keeps what it gets past this time, see above; what it asks again for early comes from memory.
        refresh_on = min(self.refresh_on, self.expires_on - SDK_DELAY)
        return cls(self.token, self.expires_on, token_type=self.token_type, refresh_on=refresh_on)
