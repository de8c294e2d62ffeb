"""Makes the wheel of a platform: the package, and with it the programs that ``make static`` built.

``JOBCRED_BINARIES`` names their directory. Without it the wheel is pure Python, for all other platforms; what is
installed from source has no agent in it.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PROGRAMS = ("jobcred", "docker-credential-jobcred")
# e_machine of an ELF file, and the platform's name in a wheel's tag.
MACHINES = {62: "x86_64", 183: "aarch64"}
PT_INTERP = 3


class ProgramsHook(BuildHookInterface):
    """Adds the programs as scripts, and the tags of the platforms they run on."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before the wheel is written."""
        directory = os.environ.get("JOBCRED_BINARIES")
        if not directory or version == "editable":
            return
        files = {name: Path(directory) / name for name in PROGRAMS}
        (machine,) = {machine_of(path) for path in files.values()}
        build_data["shared_scripts"] = {str(path): name for name, path in files.items()}
        build_data["pure_python"] = False
        # A program that needs no library of its host fulfils every policy; these are the oldest that installers know.
        # It has no interface to Python, so any Python 3 will do.
        platforms = [f"manylinux2014_{machine}", f"manylinux_2_17_{machine}", f"musllinux_1_1_{machine}"]
        build_data["tag"] = "py3-none-" + ".".join(platforms)
        notices = Path(directory) / "THIRD-PARTY-LICENSES"
        if notices.exists():
            folder = f"{self.metadata.name.replace('-', '_')}-{self.metadata.version}.dist-info/licenses"
            build_data["force_include"][str(notices)] = f"{folder}/{notices.name}"


def machine_of(path: Path) -> str:
    """The platform a statically linked program is for; refuses any other file, whose tag would be a lie."""
    header = path.read_bytes()
    if header[:6] != b"\x7fELF\x02\x01":
        message = f"{path} is no 64-bit little-endian ELF file"
        raise ValueError(message)
    (kind,) = struct.unpack_from("<H", header, 18)
    (start,) = struct.unpack_from("<Q", header, 32)
    size, count = struct.unpack_from("<HH", header, 54)
    if any(struct.unpack_from("<I", header, start + number * size)[0] == PT_INTERP for number in range(count)):
        message = f"{path} wants a dynamic loader; what a wheel carries is built by 'make static'"
        raise ValueError(message)
    if kind not in MACHINES:
        message = f"{path} is for a machine (ELF number {kind}) that has no name here"
        raise ValueError(message)
    return MACHINES[kind]
