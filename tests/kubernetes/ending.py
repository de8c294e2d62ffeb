"""How a pod ends: in which order, and whose time it takes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cluster import PATIENCE, until
from job import Document, Job, documents
from scene import situation

if TYPE_CHECKING:
    from scene import Scene


class Following:
    """Sees a pod until it is gone: what its training writes, and how each container ended."""

    def __init__(self, scene: Scene, job: Job) -> None:
        self.pod = job.pod
        self._log = scene.cluster.stream("kubectl", "logs", "--follow", self.pod, "--container=train")
        # It follows when it has the first line.
        self._first = next(self._log.lines(), "")
        query = f"watch=true&timeoutSeconds={PATIENCE:.0f}&fieldSelector=metadata.name={self.pod}"
        self._watch = scene.cluster.stream("kubectl", "get", f"--raw=/api/v1/namespaces/default/pods?{query}")
        # The pod as it is.
        assert next(self._watch.lines(), ""), "the pod is not there"

    def finish(self) -> tuple[list[Document], dict[str, Document]]:
        """The training's lines, and the ends of the containers by their names."""
        status: Document = {}
        for line in self._watch.lines():
            event = json.loads(line)
            if event["type"] == "DELETED":
                status = event["object"]["status"]
                break
        self._watch.end()
        assert status, f"the pod is not gone within {PATIENCE:.0f} s"
        said = documents([self._first, *self._log.lines()])
        self._log.end()
        containers = status.get("initContainerStatuses", []) + status["containerStatuses"]
        return said, {one["name"]: one["state"]["terminated"] for one in containers}


def in_order(scene: Scene, said: list[Document], ends: dict[str, Document]) -> str:
    """The training had a token for its checkpoint, and ended by itself. Then the agent ended by itself."""
    # The signal may come during a step.
    assert [line["at"] for line in said if line["at"] != "step"] == ["start", "SIGTERM", "checkpoint", "end"], said
    assert {line.get("oid") or line["error"] for line in said if "client" in line} == {scene.own}, said
    # Not 137: the kubelet had to kill none of them.
    assert {name: end["exitCode"] for name, end in ends.items()} == dict.fromkeys(ends, 0), ends
    if "jobcred" in ends:
        assert ends["train"]["finishedAt"] <= ends["jobcred"]["finishedAt"], ends
    times = ", ".join(f"{name} ends at {end['finishedAt'][11:19]}" for name, end in ends.items())
    return f"a token for the checkpoint, {times}"


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
    following = Following(scene, job)
    scene.cluster.kubectl("delete", "pod", following.pod, "--wait=false")
    return in_order(scene, *following.finish())


@situation
def a_training_ignores_its_signal(scene: Scene) -> str:
    job = scene.job()
    job.spec["terminationGracePeriodSeconds"] = 5
    program = "import signal,time\nsignal.signal(15,lambda *_:0)\nprint('begun',flush=True)\nwhile 1: time.sleep(1)"
    job.train["command"] = ["python3", "-c", program]
    job.start()
    following = Following(scene, job)
    scene.cluster.kubectl("delete", "pod", following.pod, "--wait=false")
    _, ends = following.finish()
    assert ends["train"]["exitCode"] == 137, ends
    return f"the kubelet kills it after the pod's time. The agent exits with {ends['jobcred']['exitCode']}"


@situation
def an_evicted_pod_has_a_token_for_its_checkpoint_and_is_replaced(scene: Scene) -> str:
    job = scene.job()
    job.put(job.train, TRAIN_SECONDS=100, TRAIN_CHECKPOINT=2)
    job.start()
    following = Following(scene, job)
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": following.pod, "namespace": "default"},
    }
    path = f"/api/v1/namespaces/default/pods/{following.pod}/eviction"
    scene.cluster.kubectl("create", f"--raw={path}", "--filename=-", given=json.dumps(eviction))
    seen = in_order(scene, *following.finish())
    until("another pod", lambda: any(one["metadata"]["name"] != following.pod for one in job.pods()))
    return f"{seen}; another pod"


@situation
def run_is_the_first_process(scene: Scene) -> str:
    job = scene.job(webhook=False)
    job.spec["initContainers"] = []
    job.train["env"] = []
    job.inject(job.train)
    job.train["command"] = ["jobcred", "run", "--", "python3", "train.py"]
    job.put(job.train, TRAIN_SECONDS=100, TRAIN_CHECKPOINT=2)
    job.apply()
    until("the training has a token", lambda: job.pods() and job.runs("train") and job.asked())
    following = Following(scene, job)
    scene.cluster.kubectl("delete", "pod", following.pod, "--wait=false")
    return in_order(scene, *following.finish())
