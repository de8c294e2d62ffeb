"""A job's program that fetches pages as its user's choice of library does, with the proxy that the environment names.

`fetch.py LIBRARY URL...` prints a line of JSON for each: what the page says of the way that it came by, or the error.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 60


def urllib_() -> Callable[[str], str]:
    def fetch(url: str) -> str:
        with urllib.request.urlopen(url, timeout=SECONDS) as response:
            return str(response.read().decode())

    return fetch


def requests() -> Callable[[str], str]:
    import requests as library

    def fetch(url: str) -> str:
        response = library.get(url, timeout=SECONDS)
        response.raise_for_status()
        return str(response.text)

    return fetch


def curl() -> Callable[[str], str]:
    def fetch(url: str) -> str:
        command = ["curl", "--silent", "--show-error", "--fail", "--globoff", "--max-time", str(SECONDS), url]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    return fetch


def mltable() -> Callable[[str], str]:
    """By `rslex`, a library in Rust with a reader of the proxy's variables of its own."""
    import mltable as library

    def fetch(url: str) -> str:
        frame = library.from_delimited_files([{"file": url}]).to_pandas_dataframe()
        return "\n".join([*frame.columns, *(str(value) for row in frame.to_numpy().tolist() for value in row)])

    return fetch


LIBRARIES = {"urllib": urllib_, "requests": requests, "curl": curl, "mltable": mltable}


def main() -> None:
    fetch = LIBRARIES[sys.argv[1]]()
    for url in sys.argv[2:]:
        try:
            line: dict[str, str | None] = {"way": fetch(url).split()[-1], "error": None}
        except Exception as error:
            said = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
            line = {"way": None, "error": type(error).__name__, "message": said}
        print(json.dumps({"url": url, **line}), flush=True)


if __name__ == "__main__":
    main()
