"""The commands of docs/containers.md, in the engine."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import places
from engine import Container

if TYPE_CHECKING:
    from engine import Engine

PAGE = (places.ROOT / "docs/containers.md").read_text()


def test_k2_the_documented_lines_run_the_image(engine: Engine, jobcred: str) -> None:
    engine.do("tag", jobcred, "jobcred")
    (block,) = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    build, run = block.replace("\\\n", " ").splitlines()
    # The image that it builds on comes from an index. `images.py` builds the same file on another.
    assert build == "docker build -t jobcred ."
    words = shlex.split(run.removeprefix("docker run --rm "))
    agent = Container(engine, engine.do("run", "--detach", "--network", "none", *words))
    agent.until_ready()

    (other,) = re.findall(r"`docker run --rm (jobcred .*?)`", PAGE)
    done = engine.call("run", "--rm", "--network", "none", *shlex.split(other))
    # There is no identity here, and it says so.
    assert done.returncode == 121, done.stderr
    assert done.stdout, done.stderr

    (stop,) = re.findall(r"`docker (stop .*?)`", PAGE)
    engine.do(*shlex.split(stop), agent.name)
    assert agent.wait() == 0
