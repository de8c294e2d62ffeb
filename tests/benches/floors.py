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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from servers import Connection, Doubles, agent, binary, environment
from timing import MeasureError, in_turns, resident_kib

if TYPE_CHECKING:
    from collections.abc import Callable

SCOPE = "https://storage.azure.com/.default"
TOKEN = "/v1/token?resource=https%3A%2F%2Fstorage.azure.com%2F"
REGISTRY = "myregistry.azurecr.io"
PROCESSES = 64
BURSTS = 3
ROUNDS = 15
QUIET = 65
MIB = 1024

# Each prints the milliseconds from before its import to after its first token, and its resident memory in KiB.
JOBCRED = f"from jobcred import JobCredential; JobCredential().get_token({SCOPE!r})"
AZURE_IDENTITY = (
    "import os; from azure.identity import ManagedIdentityCredential; "
    f"ManagedIdentityCredential(client_id=os.environ['DEFAULT_IDENTITY_CLIENT_ID']).get_token({SCOPE!r})"
)
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


@dataclass
class Row:
    """One line of the table."""

    what: str
    measured: str
    reference: str = ""
    ratio: str = ""
    limit: str = ""
    is_met: bool | None = None

    def cells(self) -> list[str]:
        verdict = {None: "", True: "met", False: "missed"}[self.is_met]
        return [self.what, self.measured, self.reference, self.ratio, self.limit, verdict]


def at_most(what: str, value: float, reference: float, limit: float, *, unit: str, name: str) -> Row:
    ratio = value / reference
    return Row(
        what, f"{value:.2f} {unit}", f"{reference:.2f} {unit} ({name})", f"{ratio:.2f}", f"<= {limit}", ratio <= limit
    )


def times_faster(what: str, value: float, reference: float, limit: float, *, unit: str, name: str) -> Row:
    ratio = reference / value
    return Row(
        what,
        f"{value:.2f} {unit}",
        f"{reference:.2f} {unit} ({name})",
        f"{ratio:.1f}x faster",
        f">= {limit}x",
        ratio >= limit,
    )


def hit(_: Path) -> list[Row]:
    """In Rust, since Python would measure itself: `tests/benches/hit.rs`."""
    program = os.environ.get("JOBCRED_BENCH_HIT")
    if not program:
        raise MeasureError("JOBCRED_BENCH_HIT does not name the program; tests/bench sets it")
    done = subprocess.run(
        [program],
        env={"PATH": os.environ["PATH"], "JOBCRED_BIN": binary("jobcred")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode != 0:
        raise MeasureError(done.stderr.strip()[-500:])
    found: dict[str, float] = json.loads(done.stdout)
    ratio = found["ratio"]
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
            "cached token in process, Rust",
            f"{found['in_process_ns']:.0f} ns",
            limit="< 1000 ns",
            is_met=found["in_process_ns"] < 1000,
        ),
    ]


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


def throughput(directory: Path) -> list[Row]:
    """A command's own work under `run`, which is idle beside it. Not pinned: a job has all CPUs."""
    pinned = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
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
                    taken[bool(prefix)] = told_seconds([*prefix, sys.executable, "-S", "-c", work], variables)
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
        os.sched_setaffinity(0, pinned)
    return rows


def told_seconds(command: list[str], variables: dict[str, str]) -> float:
    done = subprocess.run(
        command, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=120
    )
    if done.returncode != 0:
        raise MeasureError(done.stderr.strip()[-500:])
    return float(done.stdout)


def idle(directory: Path) -> list[Row]:
    """How often anything of ours wakes up in a quiet minute and a bit, with a token held that is not due."""
    doubles = Doubles(directory)
    run = None
    try:
        variables = environment(directory, **doubles.environment)
        command = [binary("jobcred"), "run", "--quiet", "--", sys.executable, "-S", "-c", "input()"]
        run = subprocess.Popen(command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        asking = [binary("jobcred"), "token", "--raw", "https://storage.azure.com"]
        subprocess.run(asking, env=variables, stdout=subprocess.DEVNULL, check=True, timeout=60)
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
    done = subprocess.run(
        [sys.executable, "-c", SELF_REPORT.format(code=code)],
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if done.returncode != 0:
        raise MeasureError(done.stderr.strip()[-500:])
    milliseconds, kib = done.stdout.split()
    return float(milliseconds), int(kib)


def python_burst(directory: Path) -> list[Row]:
    """Not pinned: a job's processes have all CPUs."""
    pinned = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    doubles = Doubles(directory)
    try:
        variables = environment(directory, **doubles.environment)
        ours, azure, our_requests, azure_requests = [], [], [], []
        for _ in range(BURSTS):
            # A new agent each time: it holds no token, so the one request upstream is part of what is measured.
            with agent(variables):
                doubles.take_count()
                ours.append(burst(JOBCRED, variables))
                our_requests.append(doubles.take_count())
            azure.append(burst(AZURE_IDENTITY, variables))
            azure_requests.append(doubles.take_count())
        bare = burst("pass", variables)
    finally:
        doubles.stop()
        os.sched_setaffinity(0, pinned)
    our_count, azure_count = max(our_requests), max(azure_requests)
    our_time, azure_time = statistics.median(ours), statistics.median(azure)
    what = f"{PROCESSES} Python processes, one token each"
    return [
        times_faster(f"{what}: wall", our_time, azure_time, 6, unit="s", name="azure-identity"),
        Row("  of it, starting bare interpreters", f"{bare:.2f} s"),
        Row(
            f"{what}: upstream",
            f"{our_count} request{'s' if our_count != 1 else ''}",
            f"{azure_count} requests (azure-identity)",
            limit="= 1",
            is_met=set(our_requests) == {1},
        ),
    ]


def burst(code: str, variables: dict[str, str]) -> float:
    """Seconds until all have ended that were started at once."""
    command = [sys.executable, "-c", code]
    actions = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
    start = time.perf_counter()
    pids = [os.posix_spawn(command[0], command, variables, file_actions=actions) for _ in range(PROCESSES)]
    ends = [os.waitpid(pid, 0)[1] for pid in pids]
    seconds = time.perf_counter() - start
    failed = sum(1 for end in ends if end != 0)
    if failed:
        raise MeasureError(f"{failed} of {PROCESSES} processes got no token")
    return seconds


def print_table(rows: list[Row]) -> None:
    lines = [["what", "measured", "reference", "ratio", "limit", "verdict"], *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())


def conditions(cpu: int) -> str:
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    return (
        f"{os.cpu_count()} CPUs; client and server of each measurement pinned to CPU {cpu}, "
        f"the {PROCESSES} processes not pinned; load average at start {load}; "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}; no network but loopback"
    )


MEASUREMENTS: list[Callable[[Path], list[Row]]] = [
    hit,
    python_burst,
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
