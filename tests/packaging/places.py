"""Where things are, and roots that programs are started in."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
# Of the build that is tested.
DIST = Path(os.environ.get("JOBCRED_DIST") or REPOSITORY / "dist")
ROOTS = REPOSITORY / ".tools/roots"
# What a container has, and nothing of the machine that the tests run on.
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/root", "LANG": "C.UTF-8"}

Done = subprocess.CompletedProcess[str]


def run(*command: str | Path, cwd: Path | None = None, **variables: str) -> Done:
    """Runs a command with nothing of this process's environment but what is named."""
    environment = {**ENVIRONMENT, **variables}
    return subprocess.run(
        [str(word) for word in command],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


class Root:
    """The root of a file system for ``chroot``. Its mounts end with the namespace of the tests."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()

    def lay_over(self, lower: Path, work: Path) -> None:
        """Begins with a distribution, which stays as it is."""
        changes, scratch = work / "changes", work / "scratch"
        changes.mkdir()
        scratch.mkdir()
        options = f"lowerdir={lower},upperdir={changes},workdir={scratch}"
        subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", self.path], check=True)
        self.furnish()

    def furnish(self) -> None:
        """Gives it what every container has."""
        for name in ("proc", "dev", "tmp", "etc"):
            (self.path / name).mkdir(exist_ok=True)
        (self.path / "tmp").chmod(0o1777)
        for name in ("proc", "dev"):
            subprocess.run(["mount", "--rbind", f"/{name}", self.path / name], check=True)

    def unpack(self, archive: Path) -> None:
        """Unpacks the archive as its users do: its bin, lib and share into /usr/local."""
        below = self.path / "usr/local"
        below.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive) as packed:
            for member in packed.getmembers():
                member.name = member.name.partition("/")[2]
                if member.name:
                    packed.extract(member, below)

    def write(self, path: str, text: str) -> None:
        """Writes a file, and the directories above it."""
        file = self.path / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        # It may be a link that leads out of the root.
        file.unlink(missing_ok=True)
        file.write_text(text)

    def run(self, *command: str, **variables: str) -> Done:
        """Runs a command in it."""
        return run("/usr/sbin/chroot", self.path, *command, cwd=None, **variables)
