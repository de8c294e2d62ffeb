"""Every command in the documentation runs, or the reason why it does not is in `lines.py`: see README.md."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import places
from commands import ELSEWHERE, Block, all_blocks, in_page
from doubles import Doubles
from lines import INSTEAD, NOT_RUN, reason, runnable, starts_an_agent

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
BLOCKS = all_blocks()
# Those with a line that runs here.
RUN = [block for block in BLOCKS if not all(map(reason, block.lines))]
# A bound for what hangs.
PATIENCE = 120


@pytest.fixture(scope="session", autouse=True)
def _isolated() -> None:
    """Nothing is started where it could reach another machine."""
    if os.environ.get("JOBCRED_ISOLATED") != "1":
        pytest.fail("run this under tests/isolated: what is tested may ask identity endpoints", pytrace=False)


@pytest.fixture(scope="module")
def doubles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doubles]:
    """A compute cluster, and the account of the documentation, on which the identity may read."""
    storage = {"bind": "127.0.0.1:443", "rights": "reader"}
    config = {"names": ["myaccount.blob.core.windows.net"], "azure_ml": {}, "storage": storage}
    with Doubles(tmp_path_factory.mktemp("doubles"), config) as doubles:
        yield doubles


@pytest.fixture
def variables(doubles: Doubles, tmp_path: Path) -> dict[str, str]:
    """The environment of a job, with its files and programs in the working directory."""
    programs = tmp_path / "programs"
    programs.mkdir()
    stand_ins = (places.ROOT / "tests/containers/stand-ins/torchrun", HERE / "mpirun")
    built = [Path(places.built(name)).resolve() for name in ("jobcred", "jobcred-doubles")]
    for program in (*stand_ins, *built):
        (programs / program.name).symlink_to(program)
    # Not a link: Python looks for its packages beside it.
    for name in ("python", "python3"):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        (programs / name).chmod(0o755)
    for name in ("deploy", "client-lib"):
        (tmp_path / name).symlink_to(places.ROOT / name)
    shutil.copy(HERE / "train.py", tmp_path)
    shutil.copy(places.ROOT / "client-lib/capi/examples/token.c", tmp_path)
    return {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "PYTHONPATH": str(places.PYTHON_PACKAGE),
        "SSL_CERT_FILE": doubles.ready["ca"],
        **doubles.ready["azure_ml"]["environment"],
    }


@pytest.mark.parametrize("block", RUN, ids=str)
def test_k2_the_documented_lines_run(block: Block, variables: dict[str, str], tmp_path: Path) -> None:
    texts = [runnable(line) for line in block.lines if reason(line) is None]
    script = tmp_path / "script"
    script.write_text("\n".join(["set -e", *texts, ""]))
    words = ["sh", str(script)]
    if not any(starts_an_agent(text) for text in texts):
        words = ["jobcred", "run", "--quiet", "--", *words]
    done = subprocess.run(
        words, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert done.returncode == 0, f"{script.read_text()}\n{done.stdout}{done.stderr}"


def test_the_tables_name_no_line_that_is_gone() -> None:
    lines = [line for block in BLOCKS for line in block.lines]
    for table in (INSTEAD, NOT_RUN, ELSEWHERE):
        assert table.keys() <= set(lines), table.keys() - set(lines)
    assert not NOT_RUN.keys() & ELSEWHERE.keys()


def test_commands_are_found_in_every_form() -> None:
    text = """
Start `jobcred run -- true`, `NAME=value jobcred explain`, or
`. ./file` over two `jobcred
status` lines; `jobcred` and `key = "value"` are names, `JOBCRED_A=b` a setting.

```sh
one \\
  two     # a comment
three "of
four"
```

```console
$ five
an answer
$ six '
seven'
```

```yaml
command: jobcred run -- eight
command: ["sh", "-c", "nine && ten"]
image: eleven
```
"""
    found = [line for block in in_page(places.ROOT / "README.md", text) for line in block.lines]
    assert found == [
        "one \\\n  two",
        'three "of\nfour"',
        "five",
        "six '\nseven'",
        "jobcred run -- eight",
        "sh -c 'nine && ten'",
        "jobcred run -- true",
        "NAME=value jobcred explain",
        ". ./file",
        "jobcred status",
        "JOBCRED_A=b",
    ]
