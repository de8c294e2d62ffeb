"""The documented commands of docker, in the engine."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from commands import run_by
from engine import Container

if TYPE_CHECKING:
    from engine import Engine


def test_k2_the_documented_lines_run_the_image(engine: Engine, jobcred: str) -> None:
    engine.do("tag", jobcred, "jobcred")
    build, run, other, stop = (shlex.split(line.replace("\\\n", " ")) for line in run_by("containers"))
    # The image that it builds on comes from an index. `images.py` builds the same file on another.
    assert build == ["docker", "build", "-t", "jobcred", "."]
    assert run[:3] == other[:3] == ["docker", "run", "--rm"]
    # Not `--rm`: its end is looked at below.
    agent = Container(engine, engine.do("run", "--detach", "--network", "none", *run[3:]))
    agent.until_ready()

    done = engine.call("run", "--rm", "--network", "none", *other[3:])
    # There is no identity here, and it says so.
    assert done.returncode == 121, done.stderr
    assert done.stdout, done.stderr

    engine.do(*stop[1:], agent.name)
    assert agent.wait() == 0
