"""How a pod ends: in which order, and whose time it takes."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING

from cluster import until
from scene import situation

if TYPE_CHECKING:
    from scene import Scene


@situation
def a_job_completes(scene: Scene) -> str:
    job = scene.job()
    job.complete()
    assert job.principals() == {scene.own}, job.said()
    sidecar, train = (job.status(name)["state"]["terminated"] for name in ("jobcred", "train"))
    assert sidecar["startedAt"] <= train["startedAt"] <= train["finishedAt"] <= sidecar["finishedAt"]
    assert (sidecar["exitCode"], train["exitCode"], job.phase) == (0, 0, "Succeeded")
    scene.cluster.kubectl("wait", "--for=condition=Complete", f"job/{job.name}", "--timeout=60s")
    times = ["-".join(one[key][11:19] for key in ("startedAt", "finishedAt")) for one in (sidecar, train)]
    return f"sidecar {times[0]}, training {times[1]}"


@situation
def a_deleted_pod_has_a_token_for_its_checkpoint(scene: Scene) -> str:
    job = scene.job()
    job.put(job.train, TRAIN_SECONDS=100, TRAIN_CHECKPOINT=6)
    job.start()
    until("the training has begun", job.said)
    pod = job.pod
    kept: list[str] = []

    def follow() -> None:
        kept.append(scene.cluster.attempt("kubectl", "logs", "--follow", pod, "--container=train").stdout)

    reader = threading.Thread(target=follow)
    reader.start()
    time.sleep(1)
    before = time.monotonic()
    scene.cluster.kubectl("delete", "pod", pod)
    took = time.monotonic() - before
    reader.join()
    lines = [json.loads(line) for line in kept[0].splitlines()]
    assert [line["at"] for line in lines[-3:]] == ["SIGTERM", "checkpoint", "end"], lines
    assert lines[-2]["oid"] == scene.own, lines
    # The agent ends when the training has ended. It does not use up the pod's time.
    assert took < job.spec["terminationGracePeriodSeconds"]
    return f"the pod is gone after {took:.1f} s, with a checkpoint of 6 s"


@situation
def a_training_ignores_its_signal(scene: Scene) -> str:
    job = scene.job()
    job.spec["terminationGracePeriodSeconds"] = 5
    program = "import signal,time\nsignal.signal(15,lambda *_:0)\nwhile 1: time.sleep(1)"
    job.train["command"] = ["python3", "-c", program]
    job.start()
    scene.cluster.kubectl("delete", "pod", job.pod, "--timeout=120s")
    return "the kubelet ends it after the pod's time"


@situation
def an_evicted_pod_is_replaced(scene: Scene) -> str:
    job = scene.job()
    job.put(job.train, TRAIN_SECONDS=30, TRAIN_CHECKPOINT=2)
    job.start()
    pod = job.pod
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": "default"},
    }
    path = f"/api/v1/namespaces/default/pods/{pod}/eviction"
    scene.cluster.kubectl("create", f"--raw={path}", "--filename=-", given=json.dumps(eviction))
    until("another pod", lambda: any(one["metadata"]["name"] != pod for one in job.pods()))
    return "another pod"


@situation
def run_is_the_first_process(scene: Scene) -> str:
    job = scene.job(webhook=False)
    job.spec["initContainers"] = []
    job.train["env"] = []
    job.inject(job.train)
    job.train["command"] = ["jobcred", "run", "--", "python3", "train.py"]
    job.put(job.train, TRAIN_SECONDS=60, TRAIN_CHECKPOINT=2)
    job.apply()
    until("the training has a token", lambda: job.pods() and job.runs("train") and job.asked())
    assert job.principals() == {scene.own}, job.said()
    before = time.monotonic()
    scene.cluster.kubectl("delete", "pod", job.pod)
    took = time.monotonic() - before
    assert took < job.spec["terminationGracePeriodSeconds"]
    return f"the pod is gone after {took:.1f} s, with a checkpoint of 2 s"
