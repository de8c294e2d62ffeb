"""A real registry, Debian's docker-registry, behind the double of Azure's front."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import places
from isolation import REGISTRY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from doubles import Doubles

START_SECONDS = 60


@contextmanager
def registry_behind(doubles: Doubles, directory: Path) -> Iterator[None]:
    """Runs the registry for as long as the block lasts."""
    directory.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = doubles.order("/registry", directory=str(directory), port=port)["config"]
    log = directory / "registry.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [places.system("docker-registry"), "serve", config],
            cwd=directory,
            env={"PATH": os.environ["PATH"], "HOME": str(directory), "OTEL_TRACES_EXPORTER": "none"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _await_answer(process, port, log)
        yield
    finally:
        process.terminate()
        process.wait()


def _await_answer(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", "/v2/")
            assert connection.getresponse().status == 401
        except ConnectionRefusedError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the registry does not answer:\n{log.read_text()}") from None
            time.sleep(0.1)
        else:
            return
        finally:
            connection.close()


def use_helper(home: Path) -> None:
    """Names the credential helper for the registry, as a user would."""
    file = home / ".docker" / "config.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"credHelpers": {REGISTRY: "jobcred"}}))


def make_image(directory: Path) -> str:
    """An image with one file in it; gives how skopeo names it."""
    umoci = places.system("umoci")
    content = directory / "content"
    content.write_text("what the image is for\n")
    layout = directory / "image"
    for command in (
        ["init", "--layout", str(layout)],
        ["new", "--image", f"{layout}:1"],
        ["insert", "--image", f"{layout}:1", str(content), "/content"],
    ):
        subprocess.run([umoci, *command], check=True, capture_output=True)
    return f"oci:{layout}:1"
