"""Loads files of Azure ML with Azure's own SDK, offline. It needs an environment of its own: see tests/setup.

One line of JSON for each file: `{"file": ..., "type": ..., "errors": ...}`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from azure.ai.ml import load_environment, load_job


def check(file: Path) -> dict[str, Any]:
    """What it is taken for, and what is wrong with it."""
    try:
        if file.name == "environment.yml":
            return {"type": type(load_environment(file)).__name__, "errors": {}}
        job = load_job(file)
        # What the SDK does with a job before it is submitted.
        return {"type": type(job).__name__, "errors": job._validate().error_messages}  # noqa: SLF001
    except Exception as error:  # whatever it is, it is the finding
        return {"type": None, "errors": {type(error).__name__: str(error)}}


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(json.dumps({"file": name, **check(Path(name))}))
