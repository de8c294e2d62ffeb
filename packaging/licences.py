"""Writes the licences of everything that is linked into the static programs, as their authors ask for.

usage: licences.py TRIPLE >THIRD-PARTY-LICENSES
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PROGRAMS = ("jobcred", "docker-credential-jobcred")
NAMES = ("license", "licence", "copying", "notice", "unlicense")
LIBC = """\
The GNU C Library (LGPL-2.1-or-later, https://www.gnu.org/software/libc/) is linked statically. Its licence lets you
link the programs again with a C library of your own: their whole source and its build are in jobcred's repository.
The Rust standard library (MIT OR Apache-2.0, https://www.rust-lang.org/) is linked statically as well.
"""


def linked(triple: str) -> set[str]:
    """Names and versions of the packages linked into the programs, as ``name v1.2.3``."""
    command = [
        "cargo",
        "tree",
        "--locked",
        "--edges",
        "normal",
        "--target",
        triple,
        "--prefix",
        "none",
    ]
    for program in PROGRAMS:
        command += ["--package", program]
    lines = subprocess.run(
        command, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return {" ".join(line.split()[:2]) for line in lines if line}


def packages(triple: str) -> list[dict[str, str]]:
    """Every package that Cargo knows of in this workspace, from elsewhere."""
    command = [
        "cargo",
        "metadata",
        "--locked",
        "--format-version",
        "1",
        "--filter-platform",
        triple,
    ]
    found = json.loads(
        subprocess.run(command, capture_output=True, text=True, check=True).stdout
    )["packages"]
    return sorted(
        (one for one in found if one["source"]),
        key=lambda one: (one["name"], one["version"]),
    )


def main() -> int:
    """Write all of it to standard output."""
    (triple,) = sys.argv[1:]
    wanted = linked(triple)
    texts: dict[str, list[str]] = {}
    print("What is linked into jobcred's programs, and under which licence.\n")
    print(LIBC)
    for package in packages(triple):
        name = f"{package['name']} v{package['version']}"
        if name not in wanted:
            continue
        print(f"{name}: {package['license'] or 'see below'}")
        folder = Path(package["manifest_path"]).parent
        files = [
            path
            for path in folder.iterdir()
            if path.is_file() and path.name.lower().startswith(NAMES)
        ]
        for path in sorted(files):
            texts.setdefault(
                path.read_text(encoding="utf-8", errors="replace").strip(), []
            ).append(name)
    for text, names in texts.items():
        print(f"\n{'=' * 78}\n{', '.join(dict.fromkeys(names))}\n{'=' * 78}\n{text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
