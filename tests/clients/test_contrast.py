"""The same program, the same platform: without jobcred, and with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import places
from catalogue import CLIENTS, Client
from platforms import platform

if TYPE_CHECKING:
    from collections.abc import Callable

    from results import Results
    from scene import Scene

# Each with what an error of it comes down to.
ROWS = {
    "Python, `DefaultAzureCredential()`": ("azure-identity", "default", "Expecting value: line 1 column 1 (char 0)"),
    "Python, `ManagedIdentityCredential()`, aio": ("azure-identity", "managed_aio", "Unexpected content type"),
    "JavaScript, `new DefaultAzureCredential()`": ("@azure/identity", "default", ""),
    "Rust, `ManagedIdentityCredential::new()`": (
        *("azure_identity", "managed"),
        "Azure ML managed identity isn't supported",
    ),
    "Rust, `object_store` from the environment": ("object_store", "object_store", ""),
}
OWN = "the job's identity"


def client(row: str) -> Client:
    package, kind, _ = ROWS[row]
    return next(known for known in CLIENTS if (known.package, known.kind) == (package, kind))


def outcome(answer: dict[str, Any], own: str, error: str) -> str:
    """Whose token it was, or what the error comes down to."""
    if answer["oid"] == own:
        return OWN
    if answer["oid"] is not None:
        return "whatever identity the metadata service gives"
    assert error, answer
    assert error in answer["message"], answer
    return f"`{error}`"


@pytest.mark.parametrize("row", ROWS)
def test_the_jobs_identity_without_and_with(row: str, scene: Callable[..., Scene], results: Results) -> None:
    chosen = platform("compute-identity")
    machine = scene(chosen.config(3600))
    variables = machine.environment(chosen.environment(machine.doubles, machine.directory))
    own = chosen.principal(machine.doubles.ready)["object_id"]
    program = client(row)
    found = []
    for prefix in ([], [places.built("jobcred"), "run", "--"]):
        with machine.conversation([*prefix, *program.command()], variables) as talk:
            answer = talk.ask(kind=program.kind)
            found.append(outcome(answer, own, ROWS[row][2]))
    assert found[1] == OWN
    results.contrast[row] = (found[0], found[1])
