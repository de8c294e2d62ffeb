"""What the training sees when the agent, its probe or the kubelet fails."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cluster import until
from scene import situation

if TYPE_CHECKING:
    from job import Job
    from scene import Scene


def until_answered(scene: Scene, job: Job) -> None:
    """Waits until a new request of the training is answered."""
    seen = len(job.asked())
    until("a request is answered", lambda: any(line.get("oid") == scene.own for line in job.asked()[seen:]))


@situation
def k3_the_agent_is_killed(scene: Scene) -> str:
    job = scene.job()
    # Each request is for a resource of its own: none is answered from the process's memory.
    job.put(job.train, TRAIN_SECONDS=60, TRAIN_PAUSE=0.1, TRAIN_STEPS=1)
    job.start()
    until("the training has tokens", job.asked)
    # The kubelet restarts the agent at once. After another end within ten minutes it waits 10 s, then 20, 40 ...
    for times in (1, 2):
        job.signal("KILL")
        until("the agent is restarted", lambda times=times: job.restarts() == times and job.runs("jobcred"))  # type: ignore[misc]
        until_answered(scene, job)
    job.finish()
    lines = job.asked()
    failed = [line for line in lines if "error" in line]
    assert {line["oid"] for line in lines if "oid" in line} == {scene.own}
    assert not failed, f"{len(failed)} of {len(lines)} requests failed at once: {failed[0]['error']}"
    return f"{len(lines)} requests"


@situation
def the_pin_over_a_restart(scene: Scene) -> str:
    job = scene.job()
    job.put(job.train, TRAIN_SECONDS=60)
    impostor = "99999999-9999-4999-8999-999999999999"
    with scene.turn.alone():
        job.start()
        until("the training has a token", lambda: job.principals() == {scene.own})
        scene.cluster.order("/mint", mint="entra", impostor={**scene.cluster.application, "object_id": impostor})
        try:
            job.signal("KILL")
            until("the agent is restarted", job.restarts)
            job.finish()
        finally:
            scene.cluster.order("/mint", mint="entra", honest=True)
    assert impostor not in job.principals(), "the agent serves another principal after its restart"
    return "another principal is refused"


@situation
def a_hanging_agent_is_restarted(scene: Scene) -> str:
    job = scene.job()
    job.put(job.train, TRAIN_SECONDS=600)
    # The kubelet would give it all of this without the probe's own period.
    job.spec["terminationGracePeriodSeconds"] = 3600
    job.start()
    until("the training has tokens", job.asked)
    before, stopped = job.restarts(), time.monotonic()
    job.signal("STOP")
    until("the agent is restarted", lambda: job.restarts() > before and job.runs("jobcred"))
    took = time.monotonic() - stopped
    assert job.status("jobcred")["lastState"]["terminated"]["exitCode"] == 137, job.status("jobcred")
    until_answered(scene, job)
    return f"restarted after {took:.0f} s"


# 16 threads ask for 3,000 resources, until the first error. At last one asks once more.
LOAD = """
import threading, time
from jobcred import JobCredential
failed = threading.Event()
def ask(first):
    with JobCredential() as credential:
        for number in range(first, 3000, 16):
            if failed.is_set():
                return
            try:
                credential.get_token(f"https://load{number}.example.org/.default")
            except Exception as error:
                failed.set()
                print(error, flush=True)
threads = [threading.Thread(target=ask, args=(first,)) for first in range(16)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print("failed" if failed.is_set() else "served", flush=True)
end = time.monotonic() + 60
while True:
    try:
        JobCredential().get_token("https://storage.azure.com/.default")
        break
    except Exception:
        if time.monotonic() > end:
            raise
        time.sleep(1)
print("again", flush=True)
time.sleep(5)
"""


@situation
def an_agent_out_of_memory_is_restarted(scene: Scene) -> str:
    job = scene.job()
    job.agent["resources"] = {"requests": {"memory": "1Mi"}, "limits": {"memory": "6Mi"}}
    job.train["command"] = ["python3", "-c", LOAD]
    job.apply()

    def killed() -> bool:
        ended = job.status("jobcred").get("lastState", {}).get("terminated", {})
        return bool(ended.get("reason") == "OOMKilled")

    # While the pod runs: later the kubelet has forgotten it.
    until("the agent is killed", killed)
    job.finish()
    assert job.logs("train").split()[-1:] == ["again"], job.logs("train")
    return "killed at 6 MiB, restarted, and serves again"


@situation
def k5_events_of_the_probe(scene: Scene) -> str:
    job = scene.job()
    job.agent["startupProbe"]["failureThreshold"] = 6
    with scene.turn.alone():
        scene.cluster.order("/state", federated_credential_removed=True)
        try:
            job.apply()
            until("the agent is restarted", job.restarts)
        finally:
            scene.cluster.order("/state", federated_credential_removed=False)
    unhealthy = job.unhealthy_events()
    job.finish()
    assert job.principals() == {scene.own}, job.said()
    assert len(unhealthy) <= 2, f"{len(unhealthy)} events, each {len(unhealthy[0]['message'])} characters"
    return f"{len(unhealthy)} events, and then the Job runs"


@situation
def the_kubelet_is_restarted(scene: Scene) -> str:
    job = scene.job()
    job.put(job.train, TRAIN_SECONDS=25, TRAIN_PAUSE=0.25)
    with scene.turn.alone():
        job.start()
        before = scene.cluster.do("pgrep", "-x", "kubelet")
        scene.cluster.do("pkill", "-9", "-x", "kubelet")
        until("another kubelet", lambda: scene.cluster.attempt("pgrep", "-x", "kubelet").stdout not in ("", before))
        job.finish()
    assert job.principals() == {scene.own}
    assert job.restarts() == 0
    return "no request fails"


@situation
def the_projected_token_rotates(scene: Scene) -> str:
    """Twelve minutes: with `--slow` only."""
    job = scene.job(webhook=False)
    job.inject(job.agent, seconds=600)
    job.put(job.train, TRAIN_SECONDS=720, TRAIN_PAUSE=20)
    scene.cluster.order("/mint", mint="entra", lifetime=300)
    job.apply()
    job.finish(900)
    assert job.principals() == {scene.own}
    return "12 minutes with a token of 10"
