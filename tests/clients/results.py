"""What the tests found out about each client, and the pages that are made of it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import places
from catalogue import APP_SERVICE, AZURE_ML, CLIENTS, DIALECTS, IMDS, LIBRARIES, ON_BEHALF_OF

if TYPE_CHECKING:
    from pathlib import Path

    from catalogue import Client, Library

PAGE = places.ROOT / "docs" / "compatibility.md"
README = places.ROOT / "README.md"
BEGIN, END = "<!-- begin: side by side, from the client tests -->", "<!-- end: side by side -->"
TITLES = {
    APP_SERVICE: "App Service",
    AZURE_ML: "Azure ML",
    ON_BEHALF_OF: "on behalf of",
    IMDS: "metadata service",
}
FAILURES = ("refused for good", "denied by a rule", "throttled", "down, then back")


@dataclass
class Results:
    """By what was tried, what came of it. Only what was seen is in here."""

    dialects: dict[tuple[str, str], str] = field(default_factory=dict)
    libraries: dict[tuple[str, str], str] = field(default_factory=dict)
    failures: dict[tuple[str, str], str] = field(default_factory=dict)
    # Without jobcred, and with it.
    contrast: dict[str, tuple[str, str]] = field(default_factory=dict)
    burst: dict[str, str] = field(default_factory=dict)

    def missing(self, rows: list[str], failures: list[tuple[str, str]]) -> list[str]:
        """What a whole page needs, and was not run or did not pass."""
        return [
            *(f"{c.label} by {d}" for c in CLIENTS for d in c.dialects if (c.label, d) not in self.dialects),
            *(f"{b.label} by {d}" for b in LIBRARIES for d in b.dialects if (b.label, d) not in self.libraries),
            *(f"{label}, {failure}" for label, failure in failures if (label, failure) not in self.failures),
            *(f"a burst {way} jobcred" for way in ("with", "without") if way not in self.burst),
            *(f"{row}, side by side" for row in rows if row not in self.contrast),
        ]

    def page(self) -> str:
        return "\n".join([*INTRODUCTION, *self._clients(), *self._libraries(), *self._failures(), *CLOSING])

    def block(self, rows: list[str]) -> str:
        lines = ["| program | without jobcred | with jobcred |", "|---|---|---|"]
        lines += [f"| {row} | {self.contrast[row][0]} | {self.contrast[row][1]} |" for row in rows]
        lines += [f"| 64 Python processes at once, on a VM | {self.burst['without']} | {self.burst['with']} |"]
        return "\n".join([BEGIN, *lines, END])

    def _clients(self) -> list[str]:
        heads = [f"| client | package | {' | '.join(TITLES.values())} |", f"|---|---|{'---|' * len(DIALECTS)}"]
        notes: list[str] = []
        lines = []
        for client in CLIENTS:
            cells = [self._cell(client, dialect, notes) for dialect in DIALECTS]
            lines.append(f"| {client.name} | {package(client)} | {' | '.join(cells)} |")
        return ["## Credentials", "", *heads, *lines, "", *notes, ""]

    def _cell(self, client: Client, dialect: str, notes: list[str]) -> str:
        found = self.dialects.get((client.label, dialect), "")
        if found == "works" and dialect in client.wants:
            return f"works {note(notes, f'with `{client.wants[dialect]}`')}"
        if found in {"", "works"}:
            return found
        return f"no {note(notes, found)}"

    def _libraries(self) -> list[str]:
        lines = ["| library | package | by | needs besides |", "|---|---|---|---|"]
        for library in LIBRARIES:
            by = ", ".join(TITLES[dialect] for dialect in library.dialects)
            needs = f"`{library.wants}`" if library.wants else ""
            if library.is_fixed:
                needs = "that 169.254.169.254 leads to jobcred: so in the test, and in no job"
            lines.append(f"| {library.name} | {package(library)} | {by} | {needs} |")
        return ["## Reading data", "", *READING, "", *lines, ""]

    def _failures(self) -> list[str]:
        heads = [f"| client | package | {' | '.join(FAILURES)} |", f"|---|---|{'---|' * len(FAILURES)}"]
        lines = []
        for client in CLIENTS:
            cells = [self.failures.get((client.label, failure), "") for failure in FAILURES]
            if any(cells):
                lines.append(f"| {client.name} | {package(client)} | {' | '.join(cells)} |")
        return ["## When there is no token", "", *NO_TOKEN, "", *heads, *lines, ""]


INTRODUCTION = [
    "# Compatibility",
    "",
    "Which unmodified clients get their tokens from jobcred, and how. Made by `make test-clients` of what it ran (with",
    "`UPDATE_DOCS=1`); the same tests fail when this page says something else than they found. What the columns are",
    "is in [dialects.md](dialects.md).",
    "",
    "*works*: it got the job's identity when it named nobody, and the one that it named where it can name one, all",
    "of it by jobcred's endpoint, and nobody was asked elsewhere. An empty cell: it does not speak that dialect.",
    "",
]
READING = [
    "Parquet, a Delta table or a text file in a storage account at its usual name; nothing is said of credentials, but",
    "that there are some. Behind the name is the Azurite emulator, which checks tokens and is asked over TLS.",
]
NO_TOKEN = [
    "What a user sees. *Once*: the client asked jobcred once, and its error has jobcred's reason in it. Throttling",
    "and outages are the platform's; jobcred asks again for all processes together. An empty cell: not tried.",
]
CLOSING = [
    "Where a client has no way to be led to jobcred, `JobCredential`, `jobcred token` and the libraries for Rust and C",
    "still work.",
    "",
]


def note(notes: list[str], text: str) -> str:
    """The mark of a note below the table; one note for each text."""
    for number, known in enumerate(notes, 1):
        if known.endswith(f" {text}  "):
            return f"({number})"
    notes.append(f"({len(notes) + 1}) {text}  ")
    return f"({len(notes)})"


def package(what: Client | Library) -> str:
    return f"{what.package} {what.version()} ({what.registry})"


def replaced(text: str, block: str) -> str:
    """The README, with what is between its marks replaced."""
    pattern = re.escape(BEGIN) + r".*?" + re.escape(END)
    assert re.search(pattern, text, re.DOTALL), "the README has lost its marks"
    return re.sub(pattern, lambda _: block, text, flags=re.DOTALL)


def is_true(file: Path, wanted: str) -> bool:
    """Whether a page says what was found. With `UPDATE_DOCS=1` it does from now on."""
    if os.environ.get("UPDATE_DOCS") == "1":
        file.write_text(wanted)
    return file.exists() and file.read_text() == wanted
