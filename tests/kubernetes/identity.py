"""Whose tokens a training gets, by which way."""

from __future__ import annotations

import copy
import re
import shlex
from typing import TYPE_CHECKING

from cluster import ROOT, until
from commands import in_pages, run_by
from scene import situation

if TYPE_CHECKING:
    from scene import Scene


@situation
def the_documented_lines_apply_the_manifests(scene: Scene) -> str:
    *applied, logs = run_by("kubernetes")
    for line in applied:
        done = scene.cluster.attempt("sh", "-c", f"cd {ROOT} && {line}")
        assert done.returncode == 0, done.stderr
        assert "arning" not in done.stderr, done.stderr
    job = scene.job(webhook=False)
    job.name = "train"
    try:
        until("the agent is restarted", lambda: job.pods() and job.restarts())
        # Without the webhook there is no identity. The agent says so, and does not take the node's.
        shown = scene.cluster.do("sh", "-c", logs.replace("POD", job.pod))
        text = job.logs("jobcred", "--previous") + shown
        assert "azure.workload.identity/use" in text, text
    finally:
        job.delete()
    return "applied without a warning"


@situation
def k1_unmodified_sdks_get_the_jobs_identity_as_shipped(scene: Scene) -> str:
    job = scene.job()
    clients = ("socket", "aio", "managed", "default")
    job.put(job.train, TRAIN_CLIENTS=",".join(clients))
    job.complete()
    found = {client: job.principals(client) for client in clients}
    assert set().union(*found.values()) == {scene.own}, found
    return ", ".join(clients)


@situation
def k2_the_documented_command_finds_the_endpoint_file(scene: Scene) -> str:
    (line,) = {line for line in in_pages() if line.startswith("sh -c '. /")}
    job = scene.job()
    job.put(job.train, TRAIN_CLIENTS="managed")
    job.train["command"] = shlex.split(line)
    job.document["spec"]["backoffLimit"] = 0
    job.complete()
    assert job.phase == "Succeeded", job.logs("train")
    assert job.principals() == {scene.own}, job.said()
    # Every page names the same file.
    pages = "".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    files = set(re.findall(r"\. (/\S+endpoint\.env)", pages))
    assert len(files) == 1, files
    return str(files.pop())


@situation
def k7_the_modes_of_volumes(scene: Scene) -> str:
    job = scene.job()
    job.put(job.train, TRAIN_SECONDS=30)
    job.start()
    folders = ("/run/jobcred", "/tmp")
    words = ("exec", job.pod, "--container=train", "--", "stat", "--format=%a %u:%g", *folders)
    seen = scene.cluster.kubectl(*words).splitlines()
    # In memory, and on a disk: tests/containers/pod.py does the same.
    assert seen == ["3777 0:2000", "2777 0:2000"], seen
    return ", ".join(seen)


@situation
def c8_a_service_named_jobcred_endpoint(scene: Scene) -> str:
    scene.cluster.kubectl("create", "service", "clusterip", "jobcred-endpoint", "--tcp=80:80")
    try:
        job = scene.job()
        # Without these two lines of the manifest, the variable of the Service reaches both containers.
        job.spec["enableServiceLinks"] = True
        job.agent["env"] = [item for item in job.agent["env"] if item["name"] != "JOBCRED_ENDPOINT_PORT"]
        job.train["command"] = ["sh", "-c", "echo $JOBCRED_ENDPOINT_PORT; exec python3 train.py"]
        job.put(job.train, TRAIN_CLIENTS="socket,aio")
        job.document["spec"]["backoffLimit"] = 0
        job.apply()
        until("the pod has ended", lambda: job.phase == "Succeeded" or job.restarts())
        assert job.phase == "Succeeded", job.logs("jobcred") + job.logs("jobcred", "--previous")
        assert job.logs("train").startswith("tcp://"), job.logs("train")
        assert "JOBCRED_ENDPOINT_PORT" in job.logs("jobcred"), job.logs("jobcred")
        assert job.principals() == {scene.own}, job.said()
    finally:
        scene.cluster.kubectl("delete", "service", "jobcred-endpoint")
    return "the Job runs, and the agent says that it ignores the variable"


@situation
def another_user_is_refused(scene: Scene) -> str:
    job = scene.job()
    other = copy.deepcopy(job.train)
    other["name"] = "other"
    other["securityContext"].update(runAsUser=1001, runAsGroup=1001)
    job.spec["containers"].append(other)
    job.put(job.agent, JOBCRED_ALLOW_UIDS="1000")
    for container in (job.train, other):
        job.put(container, TRAIN_CLIENTS="socket,managed", TRAIN_SECONDS=2)
    job.complete()
    assert job.principals() == {scene.own}, job.principals()
    refused = job.asked("other")
    assert refused
    assert all("uid 1001 may not" in line["error"] for line in refused), refused
    return "1000 is served and 1001 refused, on the socket and the endpoint"


@situation
def processes_are_shared(scene: Scene) -> str:
    job = scene.job()
    job.spec["shareProcessNamespace"] = True
    job.put(job.train, TRAIN_SECONDS=30)
    job.start()
    look = "cat /proc/[0-9]*/comm; cat /proc/[0-9]*/environ | tr '\\0' '\\n' | grep -c FEDERATED || :"
    seen = scene.cluster.attempt(
        *("kubectl", "exec", job.pod, "--container=train", "--", "sh", "-c", look),
    ).stdout.split()
    assert "jobcred" in seen, seen
    assert seen[-1] == "0", seen
    job.finish()
    assert job.principals() == {scene.own}
    return "the training sees the agent's process, and not its environment"


@situation
def an_indexed_job(scene: Scene) -> str:
    job = scene.job()
    job.document["spec"].update(completions=3, parallelism=3, completionMode="Indexed")
    job.put(job.train, TRAIN_CLIENTS="socket,managed", TRAIN_SECONDS=3)
    job.apply()
    scene.cluster.kubectl("wait", "--for=condition=Complete", f"job/{job.name}", "--timeout=120s")
    found = [job.principals(pod=pod["metadata"]["name"]) for pod in job.pods()]
    assert found == [{scene.own}] * 3, found
    return "three pods, each with its own agent"


@situation
def k6_run_beside_the_sidecar(scene: Scene) -> str:
    job = scene.job()
    job.train["command"] = ["jobcred", "run", "--", "python3", "train.py"]
    job.put(job.train, TRAIN_CLIENTS="socket,managed")
    job.complete()
    assert job.principals() == {scene.own}, f"{job.principals()} {job.logs('train')}"
    assert "without an agent" not in job.logs("train"), job.logs("train")
    return "the sidecar's agent is used"
