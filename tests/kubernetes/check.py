"""Checks situations of the Job of deploy/kubernetes in a cluster: check.py STATE [-k PATTERN] [--job FILE] [--slow].

It prints a line for each, and at last the faults by name. A line is `ok`, `FAULT`, or `known` for a fault that KNOWN
lists. `FIXED`: a listed fault is gone, and its entry has to go. The status is 1 if there is a fault that is not listed,
or one that is fixed.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ending  # noqa: F401 # registers its situations
import identity  # noqa: F401 # registers its situations
import restarts  # noqa: F401 # registers its situations
from cluster import ROOT, Cluster
from scene import SITUATIONS, Scene, Turn

# Faults that are not fixed yet: the words of the result, and why it is so.
KNOWN = {
    "k3_the_agent_is_killed": ("requests failed at once", "clients do not wait for an agent that is restarted"),
    "the_pin_over_a_restart": ("serves another principal", "a sidecar forgets whose tokens it saw (docs/security.md)"),
    "k5_events_of_the_probe": (r"^\d+ events", "the text of `health` has a different request id each time"),
    "k6_run_beside_the_sidecar": ("cannot listen at", "`run` wants to be the agent at JOBCRED_SOCKET"),
}
WORDS = {"known": "known fault", "FIXED": "fixed fault", "FAULT": "new fault"}
SLOW = "the_projected_token_rotates"
AT_A_TIME = 5


def prepare(cluster: Cluster) -> None:
    """The namespace holds to the restricted standard, as docs/kubernetes.md promises."""
    levels = [f"pod-security.kubernetes.io/{mode}=restricted" for mode in ("enforce", "warn", "audit")]
    cluster.kubectl("label", "namespace", "default", "--overwrite", *levels)
    # For pods of any user.
    authorities = cluster.state / "doubles/ca.pem"
    cluster.kubectl("create", "configmap", "ca", f"--from-file=ca.pem={authorities}")
    cluster.kubectl("apply", "--filename", str(ROOT / "deploy/kubernetes/service-account.yaml"))
    node = cluster.read("node", "node")["status"]["nodeInfo"]
    server = json.loads(cluster.kubectl("version", "--output=json"))["serverVersion"]["gitVersion"]
    versions = [node[key] for key in ("kubeletVersion", "containerRuntimeVersion", "kernelVersion")]
    print(f"API server {server}, kubelet {versions[0]}, {versions[1]}, kernel {versions[2]}", flush=True)


def check(scene: Scene) -> str:
    """Runs one situation, and prints its line."""
    before = time.monotonic()
    with scene.turn.shared():
        try:
            verdict, text = "ok", SITUATIONS[scene.name](scene)
        except Exception as error:  # every kind is a result
            verdict, text = "FAULT", " ".join(str(error).split())[:600] or traceback.format_exc()
        try:
            scene.job().delete()
        except Exception as error:  # the others go on
            verdict, text = "FAULT", f"{text}; the Job was not deleted: {error}"[:900]
    words, reason = KNOWN.get(scene.name, ("", ""))
    if words and verdict == "ok":
        verdict, text = "FIXED", f"{text}. Take it out of KNOWN in check.py."
    elif words and re.search(words, text):
        verdict, text = "known", f"{reason}: {text}"
    print(f"{verdict:6}{time.monotonic() - before:5.0f} s  {scene.name}: {text}", flush=True)
    return verdict


def summary(names: list[str], verdicts: list[str]) -> str:
    """How many situations are as they should be, and the names of the others."""
    parts = [f"{verdicts.count('ok')} ok"]
    for verdict, words in WORDS.items():
        found = [name for name, other in zip(names, verdicts, strict=True) if other == verdict]
        if found:
            parts.append(f"{len(found)} {words}{'s' if len(found) > 1 else ''}: {', '.join(found)}")
    return "; ".join(parts)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("state", type=Path)
    parser.add_argument("-k", dest="pattern", default="", help="only situations that this pattern finds by name")
    parser.add_argument("--job", type=Path, default=ROOT / "deploy/kubernetes/job.yaml", help="another manifest")
    parser.add_argument("--slow", action="store_true", help="also the one that takes 12 minutes")
    given = parser.parse_args()
    assert KNOWN.keys() <= SITUATIONS.keys(), "KNOWN names a situation that is not there"

    cluster, turn = Cluster(given.state), Turn()
    prepare(cluster)
    names = [name for name in SITUATIONS if re.search(given.pattern, name) and (given.slow or name != SLOW)]
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        verdicts = list(pool.map(check, [Scene(cluster, name, given.job, turn) for name in names]))
    print(summary(names, verdicts))
    return int(not verdicts or "FAULT" in verdicts or "FIXED" in verdicts)


if __name__ == "__main__":
    sys.exit(main())
