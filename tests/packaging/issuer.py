"""A double of Entra that is found as the real one is: by a name server, port 443 and a root in the system's store."""

from __future__ import annotations

import base64
import datetime as dt
import http.server
import json
import socket
import socketserver
import ssl
import struct
import threading
import time
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

NAME = "login.microsoftonline.com"
TENANT = "11111111-1111-1111-1111-111111111111"
CLIENT = "22222222-2222-2222-2222-222222222222"
OBJECT = "33333333-3333-3333-3333-333333333333"
VARIABLES = {
    "JOBCRED_STRATEGY": "service-principal",
    "AZURE_TENANT_ID": TENANT,
    "AZURE_CLIENT_ID": CLIENT,
    "AZURE_CLIENT_SECRET": "not-a-secret",
}


def _token() -> str:
    now = int(time.time())
    claims = {"tid": TENANT, "oid": OBJECT, "appid": CLIENT, "idtyp": "app", "iat": now, "nbf": now, "exp": now + 3600}
    claims |= {"aud": "https://storage.azure.com", "iss": f"https://sts.windows.net/{TENANT}/"}
    parts = [json.dumps(part).encode() for part in ({"alg": "none"}, claims)]
    return ".".join([*(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts), "c2ln"])


class _Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.dumps({"token_type": "Bearer", "expires_in": 3599, "access_token": _token()}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Says nothing: what counts is what the agent says."""


class _Names(socketserver.BaseRequestHandler):
    """Answers for the one name, and denies all others."""

    def handle(self) -> None:
        query, sock = self.request
        end, labels = 12, []
        while query[end]:
            labels.append(query[end + 1 : end + 1 + query[end]].decode())
            end += query[end] + 1
        name, (kind,) = ".".join(labels), struct.unpack_from(">H", query, end + 1)
        asked: list[str] = self.server.asked  # type: ignore[attr-defined]
        asked.append(name)
        answer = b""
        if name == NAME and kind == 1:
            # A pointer to the question's name, type A, class IN, a second of life.
            answer = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 1, 4) + socket.inet_aton(Issuer.ADDRESS)
        flags = 0x8180 if name == NAME else 0x8183
        header = query[:2] + struct.pack(">HHHHH", flags, 1, bool(answer), 0, 0)
        sock.sendto(header + query[12 : end + 5] + answer, self.client_address)


class Issuer:
    """Listens on 127.0.0.53, port 443 (https) and port 53 (its name)."""

    ADDRESS = "127.0.0.53"

    def __init__(self, directory: Path) -> None:
        self.ca, certificate, key = _certificates()
        (directory / "issuer.pem").write_bytes(certificate + key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(directory / "issuer.pem")
        https = http.server.ThreadingHTTPServer((self.ADDRESS, 443), _Answers)
        https.socket = context.wrap_socket(https.socket, server_side=True)
        names = socketserver.UDPServer((self.ADDRESS, 53), _Names)
        self.asked: list[str] = []
        names.asked = self.asked  # type: ignore[attr-defined]
        self.servers: list[socketserver.BaseServer] = [https, names]
        for server in self.servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        """Ends."""
        for server in self.servers:
            server.shutdown()
            server.server_close()


def _certificates() -> tuple[str, bytes, bytes]:
    """A root, and a certificate by it with its key, all in PEM."""
    now = dt.datetime.now(dt.timezone.utc)

    def build(subject: str, issuer: str, key: Any, *more: tuple[Any, bool]) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder(
            subject_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]),
            issuer_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]),
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=now - dt.timedelta(days=1),
            not_valid_after=now + dt.timedelta(days=1),
        )
        for extension, critical in more:
            builder = builder.add_extension(extension, critical=critical)
        return builder

    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    basic = x509.BasicConstraints(ca=True, path_length=None)
    root = build("Root", "Root", root_key, (basic, True)).sign(root_key, hashes.SHA256())
    names = x509.SubjectAlternativeName([x509.DNSName(NAME)])
    leaf = build(NAME, "Root", key, (names, False)).sign(root_key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return root.public_bytes(pem).decode(), leaf.public_bytes(pem), private
