"""What is released, used where little is there: old distributions, and a root with nothing in it."""

from __future__ import annotations

import ctypes
import shutil
import tarfile
from typing import TYPE_CHECKING

import pytest

from issuer import OBJECT, VARIABLES, Issuer
from places import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from places import Root

# Where distributions keep their roots: Debian, Red Hat, Alpine.
STORES = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"]


@pytest.fixture
def issuer(tmp_path: Path) -> Iterator[Issuer]:
    issuer = Issuer(tmp_path)
    yield issuer
    issuer.close()


def test_the_wheel_in_an_old_distribution_with_its_own_pip(root: Callable[[str], Root], wheel: Path) -> None:
    old = root("bullseye")
    shutil.copy(wheel, old.path / "tmp")
    script = f"python3 -m venv /opt/env && /opt/env/bin/pip install --no-index /tmp/{wheel.name}"
    done = old.run("sh", "-c", script)
    assert done.returncode == 0, done.stderr
    program = (
        "import jobcred; print(len(jobcred.JobCredential().get_token('https://storage.azure.com/.default').token))"
    )
    command = ["/opt/env/bin/jobcred", "run", "--sandbox", "--", "/opt/env/bin/python", "-c", program]
    done = old.run(*command)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100


@pytest.mark.parametrize("name", ["bullseye", "xenial", "empty"])
def test_the_archive_unpacked(root: Callable[[str], Root], archive: Path, name: str) -> None:
    place = root(name)
    place.unpack(archive)
    for command in (["jobcred", "--version"], ["docker-credential-jobcred", "list"]):
        done = place.run(*command)
        assert done.returncode == 0, done.stderr
    done = place.run("jobcred", "run", "--sandbox", "--", "jobcred", "token", "--raw")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(".") == 2


@pytest.mark.parametrize(
    "ways",
    [
        "files dns",
        # Debian's own with those packages; each module is made for the distribution's C library, not for the agent's.
        "files mdns4_minimal [NOTFOUND=return] resolve [!UNAVAIL=return] dns myhostname",
        "myhostname dns",
        "nonsense",
        None,
    ],
)
def test_names_are_looked_up_whatever_modules_the_system_names(
    root: Callable[[str], Root], archive: Path, issuer: Issuer, ways: str | None
) -> None:
    old = root("bullseye")
    old.unpack(archive)
    old.write("/etc/resolv.conf", f"nameserver {issuer.ADDRESS}\n")
    old.write("/usr/local/share/ca-certificates/issuer.crt", issuer.ca)
    assert old.run("update-ca-certificates").returncode == 0
    if ways is None:
        (old.path / "etc/nsswitch.conf").unlink()
    else:
        old.write("/etc/nsswitch.conf", f"passwd: files systemd\nhosts: {ways}\n")
    done = old.run("jobcred", "explain", "--probe", **VARIABLES)
    assert done.returncode == 0, done.stderr
    assert OBJECT in done.stdout
    assert "login.microsoftonline.com" in issuer.asked


def test_the_hosts_file_comes_before_the_name_server(
    root: Callable[[str], Root], archive: Path, issuer: Issuer
) -> None:
    place = root("empty")
    place.unpack(archive)
    place.write("/etc/hosts", f"{issuer.ADDRESS} login.microsoftonline.com\n")
    place.write("/etc/resolv.conf", f"nameserver {issuer.ADDRESS}\n")
    place.write(STORES[0], issuer.ca)
    done = place.run("jobcred", "explain", "--probe", **VARIABLES)
    assert done.returncode == 0, done.stderr
    assert issuer.asked == []


@pytest.mark.parametrize("store", STORES)
def test_the_systems_roots_are_found(root: Callable[[str], Root], archive: Path, issuer: Issuer, store: str) -> None:
    place = root("empty")
    place.unpack(archive)
    place.write("/etc/resolv.conf", f"nameserver {issuer.ADDRESS}\n")
    place.write(store, issuer.ca)
    done = place.run("jobcred", "explain", "--probe", **VARIABLES)
    assert done.returncode == 0, done.stderr
    assert OBJECT in done.stdout


def test_a_system_without_roots_is_told_what_to_install(
    root: Callable[[str], Root], archive: Path, issuer: Issuer
) -> None:
    place = root("empty")
    place.unpack(archive)
    place.write("/etc/resolv.conf", f"nameserver {issuer.ADDRESS}\n")
    done = place.run("jobcred", "explain", "--probe", **VARIABLES)
    assert done.returncode != 0
    assert "ca-certificates" in done.stderr
    place.write("/ca.pem", issuer.ca)
    done = place.run("jobcred", "explain", "--probe", SSL_CERT_FILE="/ca.pem", **VARIABLES)
    assert done.returncode == 0, done.stderr


def test_what_comes_along_with_the_programs(archive: Path, tmp_path: Path) -> None:
    with tarfile.open(archive) as packed:
        assert {(member.uid, member.gid) for member in packed.getmembers()} == {(0, 0)}
        packed.extractall(tmp_path)
    (top,) = tmp_path.iterdir()
    assert archive.name == f"{top.name}.tar.gz"
    for name in ("LICENSE", "THIRD-PARTY-LICENSES", "README.md", "docs/jobcred.example.toml", "include/jobcred.h"):
        assert (top / name).stat().st_size > 0
    assert "jobcred\\-run(1)" in (top / "share/man/man1/jobcred.1").read_text()
    assert (top / "share/zsh/site-functions/_jobcred").read_text().startswith("#compdef jobcred")
    assert "complete -c jobcred" in (top / "share/fish/vendor_completions.d/jobcred.fish").read_text()
    script = top / "share/bash-completion/completions/jobcred"
    line = f"source {script}; COMP_WORDS=(jobcred expl); COMP_CWORD=1; _jobcred jobcred expl jobcred; echo $COMPREPLY"
    assert run("bash", "-c", line).stdout == "explain\n"
    ctypes.CDLL(str(top / "lib/libjobcred.so"))
    assert "prefix=${pcfiledir}/../.." in (top / "lib/pkgconfig/jobcred.pc").read_text()
