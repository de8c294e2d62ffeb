"""The credential."""

from __future__ import annotations

import os

from . import _ask
from ._agent import Agent, agent
from ._errors import InvalidRequestError, JobCredentialError, for_caller

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Final

    from azure.core.credentials import AccessToken, AccessTokenInfo, TokenRequestOptions
    from typing_extensions import Self

    from ._tokens import RegistryCredential, Token

DEFAULT_TIMEOUT: Final = 60.0


class CredentialBase:
    """What the credential and its async twin have in common: options, memory, pickling."""

    def __init__(
        self,
        *,
        client_id: str | None = None,
        object_id: str | None = None,
        resource_id: str | None = None,
        socket_path: str | os.PathLike[str] | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        min_validity: int = 0,
    ) -> None:
        names = [("client_id", client_id), ("object_id", object_id), ("resource_id", resource_id)]
        given = [(kind, name) for kind, name in names if name]
        if len(given) > 1:
            raise for_caller(InvalidRequestError("Name one identity: client_id, object_id or resource_id."))
        try:
            for kind, name in given:
                _ask.checked(kind, name, _ask.MAX_NAME_BYTES if kind == "resource_id" else _ask.MAX_ID_BYTES)
            path = os.fspath(socket_path) if socket_path else None
            if path is not None:
                _ask.checked("socket_path", path, _ask.MAX_NAME_BYTES)
            if not timeout > 0:
                raise InvalidRequestError("The timeout must be more than 0 seconds.")
            if type(min_validity) is not int or min_validity < 0:
                raise InvalidRequestError("min_validity must be a whole number of seconds.")
        except InvalidRequestError as error:
            raise for_caller(error) from None
        self._identity = given[0] if given else None
        self._socket_path = path
        self._timeout = float(timeout)
        self._min_validity = min_validity
        self._cached_agent: Agent | None = None

    def __repr__(self) -> str:
        identity = "" if self._identity is None else "{}={!r}".format(*self._identity)
        return f"{type(self).__module__}.{type(self).__name__}({identity})"

    def __getstate__(self) -> dict[str, object]:
        # Tokens and connections stay in the process they belong to.
        return {**self.__dict__, "_cached_agent": None}

    @property
    def _agent(self) -> Agent:
        known = self._cached_agent
        if known is None or known.retired:
            known = self._cached_agent = agent(self._socket_path)
        # The hook in _agent sees forks made by Python; this sees those made by libraries.
        if known.pid != os.getpid():
            known.restart()
        return known

    def _from_memory(self, key: _ask.Key) -> Token | RegistryCredential | None:
        held = self._agent.find(key, self._min_validity)
        return held.answer if held is not None and not held.due() else None

    def _token_ask(self, key: _ask.Key, scope: str, claims: str | None, tenant_id: str | None) -> _ask.Ask:
        return _ask.token_ask(key, scope, min_validity=self._min_validity, claims=claims, tenant_id=tenant_id)


class JobCredential(CredentialBase):
    """Gets tokens from the jobcred agent; works wherever Azure's SDKs take a ``TokenCredential``.

    One object serves any number of threads and processes. Tokens are held in memory per process and shared by all
    credentials in it, so making another credential costs nothing.

    :param client_id: the client id of an identity other than the job's own, where the agent's policy allows it.
    :param object_id: the same by object id.
    :param resource_id: the same by Azure resource id. At most one of the three may be given.
    :param socket_path: the agent's socket; by default ``JOBCRED_SOCKET``, or the first of the usual places.
    :param timeout: how many seconds a call may take at most.
    :param min_validity: how many seconds of life a token must have left.
    :raises InvalidRequestError: when an option is malformed.
    """

    def get_token(
        self,
        *scopes: str,
        claims: str | None = None,
        tenant_id: str | None = None,
        enable_cae: bool = False,  # noqa: ARG002, FBT001, FBT002, RUF100 - Azure's signature; the agent decides
        **kwargs: Any,  # noqa: ARG002, RUF100 - Azure's signature
    ) -> AccessToken:
        """A token for a scope, for example ``https://storage.azure.com/.default``.

        :param scopes: exactly one scope, or a resource.
        :param claims: a claims challenge from a resource; asks the agent past this process's memory.
        :param tenant_id: the issuing tenant; refused where the identity cannot leave its own.
        :param enable_cae: accepted and ignored.
        :raises JobCredentialError: when there is no token; see ``code``.
        """
        return self._token(scopes, claims, tenant_id).to_access_token()

    def get_token_info(self, *scopes: str, options: TokenRequestOptions | None = None) -> AccessTokenInfo:
        """The same as :meth:`get_token`, with the time from which on to ask again.

        :param scopes: exactly one scope, or a resource.
        :param options: ``claims`` and ``tenant_id`` as in :meth:`get_token`; others are ignored.
        :raises JobCredentialError: when there is no token; see ``code``.
        """
        wanted = options or {}
        return self._token(scopes, wanted.get("claims"), wanted.get("tenant_id")).to_access_token_info()

    def registry_credential(self, server: str) -> RegistryCredential:
        """A user name and password for a container registry.

        :param server: the registry's login server, for example ``myregistry.azurecr.io``.
        :raises JobCredentialError: when there is none; see ``code``.
        """
        try:
            ask = _ask.registry_ask(server, min_validity=self._min_validity)
            return self._agent.obtain(ask, self._timeout).answer  # type: ignore[return-value]
        except JobCredentialError as error:
            raise for_caller(error) from None

    def close(self) -> None:
        """Closes this process's idle connections to the agent. The credential can be used afterwards."""
        self._agent.close_idle()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self.close()

    def _token(self, scopes: tuple[str, ...], claims: str | None, tenant_id: str | None) -> Token:
        try:
            scope = _ask.one_scope(scopes)
            key = _ask.token_key(self._identity, scope, tenant_id)
            answer = None if claims else self._from_memory(key)
            if answer is None:
                answer = self._agent.obtain(self._token_ask(key, scope, claims, tenant_id), self._timeout).answer
        except JobCredentialError as error:
            raise for_caller(error) from None
        return answer  # type: ignore[return-value]


def registry_credential(
    server: str, *, socket_path: str | os.PathLike[str] | None = None, timeout: float = DEFAULT_TIMEOUT
) -> RegistryCredential:
    """A user name and password for a container registry, as the job's own identity.

    :param server: the registry's login server, for example ``myregistry.azurecr.io``.
    :param socket_path: the agent's socket, as for :class:`JobCredential`.
    :param timeout: how many seconds the call may take at most.
    :raises JobCredentialError: when there is none; see ``code``.
    """
    return JobCredential(socket_path=socket_path, timeout=timeout).registry_credential(server)
