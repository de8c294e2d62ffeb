"""A training job: ranks that each have loader workers, as PyTorch's launcher and its data loader start them.

Even ranks fork their workers, once their own credential has been used; odd ones spawn them. Every process asks for
tokens until the time is over that was told. It prints one line of JSON per process, and one about the agent.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import select
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from asking import KINDS, Asker, credential

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess
    from multiprocessing.queues import Queue
    from multiprocessing.synchronize import Event, Semaphore

# Bounds for what hangs. Starting all of them takes a machine of two cores half a minute.
START_SECONDS = 300
END_SECONDS = 60


def worker(
    asker: tuple[str, str, str, float], given: Any, ready: Semaphore, over: Event, tallies: Queue[dict[str, Any]]
) -> None:
    """A loader worker. `given` is the rank's own credential, where it can be inherited."""
    name, kind, principal, launched = asker
    tally = Asker(name, kind, principal=principal, launched=launched).work(
        given, first=ready.release, is_over=over.is_set
    )
    tallies.put(dataclasses.asdict(tally))


def run_rank(number: int, workers: int, principal: str, launched: float) -> int:
    """A rank. It says when all its workers have got something, and ends when its standard input does."""
    kind = KINDS[number // 2 % 2]
    asker = Asker(f"rank {number}", kind, principal=principal, launched=launched)
    own = credential(kind)
    asker.ask(own)

    method = "spawn" if number % 2 else "fork"
    context: Any = multiprocessing.get_context(method)
    ready, over = context.Semaphore(0), context.Event()
    tallies: Queue[dict[str, Any]] = context.Queue()
    processes: list[BaseProcess] = []
    for index in range(workers):
        worker_kind = KINDS[index % len(KINDS)]
        # What a forked worker gets is of the rank's kind, whatever it would have made.
        given = own if method == "fork" and worker_kind == kind else None
        told = (f"{method} worker {index} of rank {number}", worker_kind, principal, launched)
        process = context.Process(target=worker, args=(told, given, ready, over, tallies), daemon=True)
        process.start()
        processes.append(process)

    def start() -> None:
        for _ in processes:
            if not ready.acquire(timeout=START_SECONDS):
                raise TimeoutError(f"a worker of rank {number} got nothing within {START_SECONDS} s")
        print("ready", flush=True)

    def is_over() -> bool:
        return bool(select.select([sys.stdin], [], [], 0)[0])

    own_tally = asker.work(own, first=start, is_over=is_over)
    over.set()
    found = [dataclasses.asdict(own_tally), *(tallies.get(timeout=END_SECONDS) for _ in processes)]
    for process in processes:
        process.join(END_SECONDS)
    for tally in found:
        print(json.dumps(tally), flush=True)
    # One that has not ended has no code.
    return 0 if all(process.exitcode == 0 for process in processes) else 1


def agent() -> dict[str, Any]:
    """Which agent answers."""
    done = subprocess.run(["jobcred", "status", "--json"], stdout=subprocess.PIPE, check=True, timeout=START_SECONDS)
    status = json.loads(done.stdout)
    return {name: status.get(name) for name in ("pid", "started_on", "restarts", "denials", "leases")}


def launch(ranks: int, workers: int, seconds: float, principal: str) -> int:
    """Starts the ranks, and ends them `seconds` after the last process had its first token."""
    launched = time.monotonic()
    before = agent()
    command = [sys.executable, __file__, "--workers", str(workers), "--principal", principal]
    running = [
        subprocess.Popen(
            [*command, "--rank", str(number), "--launched", str(launched)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(ranks)
    ]
    # A rank that cannot say so has ended, or its output would not have.
    are_ready = [rank.stdout is not None and rank.stdout.readline() == "ready\n" for rank in running]
    started = time.monotonic() - launched
    if all(are_ready):
        time.sleep(seconds)
    for rank in running:
        if rank.stdin is not None:
            rank.stdin.close()
    for rank in running:
        if rank.stdout is not None:
            sys.stdout.writelines(rank.stdout)
    print(json.dumps({"agent": [before, agent()], "started": started}), flush=True)
    return max(abs(rank.wait()) for rank in running)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, default=8)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--principal", required=True, help="the object id that every token has to be of")
    parser.add_argument("--rank", type=int, help="be this rank")
    parser.add_argument("--launched", type=float, default=0)
    arguments = parser.parse_args()
    if arguments.rank is not None:
        return run_rank(arguments.rank, arguments.workers, arguments.principal, arguments.launched)
    return launch(arguments.ranks, arguments.workers, arguments.seconds, arguments.principal)


if __name__ == "__main__":
    raise SystemExit(main())
