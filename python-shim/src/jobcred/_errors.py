"""What can go wrong, as one tree of exceptions.

JobCredentialError            everything below
  InvalidRequestError         the request is wrong: correct it (also a ValueError)
  DeniedError                 policy says no: ask whoever configured the agent
  UnavailableError            no such token is to be had here: another credential may have one
    AgentNotFoundError        nobody answers where an agent could be
  RejectedError               the issuer refused: something in Azure has to change
    GrantEndedError           the submitting user's session has ended: submit the job again
  TransientError              try again later
    AgentGoneError            nobody answers at the one place that was named
  InternalError               a fault of the agent, or of what answers in its place
  UntrustedAgentError         the socket belongs to somebody else

Where Azure's packages are installed, what a caller gets is also an exception of theirs, so that their code does the
right thing with it: see :func:`for_caller`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Optional

    Details = tuple[str, Optional[str], Optional[float], Optional[str]]


class JobCredentialError(Exception):
    """No credential could be had.

    ``str(error)`` says what happened and what to do next. It never holds a token or a secret.

    :ivar code: the kind, as ``docs/protocol.md`` spells it, or ``untrusted_agent``.
    :ivar message: the same text as ``str(error)``.
    :ivar hint: what to do next, or None.
    :ivar retry_after: seconds after which another try makes sense, or None.
    :ivar request_id: the agent's id of this request; its log has the whole story under it. None when no agent answered.
    """

    code = "internal"

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
    ) -> None:
        text = message if hint is None else f"{message.rstrip('.')}. {hint}"
        notes = [note for note in (self.code, request_id and f"request {request_id}") if note]
        text = f"{text} [{', '.join(notes)}]"
        self._start(text)
        self.message = text
        self.hint = hint
        self.retry_after = retry_after
        self.request_id = request_id
        self.details: Details = (message, hint, retry_after, request_id)

    def _start(self, text: str) -> None:
        Exception.__init__(self, text)

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Callable[..., JobCredentialError], tuple[object, ...]]:
        # The class a caller sees may have been made at run time; the kind by which it was made travels.
        return _rebuild, (_kind(type(self)), self.details)


class InvalidRequestError(JobCredentialError, ValueError):
    """The request itself is wrong."""

    code = "invalid_request"


class DeniedError(JobCredentialError):
    """The agent's policy says no."""

    code = "denied"


class UnavailableError(JobCredentialError):
    """There is no way to get such a token here; a chain of credentials may go on."""

    code = "unavailable"


class AgentNotFoundError(UnavailableError):
    """Nobody answers where an agent could be."""


class RejectedError(JobCredentialError):
    """The issuer refused; a role, an assignment or a setting in Azure has to change."""

    code = "rejected"


class GrantEndedError(RejectedError):
    """The submitting user's session has ended; the job has to be submitted again."""

    code = "grant_ended"


class TransientError(JobCredentialError):
    """Upstream or the agent is busy, slow or broken; another try may work."""

    code = "transient"


class AgentGoneError(TransientError):
    """Nobody answers at the one place that was named.

    There has been an agent, or will be: a chain of credentials must not go on to another identity because of it.
    """


class InternalError(JobCredentialError):
    """A fault of the agent, or of what answers in its place."""


class UntrustedAgentError(JobCredentialError):
    """The socket belongs to neither this user nor root; nothing was sent to it."""

    code = "untrusted_agent"


_KINDS: tuple[type[JobCredentialError], ...] = (
    JobCredentialError,
    InvalidRequestError,
    DeniedError,
    UnavailableError,
    AgentNotFoundError,
    RejectedError,
    GrantEndedError,
    TransientError,
    AgentGoneError,
    InternalError,
    UntrustedAgentError,
)
_BY_CODE = {kind.code: kind for kind in _KINDS if kind not in (JobCredentialError, AgentNotFoundError, AgentGoneError)}

_STOP = ("azure.core.exceptions", "ClientAuthenticationError")
# A chain of credentials goes on after the first, and stops at any other. The retry policy of azure.core never retries
# ClientAuthenticationError, but does retry ServiceRequestError ("no request was sent"), which is true of the request
# that wanted the token.
_AZURE: tuple[tuple[type[JobCredentialError], tuple[tuple[str, str], ...]], ...] = (
    (UnavailableError, (("azure.identity", "CredentialUnavailableError"), _STOP)),
    (TransientError, (("azure.core.exceptions", "ServiceRequestError"),)),
    (JobCredentialError, (_STOP,)),
)
_combined: dict[type[JobCredentialError], type[JobCredentialError]] = {}


def of_code(code: str) -> type[JobCredentialError]:
    """The class for a code on the wire; a code this version does not know counts as ``internal``."""
    return _BY_CODE.get(code, InternalError)


def not_an_agent(path: str, reason: str) -> InternalError:
    """The error for an answer that no agent would give."""
    return InternalError(
        f"What listens at {path} does not answer like a jobcred agent: {reason}.",
        hint="Check JOBCRED_SOCKET, and that agent and package are of compatible versions.",
    )


def no_agent_on(platform: str) -> UnavailableError:
    """The error for a platform that agents do not run on, by its name in ``sys.platform``."""
    return UnavailableError(
        f"The jobcred agent does not run on {platform}.",
        hint="It runs on Linux, in the training container; here, use another credential.",
    )


def for_caller(error: JobCredentialError) -> JobCredentialError:
    """The same error, new, as the class to raise at the package's edge.

    It is also an exception of azure.identity or azure.core where these are installed. They are imported here and not
    earlier, because they are slow to import and most processes never see an error.
    """
    return _rebuild(_kind(type(error)), error.details)


def _rebuild(kind: type[JobCredentialError], details: Details) -> JobCredentialError:
    cls = _combined.get(kind)
    if cls is None:
        cls = _combined.setdefault(kind, _combine(kind))
    message, hint, retry_after, request_id = details
    return cls(message, hint=hint, retry_after=retry_after, request_id=request_id)


def _kind(cls: type[JobCredentialError]) -> type[JobCredentialError]:
    return next(base for base in cls.__mro__ if base in _KINDS)


def _combine(kind: type[JobCredentialError]) -> type[JobCredentialError]:
    from importlib import import_module

    names = next(names for base, names in _AZURE if issubclass(kind, base))
    for module, name in names:
        try:
            other = getattr(import_module(module), name)
            return type(
                kind.__name__,
                (kind, other),
                {
                    "__doc__": kind.__doc__,
                    "__module__": kind.__module__,
                    "_start": lambda self, text, other=other: other.__init__(self, text),
                },
            )
        except Exception:  # noqa: S112 - absent, broken or changed: the caller still gets our own error
            continue
    return kind
