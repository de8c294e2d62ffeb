"""What `jobcred run` sets is read by parsers that are not ours: who goes by a proxy, without jobcred and with it.

Each program fetches the same pages three times: without jobcred, under `jobcred run` with its endpoints off, and with
them on. The first two must not differ. In the third, loopback never goes by the proxy, and all else is as in the first.
Only a name without a value gets that of the other name.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

import places
from catalogue import go, java, node
from platforms import platform
from proxies import DIRECT, PROXIED, Proxies
from scene import own_hosts, python

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from scene import Scene

# Programs wait for each other more than for the processor.
AT_ONCE = 6
LOOPBACK = ("127.0.0.1", "localhost")
NAMES = ("listed.example", "sub.listed.example", "other.example")
HOSTS = (*LOOPBACK, *NAMES, "169.254.169.254")


def both(value: str) -> dict[str, str]:
    return {"NO_PROXY": value, "no_proxy": value}


def with_both_names(exemptions: dict[str, str]) -> dict[str, str]:
    """What a run with endpoints starts from: loopback must be in both names, and no program may lose an exemption."""
    value = next((value for value in exemptions.values() if value), None)
    return exemptions if value is None else {name: exemptions.get(name) or value for name in both("")}


# What a job may have already. `PORT` is the site's.
EXEMPTIONS: Mapping[str, dict[str, str]] = {
    "unset": {},
    "empty": both(""),
    "all": both("*"),
    "all_first": both("*,listed.example"),
    "all_last": both("listed.example,*"),
    "all_and_blank": both("* "),
    "all_and_comma": both("*,"),
    "name": both("listed.example"),
    "dot_before": both(".listed.example"),
    "dot_after": both("listed.example."),
    "wildcard": both("*.listed.example"),
    "port": both("listed.example:PORT"),
    "other_port": both("listed.example:9"),
    "blanks": both("listed.example other.example"),
    "commas_and_blanks": both(" listed.example , other.example "),
    "brackets": both("[fd00::1],listed.example"),
    "address": both("169.254.169.254"),
    "network": both("169.254.0.0/16,listed.example"),
    "loopback": both("127.0.0.1,localhost"),
    "loopback_network": both("127.0.0.0/8,listed.example"),
    "upper": {"NO_PROXY": "listed.example"},
    "lower": {"no_proxy": "listed.example"},
    "upper_and_empty_lower": {"NO_PROXY": "listed.example", "no_proxy": ""},
    "lower_and_empty_upper": {"NO_PROXY": "", "no_proxy": "listed.example"},
    "different": {"NO_PROXY": "listed.example", "no_proxy": "other.example"},
}


@dataclass(frozen=True)
class Fetcher:
    """One parser of the proxy's variables, in a program that fetches pages."""

    name: str
    command: Callable[[], list[str]]
    # Whether it knows the value that exempts every host, and so goes by no proxy with it.
    knows_all: bool = True


def of_python(venv: str, library: str) -> Callable[[], list[str]]:
    return lambda: [places.installed(venv, "bin/python"), *python("fetch.py", library)[1:]]


FETCHERS = (
    Fetcher("curl", of_python("sdks", "curl")),
    Fetcher("urllib", of_python("sdks", "urllib")),
    Fetcher("requests", of_python("sdks", "requests")),
    Fetcher("mltable", of_python("dataprep", "mltable"), knows_all=False),
    Fetcher("azure_node", lambda: [*node("fetch.mjs"), "azure"], knows_all=False),
    Fetcher("undici", lambda: [*node("fetch.mjs"), "undici"]),
    Fetcher("go", lambda: go("fetch")),
    Fetcher("azure_java", lambda: java("Fetch")),
)


@pytest.fixture
def proxies() -> Iterator[Proxies]:
    with Proxies() as made:
        yield made


@pytest.mark.parametrize("fetcher", FETCHERS, ids=lambda fetcher: fetcher.name)
def test_l1_c3_c4_a_run_changes_nothing_but_the_way_to_loopback(
    fetcher: Fetcher, proxies: Proxies, scene: Callable[..., Scene]
) -> None:
    chosen = platform("compute-identity")
    machine = scene(chosen.config(3600))
    job = machine.environment(chosen.environment(machine.doubles, machine.directory)) | proxies.variables
    hosts = machine.directory / "hosts"
    hosts.write_text("".join(f"127.0.0.1 {name}\n" for name in ("localhost", *NAMES)))
    command = [*fetcher.command(), *(f"http://{host}:{proxies.port}/page.csv" for host in HOSTS)]
    run = [places.built("jobcred"), "run", "--quiet", "--"]

    def ways(exemptions: dict[str, str], prefix: list[str], **more: str) -> dict[str, str]:
        values = {name: value.replace("PORT", str(proxies.port)) for name, value in exemptions.items()}
        done = machine.run([*prefix, *command], job | values | more, prefix=own_hosts(hosts))
        lines = done.lines_of_json()
        assert len(lines) == len(HOSTS), str(done)
        return {host: line["way"] or line["error"] for host, line in zip(HOSTS, lines)}

    def look(name: str) -> list[str]:
        exemptions = EXEMPTIONS[name]
        without = ways(exemptions, [])
        off = ways(exemptions, run, JOBCRED_DIALECTS="none")
        on = ways(exemptions, run)
        as_one = with_both_names(exemptions)
        expected = without if as_one == exemptions else ways(as_one, [])
        exempt = LOOPBACK if name != "all" or fetcher.knows_all else ()
        # Some programs fail with a value of the user's. With endpoints off they must fail as before.
        working = [host for host, way in expected.items() if way in {DIRECT, PROXIED}]
        want = expected | dict.fromkeys(exempt, DIRECT)
        return [
            *(f"{name}, off: {host}: {off[host]}, was {without[host]}" for host in HOSTS if off[host] != without[host]),
            *(f"{name}, on: {host}: {on[host]}, not {want[host]}" for host in working if on[host] != want[host]),
        ]

    # A program that fetches nothing would find the same everywhere.
    assert ways({}, [])["other.example"] == PROXIED
    assert ways(both("127.0.0.1"), [])["127.0.0.1"] == DIRECT

    with ThreadPoolExecutor(AT_ONCE) as pool:
        wrong = [line for lines in pool.map(look, EXEMPTIONS) for line in lines]
    assert wrong == [], "\n".join(wrong)


def test_l1_a_run_without_endpoints_adds_variables_of_its_own_name_alone(scene: Callable[..., Scene]) -> None:
    chosen = platform("compute-identity")
    machine = scene(chosen.config(3600))
    job = machine.environment(chosen.environment(machine.doubles, machine.directory))
    show = python("environment.py")
    for exemptions in EXEMPTIONS.values():
        given = job | exemptions | {"JOBCRED_DIALECTS": "none", "IDENTITY_ENDPOINT": "", "AZURE_CLIENT_ID": ""}
        before, after = (
            json.loads(machine.run([*prefix, *show], given).stdout)
            for prefix in ([], [places.built("jobcred"), "run", "--quiet", "--"])
        )
        added = {name for name in after.keys() - before.keys() if name.startswith("JOBCRED_")}
        assert {name: value for name, value in after.items() if name not in added} == before, exemptions
