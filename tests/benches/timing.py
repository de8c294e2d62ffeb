"""Wall times of short processes, taken in turns so that a ratio holds on a noisy machine."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class MeasureError(Exception):
    """A measurement could not be made."""


def once(command: list[str], environment: dict[str, str], stdin: str = os.devnull) -> float:
    """Seconds from the start of a process to its end. Its output goes nowhere; a failure of it is one of ours."""
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, stdin, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
    ]
    start = time.perf_counter()
    pid = os.posix_spawn(command[0], command, environment, file_actions=actions)
    _, status = os.waitpid(pid, 0)
    seconds = time.perf_counter() - start
    if status != 0:
        code = os.waitstatus_to_exitcode(status)
        raise MeasureError(f"{' '.join(command)[:120]} ended with {code}")
    return seconds


def told(command: list[str], environment: dict[str, str], timeout: float = 120) -> str:
    """What a process prints, which is a measurement of its own. A failure of it is one of ours."""
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    if done.returncode != 0:
        raise MeasureError(done.stderr.strip()[-500:])
    return done.stdout


def in_turns(
    commands: list[list[str]], environment: dict[str, str], *, runs: int, warm_up: int = 3, stdin: str = os.devnull
) -> list[float]:
    """The median seconds of each command, over runs that alternate between them."""
    times: list[list[float]] = [[] for _ in commands]
    for run in range(warm_up + runs):
        for command, taken in zip(commands, times):
            seconds = once(command, environment, stdin)
            if run >= warm_up:
                taken.append(seconds)
    return [statistics.median(taken) for taken in times]


def resident_kib(pid: int) -> int:
    """VmRSS of a process."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise MeasureError(f"process {pid} has no resident memory")


@contextmanager
def not_pinned() -> Iterator[None]:
    """For a job's own processes, which have all CPUs."""
    pinned = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    try:
        yield
    finally:
        os.sched_setaffinity(0, pinned)
