"""The little HTTP/1.1 an agent speaks, as bytes in and replies out; no I/O."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# The bounds of docs/protocol.md.
MAX_ANSWER_BYTES: Final = 1024 * 1024
MAX_HEAD_BYTES: Final = 64 * 1024

# Every request carries it, with any value. The agent refuses a request without it: a URL alone cannot bring it along.
REQUEST_HEADER: Final = "jobcred"

_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


class ReplyError(Exception):
    """These bytes are not an answer of an agent."""


class Reply:
    """One whole answer."""

    __slots__ = ("body", "headers", "keep", "status")

    def __init__(self, status: int, headers: dict[str, str], body: bytes, *, keep: bool) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.keep = keep


class ReplyReader:
    """Collects the bytes of one answer."""

    __slots__ = ("_data", "_head")

    def __init__(self) -> None:
        self._data = bytearray()
        self._head: tuple[int, dict[str, str], int, int] | None = None

    @property
    def started(self) -> bool:
        """Whether any byte of the answer has arrived."""
        return bool(self._data)

    def feed(self, chunk: bytes) -> Reply | None:
        """Takes the next bytes; gives the answer once it is whole."""
        self._data += chunk
        if self._head is None:
            end = self._data.find(b"\r\n\r\n")
            if end < 0:
                if len(self._data) > MAX_HEAD_BYTES:
                    raise ReplyError("its headers do not end")
                if not b"HTTP/1.".startswith(self._data[:7]):
                    raise ReplyError("it is not HTTP/1.1")
                return None
            status, headers = _parse_head(bytes(self._data[:end]))
            self._head = status, headers, end + 4, end + 4 + _body_length(status, headers)
        status, headers, start, end = self._head
        if len(self._data) < end:
            return None
        # Bytes after the end belong to no request of ours: whatever they are, the connection is of no more use.
        keep = len(self._data) == end and headers.get("connection", "").lower() != "close"
        return Reply(status, headers, bytes(self._data[start:end]), keep=keep)


def request_bytes(method: str, path: str, query: list[tuple[str, str]]) -> bytes:
    """A whole request without a body."""
    text = "&".join(f"{name}={quote(value)}" for name, value in query)
    target = f"{path}?{text}" if text else path
    headers = f"Host: jobcred\r\n{REQUEST_HEADER}: 1\r\nAccept: application/json\r\n"
    return f"{method} {target} HTTP/1.1\r\n{headers}\r\n".encode("ascii")


def quote(text: str) -> str:
    """Percent-encodes everything but the unreserved characters of RFC 3986."""
    return "".join([chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in text.encode()])


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    number = rest[:3]
    if version != "HTTP/1.1" or not (number.isascii() and number.isdigit()) or rest[3:4].strip():
        raise ReplyError("it is not HTTP/1.1")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name, value = name.lower(), value.strip()
        if not colon or not name or name != name.strip():
            raise ReplyError("a header is malformed")
        if name == "content-length" and headers.get(name, value) != value:
            raise ReplyError("it has two lengths")
        headers[name] = value
    return int(number), headers


def _body_length(status: int, headers: dict[str, str]) -> int:
    if status < 200:
        raise ReplyError("it is an interim answer")
    if status in (204, 304):
        return 0
    if "transfer-encoding" in headers:
        raise ReplyError("it has a transfer encoding")
    length = headers.get("content-length", "")
    if not (length.isascii() and length.isdigit()):
        raise ReplyError("it does not say how long it is")
    # Compared as text first: int() of a million digits is slow, and refused by newer versions of Python.
    if len(length) > 7 or int(length) > MAX_ANSWER_BYTES:
        raise ReplyError(f"it is longer than {MAX_ANSWER_BYTES} bytes")
    return int(length)
