"""A container in all that matters here: its own root, mounts and processes, another user, and a shared volume.

Network and host names stay those of the test, as they are common to the containers of a pod.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import places

SHARED = Path("/shared")

# Arguments: the new root, the volume, then the folders that look as they do outside, `--`, and the rest for chroot.
_ENTER = """
set -eu
root=$1 volume=$2
shift 2
mount -t tmpfs -o mode=755 tmpfs "$root"
for name in bin sbin lib lib64; do
    if [ -L "/$name" ]; then cp -P "/$name" "$root/$name"
    elif [ -d "/$name" ]; then mkdir "$root/$name"; mount --bind "/$name" "$root/$name"; fi
done
mkdir -m 1777 "$root/tmp"
mkdir -m 755 "$root/run" "$root/proc" "$root/shared"
mount -t proc proc "$root/proc"
mount --bind "$volume" "$root/shared"
while [ "$1" != -- ]; do
    mkdir -p "$root$1"
    mount --rbind "$1" "$root$1"
    shift
done
shift
exec chroot "$@"
"""


@dataclass(frozen=True)
class Container:
    """Who runs in it, and the volume that it shares."""

    uid: int
    groups: tuple[int, ...]
    volume: Path

    def prefix(self, directory: Path) -> list[str]:
        """What to put before a command. `directory` is where its root is mounted."""
        root = directory / "root"
        root.mkdir(exist_ok=True)
        folders = ["/usr", "/etc", "/dev", str(places.ROOT), sys.prefix, sys.base_prefix, places.built_folder()]
        # Each once, and none that is within another.
        kept = [folder for folder in dict.fromkeys(folders) if not any(_within(folder, other) for other in folders)]
        groups = ",".join(str(group) for group in self.groups or (self.uid,))
        return [
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _ENTER, "sh"),
            *(str(root), str(self.volume), *kept, "--"),
            *(f"--userspec={self.uid}:{self.uid}", f"--groups={groups}", str(root)),
        ]


def why_not() -> str | None:
    """The reason why there can be no other users here; `None` when there can."""
    if os.geteuid() != 0:
        return "containers of other users need root"
    mapped = sum(int(line.split()[2]) for line in Path("/proc/self/uid_map").read_text().splitlines())
    if mapped < 65536:
        return "containers of other users need real root; in this user namespace there is only one user"
    return None


def _within(folder: str, other: str) -> bool:
    return folder != other and Path(folder).is_relative_to(other)
