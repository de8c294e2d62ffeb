"""Measures what jobcred promises about speed and size, and prints it as one table.

Run by `tests/bench`. Every ratio is between two things that were measured in turns in this run, so it holds on a noisy
machine although the absolute numbers do not. A floor that is missed is reported and is no failure; a measurement that
cannot be made is one.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bursts import PROCESSES, imds_burst, python_burst
from programs import AZURE_IDENTITY, JOBCRED
from servers import Connection, Doubles, agent, binary, environment
from table import Row, at_most, print_table, times_faster
from timing import MeasureError, in_turns, not_pinned, resident_kib, told

if TYPE_CHECKING:
    from collections.abc import Callable

TOKEN = "/v1/token?resource=https%3A%2F%2Fstorage.azure.com%2F"
REGISTRY = "myregistry.azurecr.io"
ROUNDS = 15
QUIET = 65
MIB = 1024

# Prints the milliseconds from before `code` to after it, and the process's resident memory in KiB.
SELF_REPORT = """
import time
start = time.perf_counter()
{code}
taken = time.perf_counter() - start
with open("/proc/self/status") as status:
    resident = [line.split()[1] for line in status if line.startswith("VmRSS:")][0]
print(taken * 1000, resident)
"""


# Each prints the seconds that its work took.
CPU_BOUND = """
import time
start = time.perf_counter()
total = 0
for number in range(6_000_000):
    total += number * number % 7
print(time.perf_counter() - start)
"""
FORK_HEAVY = """
import os, time
start = time.perf_counter()
for _ in range(300):
    pid = os.posix_spawn("/bin/true", ["true"], os.environ)
    os.waitpid(pid, 0)
print(time.perf_counter() - start)
"""
WORK = [("a CPU-bound command", CPU_BOUND), ("a command that starts 300 processes", FORK_HEAVY)]


def hit(_: Path) -> list[Row]:
    """In Rust, since Python would measure itself: `tests/benches/hit`."""
    found: dict[str, float] = program("JOBCRED_BENCH_HIT")
    ratio, dialect_ratio = found["ratio"], found["dialect_ratio"]
    return [
        Row(
            "cached token, kept connection",
            f"{found['agent_us']:.2f} us",
            f"{found['bare_us']:.2f} us (bare hyper)",
            f"{ratio:.2f}",
            "<= 1.25",
            ratio <= 1.25,
        ),
        Row(
            "cached token, App Service, new connection",
            f"{found['dialect_agent_us']:.1f} us",
            f"{found['dialect_bare_us']:.1f} us (bare hyper)",
            f"{dialect_ratio:.2f}",
            "<= 1.3",
            dialect_ratio <= 1.3,
        ),
        Row(
            "cached token in process, Rust",
            f"{found['in_process_ns']:.0f} ns",
            limit="< 1000 ns",
            is_met=found["in_process_ns"] < 1000,
        ),
    ]


def storm(_: Path) -> list[Row]:
    """10,000 first requests, in Rust as well: `tests/benches/storm.rs`. Not pinned: a job has all CPUs."""
    with not_pinned():
        found: dict[str, dict[str, float]] = program("JOBCRED_BENCH_STORM")
    ways = {
        "socket": "10,000 first requests, 256 connections",
        "endpoint": "the same by App Service, a connection each",
    }
    return [
        Row(
            what,
            f"{found[way]['seconds']:.2f} s",
            f"{found[way]['failed']} failed, {found[way]['upstream']} upstream",
            limit="0 failed, 1 upstream",
            is_met=(found[way]["failed"], found[way]["upstream"]) == (0, 1),
        )
        for way, what in ways.items()
    ]


def program(variable: str) -> Any:
    """What one of the programs in Rust has measured. `tests/bench` names it in a variable."""
    path = os.environ.get(variable)
    if not path:
        raise MeasureError(f"{variable} does not name the program; tests/bench sets it")
    variables = {"PATH": os.environ["PATH"], "JOBCRED_BIN": binary("jobcred")}
    return json.loads(told([path], variables, timeout=300))


def docker_helper(directory: Path) -> list[Row]:
    variables = environment(directory)
    address = directory / "address"
    address.write_text(REGISTRY, encoding="ascii")
    commands = [[binary("docker-credential-jobcred"), "get"], ["/bin/true"]]
    with agent(variables, "--sandbox"):
        # The first one also has to get the credential; the warm-up takes it out.
        helper, true = in_turns(commands, variables, runs=1000, warm_up=30, stdin=str(address))
    return [at_most("docker-credential-jobcred get, hit", helper * 1e3, true * 1e3, 2, unit="ms", name="/bin/true")]


def run_start(directory: Path) -> list[Row]:
    """What `jobcred run` adds to a command that does nothing, from start to end, agent, witnesses and all."""
    doubles = Doubles(directory)
    try:
        variables = environment(directory, **doubles.environment)
        commands = [[binary("jobcred"), "run", "--quiet", "--", "/bin/true"], ["/bin/true"]]
        ours, plain = in_turns(commands, variables, runs=200, warm_up=10)
    finally:
        doubles.stop()
    added = (ours - plain) * 1e3
    return [
        Row(
            "jobcred run -- true",
            f"{ours * 1e3:.2f} ms",
            f"{plain * 1e3:.2f} ms (/bin/true)",
            f"+{added:.2f} ms",
            "< 30 ms more",
            added < 30,
        )
    ]


@not_pinned()
def throughput(directory: Path) -> list[Row]:
    """A command's own work under `run`, which is idle beside it. Not pinned: a job has all CPUs."""
    doubles = Doubles(directory)
    try:
        variables = environment(directory, **doubles.environment)
        rows = []
        for what, work in WORK:
            # It says how long its work took, so that the start of `run` is no part of it.
            ours, plain, ratios = [], [], []
            for turn in range(ROUNDS):
                order = [[], [binary("jobcred"), "run", "--quiet", "--"]]
                taken = {}
                for prefix in order[:: 1 if turn % 2 else -1]:
                    taken[bool(prefix)] = float(told([*prefix, sys.executable, "-S", "-c", work], variables))
                ours.append(taken[True])
                plain.append(taken[False])
                ratios.append(taken[True] / taken[False])
            ratio = statistics.median(ratios)
            spread = statistics.quantiles(ratios, n=4)
            noise = max(spread[2] - spread[0], 0.02)
            rows.append(
                Row(
                    what,
                    f"{statistics.median(ours):.3f} s",
                    f"{statistics.median(plain):.3f} s (without run)",
                    f"{ratio:.3f}",
                    f"<= 1 + {noise:.3f} (noise)",
                    ratio <= 1 + noise,
                )
            )
    finally:
        doubles.stop()
    return rows


def idle(directory: Path) -> list[Row]:
    """How often anything of ours wakes up in a quiet minute and a bit, with a token held that is not due."""
    doubles = Doubles(directory)
    run = None
    try:
        variables = environment(directory, **doubles.environment)
        command = [binary("jobcred"), "run", "--quiet", "--", sys.executable, "-S", "-c", "input()"]
        run = subprocess.Popen(command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        # `run` has only just been started; `wait` waits for an agent, too.
        for asking in (["wait"], ["token", "--raw", "https://storage.azure.com"]):
            subprocess.run(
                [binary("jobcred"), *asking], env=variables, stdout=subprocess.DEVNULL, check=True, timeout=60
            )
        ours = {"run": run.pid}
        for pid in children(run.pid):
            words = Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").split("\0")
            if words[0] == "jobcred":
                ours[" ".join(words[1:3]) if words[1] == "witness" else words[1]] = pid
        # Long enough for what is left of the start to be over: after half a minute `run` takes the agent for healthy.
        time.sleep(35)
        before = {name: switches(pid) for name, pid in ours.items()}
        time.sleep(QUIET)
        after = {name: switches(pid) for name, pid in ours.items()}
    finally:
        if run is not None:
            run.communicate(b"\n")
        doubles.stop()
    return [
        Row(f"wake-ups of {name} in {QUIET} quiet seconds", str(count), limit="= 0", is_met=count == 0)
        for name in ours
        for count in [after[name] - before[name]]
    ]


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


def switches(pid: int) -> int:
    """How often all threads of a process have gone to sleep, so how often they were awake."""
    count = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        for line in (task / "status").read_text(encoding="ascii").splitlines():
            if line.startswith("voluntary_ctxt_switches:"):
                count += int(line.split()[1])
    return count


def agent_memory(directory: Path) -> list[Row]:
    variables = environment(directory)
    path = variables["JOBCRED_SOCKET"]
    with agent(variables, "--sandbox") as pid:
        connection = Connection(path)
        connection.get(TOKEN)
        connection.close()
        after_one = resident_kib(pid)
        connections = [Connection(path) for _ in range(64)]
        for number in range(1000):
            connections[number % len(connections)].get(TOKEN)
        held = resident_kib(pid)
        for connection in connections:
            connection.close()
        # Answers that the agent gives after the closes were there for it to see.
        last = Connection(path)
        last.get("/healthz")
        last.close()
        after_load = resident_kib(pid)

    def row(what: str, kib: int) -> Row:
        return Row(what, f"{kib / MIB:.2f} MiB", limit="<= 8 MiB", is_met=kib <= 8 * MIB)

    return [
        row("agent resident, idle after a first token", after_one),
        row("agent resident, 64 connections held", held),
        row("agent resident, idle after 1000 requests", after_load),
    ]


def sizes(_: Path) -> list[Row]:
    return [
        Row(f"{name}, stripped", f"{Path(binary(name)).stat().st_size / MIB / MIB:.2f} MiB")
        for name in ("jobcred", "docker-credential-jobcred")
    ]


def python_first_token(directory: Path) -> list[Row]:
    doubles = Doubles(directory)
    try:
        variables = environment(directory, **doubles.environment)
        codes = [JOBCRED, AZURE_IDENTITY, "pass"]
        taken: list[list[float]] = [[] for _ in codes]
        resident: list[list[float]] = [[] for _ in codes]
        with agent(variables):
            for turn in range(16):
                for number, code in enumerate(codes):
                    milliseconds, kib = self_report(code, variables)
                    # The first turn compiles what is not compiled yet, and fetches the agent's token.
                    if turn > 0:
                        taken[number].append(milliseconds)
                        resident[number].append(kib / MIB)
    finally:
        doubles.stop()
    ours, azure, _ = map(statistics.median, taken)
    our_size, azure_size, bare_size = map(statistics.median, resident)
    return [
        times_faster("Python, import and first token", ours, azure, 8, unit="ms", name="azure-identity"),
        at_most("Python, resident after a token", our_size, bare_size, 1.3, unit="MiB", name="bare interpreter"),
        Row("  the same with azure-identity", f"{azure_size:.2f} MiB", ratio=f"{azure_size / bare_size:.2f}"),
    ]


def self_report(code: str, variables: dict[str, str]) -> tuple[float, int]:
    milliseconds, kib = told([sys.executable, "-c", SELF_REPORT.format(code=code)], variables).split()
    return float(milliseconds), int(kib)


def conditions(cpu: int) -> str:
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    return (
        f"{os.cpu_count()} CPUs; client and server of each measurement pinned to CPU {cpu}, "
        f"the {PROCESSES} processes not pinned; load average at start {load}; "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}; no network but loopback"
    )


MEASUREMENTS: list[Callable[[Path], list[Row]]] = [
    hit,
    storm,
    python_burst,
    imds_burst,
    python_first_token,
    docker_helper,
    run_start,
    throughput,
    idle,
    agent_memory,
    sizes,
]


def main() -> int:
    if os.environ.get("JOBCRED_ISOLATED") != "1":
        print("bench: run it by tests/bench, where nothing leads out", file=sys.stderr)
        return 2
    known: dict[str, Any] = {measure.__name__: measure for measure in MEASUREMENTS}
    chosen = sys.argv[1:] or list(known)
    unknown = [name for name in chosen if name not in known]
    if unknown:
        print(f"bench: {', '.join(unknown)}: there are {', '.join(known)}", file=sys.stderr)
        return 2
    cpu = min(os.sched_getaffinity(0))
    print(conditions(cpu), end="\n\n", flush=True)
    os.sched_setaffinity(0, {cpu})
    rows, failures = [], []
    for name in chosen:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="jobcred-bench-") as directory:
            try:
                rows += known[name](Path(directory))
            except (MeasureError, OSError, subprocess.SubprocessError, ValueError) as error:
                failures.append(f"{name} could not be measured: {error}")
    print_table(rows)
    for failure in failures:
        print(f"bench: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
