"""What can be asked of an agent: requests checked and spelt, answers checked and read; no I/O."""

from __future__ import annotations

import json

from ._errors import InvalidRequestError, JobCredentialError, not_an_agent, of_code
from ._http import request_bytes
from ._tokens import RegistryCredential, Token

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, Optional, Union

    from ._http import Reply

    Answer = Union[Token, RegistryCredential]
    # Of the process's cache: kind and socket-independent names. Every part is a string or None.
    Key = tuple[Optional[str], ...]

DEFAULT_SUFFIX: Final = "/.default"
# The bounds of docs/protocol.md.
MAX_TARGET_BYTES: Final = 2048
MAX_CLAIMS_BYTES: Final = 4096
MAX_ID_BYTES: Final = 200
MAX_NAME_BYTES: Final = 1024
# Of what an agent says of an error; keeps a broken agent from flooding logs.
MAX_MESSAGE: Final = 2000
# The year 9999: more than any clock, less than any overflow.
MAX_TIME: Final = 253_402_300_799


class Ask:
    """One thing asked of an agent."""

    __slots__ = ("claims", "key", "min_validity", "read", "request")

    def __init__(
        self, key: Key, request: bytes, read: Callable[[Reply, str], Answer], min_validity: int, claims: str | None
    ) -> None:
        self.key = key
        self.request = request
        self.read = read
        self.min_validity = min_validity
        self.claims = claims

    @property
    def flight(self) -> tuple[object, ...]:
        """What two requests must have in common for one answer to serve both."""
        return (*self.key, self.min_validity, self.claims)


def one_scope(scopes: tuple[str, ...]) -> str:
    """The one scope of a call."""
    if len(scopes) != 1:
        given = "no scope" if not scopes else f"{len(scopes)} scopes"
        raise InvalidRequestError(f"get_token got {given}.", hint="Give exactly one: a token has exactly one resource.")
    scope = scopes[0]
    if not isinstance(scope, str):
        raise InvalidRequestError(f"A scope must be a str, not {type(scope).__name__}.")
    return scope


def token_key(identity: tuple[str, str] | None, scope: str, tenant_id: str | None) -> Key:
    """The cache's key. Only one trailing ``/.default`` is dropped; what else is equal is for the agent to know."""
    kind, name = identity or (None, None)
    return ("token", kind, name, scope.removesuffix(DEFAULT_SUFFIX), tenant_id or None)


def token_ask(key: Key, scope: str, *, min_validity: int, claims: str | None, tenant_id: str | None) -> Ask:
    """A request for a token."""
    query = [("scope", checked("scope", scope, MAX_TARGET_BYTES))]
    if any(map(str.isspace, scope)):
        raise InvalidRequestError(
            "The scope has white space in it.", hint="Give exactly one scope: a token has exactly one resource."
        )
    _, kind, name, _, _ = key
    if kind is not None and name is not None:
        query.append((kind, name))
    if min_validity:
        query.append(("min_validity", str(min_validity)))
    if claims:
        query.append(("claims", checked("claims", claims, MAX_CLAIMS_BYTES)))
    if tenant_id:
        query.append(("tenant_id", checked("tenant_id", tenant_id, MAX_ID_BYTES)))
    return Ask(key, request_bytes("GET", "/v1/token", query), read_token, min_validity, claims or None)


def registry_ask(server: str, *, min_validity: int) -> Ask:
    """A request for a registry credential."""
    query = [("server", checked("server", server, MAX_NAME_BYTES))]
    key = ("registry", server.lower())
    return Ask(key, request_bytes("GET", "/v1/registry", query), read_registry, min_validity, None)


def checked(name: str, value: str, limit: int) -> str:
    """``value``, if the agent would not refuse it for its form."""
    if not isinstance(value, str):
        raise InvalidRequestError(f"The {name} must be a str, not {type(value).__name__}.")
    try:
        length = len(value.encode())
    except UnicodeEncodeError:
        raise InvalidRequestError(f"The {name} is not valid Unicode.") from None
    if not value:
        raise InvalidRequestError(f"The {name} is empty.")
    if length > limit:
        raise InvalidRequestError(f"The {name} has {length} bytes; at most {limit} are allowed.")
    if any(_is_control(character) for character in value):
        raise InvalidRequestError(f"The {name} has a control character in it.")
    return value


def _is_control(character: str) -> bool:
    return character < " " or "\x7f" <= character <= "\x9f"


def read_token(reply: Reply, path: str) -> Token:
    """The token in an answer."""
    fields = _fields(reply, path)
    return Token(
        _secret(fields, "access_token", path),
        _text(fields, "token_type", path),
        *_times(fields, path),
    )


def read_registry(reply: Reply, path: str) -> RegistryCredential:
    """The registry credential in an answer."""
    fields = _fields(reply, path)
    expires_on, refresh_on = _times(fields, path)
    return RegistryCredential(
        server=_text(fields, "server", path),
        username=_text(fields, "username", path),
        secret=_secret(fields, "secret", path),
        expires_on=expires_on,
        refresh_on=refresh_on,
    )


def read_object(reply: Reply, path: str) -> dict[str, object]:
    """Any JSON object in an answer."""
    return _fields(reply, path)


def _fields(reply: Reply, path: str) -> dict[str, object]:
    if not 200 <= reply.status < 300:
        raise _error(reply, path)
    fields = _object(reply.body)
    if fields is None:
        raise not_an_agent(path, "the body is not a JSON object")
    return fields


def _object(body: bytes) -> dict[str, object] | None:
    try:
        # UTF-8 only: given bytes, json would guess among encodings.
        value = json.loads(body.decode())
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _error(reply: Reply, path: str) -> JobCredentialError:
    detail = (_object(reply.body) or {}).get("error")
    detail = detail if isinstance(detail, dict) else {}
    message = _printable(detail.get("message"))
    retry_after = detail.get("retry_after", reply.headers.get("retry-after"))
    return of_code(_code(detail.get("code"), reply.status))(
        message or f"The agent at {path} answered with HTTP status {reply.status} and no reason.",
        hint=_printable(detail.get("hint")),
        retry_after=_seconds(retry_after),
        request_id=_printable(detail.get("request_id")) or _printable(reply.headers.get("x-request-id")),
    )


def _code(code: object, status: int) -> str:
    if isinstance(code, str):
        return code
    # Bytes that the agent's HTTP layer refuses get a bare status.
    return "invalid_request" if 400 <= status < 500 else "internal"


def _printable(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    text = "".join(" " if _is_control(character) else character for character in value[:MAX_MESSAGE])
    return text.encode("utf-8", "replace").decode().strip() or None


def _seconds(value: object) -> float | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return float(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 10**9:
        return float(value)
    return None


def _text(fields: dict[str, object], name: str, path: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value or any(map(_is_control, value)):
        raise not_an_agent(path, f"{name} is missing or malformed")
    return value


def _secret(fields: dict[str, object], name: str, path: str) -> str:
    value = _text(fields, name, path)
    # It is going to be put into headers, where anything else would be an injection.
    if not value.isascii() or " " in value:
        raise not_an_agent(path, f"{name} is missing or malformed")
    return value


def _times(fields: dict[str, object], path: str) -> tuple[int, int]:
    expires_on = fields.get("expires_on")
    refresh_on = fields.get("refresh_on", expires_on)
    for value in (expires_on, refresh_on):
        if type(value) is not int or not 0 < value <= MAX_TIME:
            raise not_an_agent(path, "expires_on or refresh_on is missing or malformed")
    assert isinstance(expires_on, int)  # noqa: S101 - for the type checker; seen above
    assert isinstance(refresh_on, int)  # noqa: S101
    return expires_on, min(refresh_on, expires_on)
