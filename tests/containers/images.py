"""Images, built from the Dockerfiles as they are, on bases made from the root of a distribution."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import places

if TYPE_CHECKING:
    from engine import Engine

ROOT = places.ROOT / ".tools/roots/bookworm"
TOOLCHAIN = "/opt/rust"
PYTHON = "/opt/python"
# What only a compiler or a package manager needs, or a person.
NOT_FOR_TRAINING = (
    *("usr/bin/*-linux-gnu-*", "usr/include", "usr/lib/gcc", "usr/libexec/gcc"),
    *("usr/lib/*/*.a", "usr/lib/*/gconv", "usr/lib/*/lib*san.so*", "usr/lib/*/perl*"),
    *("usr/share/doc", "usr/share/locale", "usr/share/man", "usr/share/perl"),
    *("var/cache", "var/lib/apt"),
)


class Builder:
    """buildah, with a store of its own."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._directory = directory

    def _do(self, *words: str | Path) -> str:
        store = ("--root", self._directory / "root", "--runroot", self._directory / "run")
        done = subprocess.run(
            ["buildah", *store, *words],
            env={**os.environ, "TMPDIR": str(self._directory)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"buildah {words}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def base(self, name: str, *without: str, setup: str | None = None, **variables: str) -> str:
        """An image of the distribution, but for what is named."""
        container = self._do("from", "scratch")
        target = self._do("mount", container)
        excluded = [f"--exclude=./{pattern}" for pattern in without]
        with subprocess.Popen(["tar", "-C", ROOT, *excluded, "-c", "."], stdout=subprocess.PIPE) as packed:
            subprocess.run(["tar", "-C", target, "-x"], stdin=packed.stdout, check=True)
        assert packed.returncode == 0
        if setup:
            self._do("run", "--isolation", "chroot", container, "sh", "-c", setup)
        settings = [f"--env={key}={value}" for key, value in variables.items()]
        self._do("config", *settings, container)
        self._do("commit", "--quiet", "--rm", container, name)
        return name

    def build(self, name: str, context: Path, *options: str | Path) -> str:
        """Builds the Dockerfile of a directory. What it runs sees this namespace's network, which leads nowhere."""
        self._do("build", "--isolation", "chroot", "--format", "docker", "--tag", name, *options, context)
        return name

    def hand_over(self, image: str, engine: Engine) -> None:
        """Gives an image to an engine, by the same name."""
        archive = self._directory / "image.tar"
        self._do("push", "--quiet", image, f"docker-archive:{archive}:{image}")
        engine.do("load", "--quiet", "--input", archive)
        archive.unlink()


def build_jobcred(builder: Builder) -> str:
    """The image of this project, by its Dockerfile.

    All that its first stage needs is mounted into an image of next to nothing: the system with its compiler, Rust, the
    crates, and what `make static` has compiled on this machine. Cargo takes that over where sources are the same, and
    what it compiles beyond it is dropped afterwards.
    """
    cargo_home = os.environ.get("CARGO_HOME") or str(Path.home() / ".cargo")
    base = builder.base(
        "localhost/rust:1",
        "usr",
        *("etc", "var", "home", "boot", "media", "srv"),
        PATH=f"{TOOLCHAIN}/bin:/usr/sbin:/usr/bin",
        CARGO_HOME=cargo_home,
        CARGO_NET_OFFLINE="true",
    )
    sysroot = subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True, check=True).stdout.strip()
    target = os.environ.get("CARGO_TARGET_DIR") or str(places.ROOT / "target")
    mounted = [f"{ROOT / name}:/{name}:ro" for name in ("usr", "etc/alternatives", "etc/ssl")]
    mounted += [f"{sysroot}:{TOOLCHAIN}:ro"]
    mounted += [f"{cargo_home}/registry:{cargo_home}/registry:O", f"{target}:/source/target:O"]
    volumes = [f"--volume={volume}" for volume in mounted]
    arguments = {"BUILD_IMAGE": base, "PROFILE": os.environ.get("JOBCRED_PROFILE") or "release"}
    options = [f"--build-arg={name}={value}" for name, value in arguments.items()]
    return builder.build("localhost/jobcred:test", places.ROOT, *volumes, *options)


def build_environment(builder: Builder, wheel: Path, directory: Path) -> str:
    """The environment of the Azure ML jobs, by its Dockerfile, on an image with a Python in its PATH."""
    base = builder.base(
        "localhost/python:3",
        *NOT_FOR_TRAINING,
        setup=f"python3 -m venv {PYTHON}",
        PATH=f"{PYTHON}/bin:/usr/local/bin:/usr/bin:/bin",
    )
    context = directory / "environment"
    shutil.copytree(places.ROOT / "deploy/azureml/environment", context)
    shutil.copy(wheel, context)
    return builder.build("localhost/environment:test", context, f"--build-arg=BASE_IMAGE={base}")
