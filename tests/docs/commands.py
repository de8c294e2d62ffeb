"""Finds the commands in the documentation."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "python-shim/README.md",
    *sorted((ROOT / "client-lib").rglob("README.md")),
    ROOT / "CONTRIBUTING.md",
    ROOT / "fuzz/README.md",
    ROOT / "tests/README.md",
    *sorted((ROOT / "tests").glob("*/README.md")),
]
# Lines that need an engine, a cluster or another distribution, and the neighbour of this directory that runs them.
ELSEWHERE = {
    "pip install dist/jobcred-*linux*.whl": "packaging",
    "pip uninstall jobcred": "packaging",
    "cd dist && sha256sum --check SHA256SUMS": "packaging",
    "tar -xzf jobcred-*-linux-x86_64.tar.gz -C /opt": "packaging",
    "install -m 755 /opt/jobcred-*/bin/* /usr/local/bin": "packaging",
    "docker build -t jobcred .": "containers",
    (
        "docker run --rm --read-only --cap-drop ALL --security-opt no-new-privileges \\\n"
        "    --volume credentials:/run/jobcred jobcred agent --sandbox"
    ): "containers",
    "docker run --rm jobcred explain": "containers",
    "docker stop --time 30": "containers",
    "kubectl kustomize deploy/kubernetes": "kubernetes",
    "kubectl apply -k deploy/kubernetes": "kubernetes",
    "kubectl logs POD -c jobcred": "kubernetes",
}
# What a code span has to begin with to be a command.
PROGRAMS = {
    *(".", "az", "azcopy", "cargo", "cc", "cd", "chmod", "cp"),
    *("curl", "docker", "docker-credential-jobcred", "echo", "env", "eval", "exec", "export", "helm"),
    *("install", "jobcred", "kill", "killall", "kubectl", "make", "mpirun", "npm"),
    *("pip", "pkill", "podman", "python", "python3", "rclone", "sh", "skopeo"),
    *("source", "sudo", "tar", "torchrun"),
}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
SETTING = re.compile(r"JOBCRED_[A-Z_]+=\S+$")
ASSIGNMENT = re.compile(r"[A-Z_]+=\S*$")
COMMENT = re.compile(r"(^|\s+)#\s.*$")


@dataclass(frozen=True)
class Block:
    """Commands that belong together."""

    page: Path
    number: int
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.number}"


def is_whole(text: str) -> bool:
    """Whether a shell would not ask for another line."""
    try:
        shlex.split(text)
    except ValueError:
        return False
    return not text.endswith("\\")


def logical(lines: list[str]) -> Iterator[str]:
    """The lines as a shell takes them, without comments."""
    text = ""
    for written in lines:
        # What follows a quote that is open is no comment.
        line = written if text and not text.endswith("\\") else COMMENT.sub("", written)
        text = f"{text}\n{line}" if text else line
        if text and is_whole(text):
            yield text
            text = ""
    assert not text, f"a command does not end: {text}"


def typed(lines: list[str]) -> Iterator[str]:
    """What is typed at the prompts of a console."""
    waiting = iter(lines)
    for line in waiting:
        if line.startswith("$ "):
            text = COMMENT.sub("", line[2:])
            while not is_whole(text):
                text += "\n" + next(waiting)
            yield text


def keyed(lines: list[str]) -> Iterator[str]:
    """The commands in YAML: text, or the words of `sh -c`."""
    for line in lines:
        if line.startswith("command: "):
            value = line.removeprefix("command: ")
            yield shlex.join(json.loads(value)) if value.startswith("[") else value


READERS = {"sh": logical, "console": typed, "yaml": keyed}
# Languages of blocks without commands.
OTHERS = {"c", "dockerfile", "json", "promql", "python", "rust", "text", "toml"}


def is_command(span: str) -> bool:
    """Whether a code span is a command with arguments, or sets a variable of jobcred."""
    words = span.split()
    if SETTING.match(span):
        return True
    while len(words) > 1 and ASSIGNMENT.match(words[0]):
        words.pop(0)
    return len(words) > 1 and words[0] in PROGRAMS


def in_page(page: Path, text: str) -> Iterator[Block]:
    """The commands of one page."""

    def number(position: int) -> int:
        return text.count("\n", 0, position) + 1

    fences = list(FENCE.finditer(text))
    assert text.count("```") == 2 * len(fences), f"{page}: a block that is not understood"
    for fence in fences:
        assert fence[1] in READERS.keys() | OTHERS, (
            f"{page}: name the language of the block: sh, console, yaml or another"
        )
        if fence[1] in READERS:
            lines = tuple(READERS[fence[1]](fence[2].splitlines()))
            if lines:
                yield Block(page, number(fence.start()), lines)
    prose = FENCE.sub(lambda fence: re.sub(r"[^\n]", " ", fence[0]), text)
    for span in SPAN.finditer(prose):
        line = " ".join(span[1].split())
        if is_command(line):
            yield Block(page, number(span.start()), (line,))


def in_pages() -> Iterator[str]:
    """Every command of the pages."""
    for page in PAGES:
        for block in in_page(page, page.read_text()):
            yield from block.lines


def run_by(neighbour: str) -> list[str]:
    """The commands that a neighbour of this directory runs, in the order of the table."""
    there = set(in_pages())
    assert ELSEWHERE.keys() <= there, ELSEWHERE.keys() - there
    return [line for line, name in ELSEWHERE.items() if name == neighbour]


def all_blocks() -> list[Block]:
    """The commands of all pages, each span once."""
    seen = set()
    blocks = []
    for page in PAGES:
        for block in in_page(page, page.read_text()):
            if block.lines not in seen:
                seen.add(block.lines)
                blocks.append(block)
    return blocks
