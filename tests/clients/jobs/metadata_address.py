"""Runs a command while the metadata service's own address leads to the one that jobcred plays.

`metadata_address.py COMMAND...`, inside `jobcred run` with the dialect `imds`, in a namespace where that address is on
loopback. For clients whose address cannot be changed: so what jobcred says there is put before them all the same.
"""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

ADDRESS = ("169.254.169.254", 80)
AUTHORITY = urlsplit(os.environ["AZURE_POD_IDENTITY_AUTHORITY_HOST"])


class Relay(BaseHTTPRequestHandler):
    """Passes a request on, as it came but for its place."""

    def do_GET(self) -> None:
        upstream = http.client.HTTPConnection(AUTHORITY.netloc, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in {"host", "connection"}}
        upstream.request("GET", AUTHORITY.path.rstrip("/") + self.path, headers=headers)
        response = upstream.getresponse()
        body = response.read()
        upstream.close()
        self.send_response(response.status)
        self.send_header("Content-Type", response.headers["Content-Type"])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class has it)
        """Nothing: the query is in it."""


def main() -> int:
    server = ThreadingHTTPServer(ADDRESS, Relay)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return subprocess.run(sys.argv[1:], check=False).returncode


sys.exit(main())
