"""The Job of deploy/kubernetes, with what workload identity's webhook injects, and with the doubles of Azure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml

from cluster import until

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cluster import Cluster

Document = dict[str, Any]

TOKENS = "/var/run/secrets/azure/tokens"
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"


def documents(lines: Iterable[str]) -> list[Document]:
    """The lines that are JSON: the others are of other programs in the container."""
    return [json.loads(line) for line in lines if line.startswith("{")]


class Job:
    """One Job, named after what is checked."""

    def __init__(self, cluster: Cluster, manifest: Path, name: str, *, webhook: bool = True) -> None:
        self._cluster = cluster
        self.name = name.replace("_", "-")
        self.document: Document = yaml.safe_load(manifest.read_text())
        self.document["metadata"]["name"] = self.name
        self.spec: Document = self.document["spec"]["template"]["spec"]
        # There is no name server.
        self.spec["dnsPolicy"] = "Default"
        (self.agent,), (self.train,) = self.spec["initContainers"], self.spec["containers"]
        self.agent["image"] = "myregistry.azurecr.io/jobcred:0.1.0"
        self.train["image"] = "myregistry.azurecr.io/train:1"
        # The node is small.
        self.train["resources"] = {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "512Mi"}}
        if webhook:
            self.inject(self.agent)

    def put(self, container: Document, **values: object) -> None:
        """Sets variables of a container."""
        kept = [item for item in container["env"] if item["name"] not in values]
        container["env"] = kept + [{"name": name, "value": str(value)} for name, value in values.items()]

    def inject(self, container: Document, seconds: int = 3600) -> None:
        """What the webhook adds to a container, and what leads it to the double of Entra."""
        source = {
            "audience": "api://AzureADTokenExchange",
            "expirationSeconds": seconds,
            "path": "azure-identity-token",
        }
        self.spec["volumes"] += [
            {"name": "azure-identity-token", "projected": {"sources": [{"serviceAccountToken": source}]}},
            {"name": "ca", "configMap": {"name": "ca"}},
        ]
        self.spec["hostAliases"] = [{"ip": "10.77.0.1", "hostnames": ["login.microsoftonline.com"]}]
        self.put(
            container,
            AZURE_CLIENT_ID=self._cluster.application["client_id"],
            AZURE_TENANT_ID=self._cluster.application["tenant_id"],
            AZURE_FEDERATED_TOKEN_FILE=f"{TOKENS}/azure-identity-token",
            AZURE_AUTHORITY_HOST="https://login.microsoftonline.com/",
            # For SDKs in Python, which bring roots of their own.
            REQUESTS_CA_BUNDLE=AUTHORITIES,
        )
        container["volumeMounts"] += [
            {"name": "azure-identity-token", "mountPath": TOKENS, "readOnly": True},
            {"name": "ca", "mountPath": AUTHORITIES, "subPath": "ca.pem", "readOnly": True},
        ]

    def apply(self) -> None:
        """Creates it, and waits for its pod."""
        text = json.dumps(self.document)
        self._cluster.kubectl("apply", "--server-side", "--validate=strict", "--filename=-", given=text)
        until("the Job has a pod", self.pods)

    def start(self) -> None:
        """Creates it, and waits until all of its containers run."""
        self.apply()
        until("both containers run", lambda: all(self.runs(name) for name in ("jobcred", "train")))

    def finish(self, seconds: float = 120) -> None:
        """Waits until its pod has ended."""
        until("the pod has ended", lambda: self.phase in ("Succeeded", "Failed"), seconds)

    def complete(self) -> None:
        """Creates it, and waits until its pod has ended."""
        self.apply()
        self.finish()

    def delete(self) -> None:
        self._cluster.kubectl("delete", "job", self.name, "--wait=false", "--ignore-not-found")

    def pods(self) -> list[Document]:
        found: list[Document] = self._cluster.read("pods", f"--selector=job-name={self.name}")["items"]
        return found

    @property
    def pod(self) -> str:
        """The name of its first pod."""
        name: str = self.pods()[0]["metadata"]["name"]
        return name

    @property
    def phase(self) -> str:
        phase: str = self.pods()[0]["status"]["phase"]
        return phase

    def status(self, container: str) -> Document:
        """What the kubelet says of a container; empty if it has not begun."""
        status = self.pods()[0]["status"]
        all_of_them = status.get("initContainerStatuses", []) + status.get("containerStatuses", [])
        return next((one for one in all_of_them if one["name"] == container), {})

    def runs(self, container: str) -> bool:
        return "running" in self.status(container).get("state", {})

    def restarts(self) -> int:
        """How often the agent was restarted."""
        return int(self.status("jobcred").get("restartCount", 0))

    def signal(self, name: str) -> None:
        """Sends the agent a signal, from the node."""
        wanted = self.status("jobcred")["containerID"].removeprefix("containerd://")
        listing = self._cluster.do(
            *("ctr", "--address", "/run/containerd/containerd.sock", "--namespace", "k8s.io", "tasks", "list")
        )
        pid = next(line.split()[1] for line in listing.splitlines() if line.startswith(wanted))
        self._cluster.do("kill", f"-{name}", pid)

    def logs(self, container: str, *options: str, pod: str | None = None) -> str:
        """What a container of its first pod, or of that pod, has written."""
        return self._cluster.attempt("kubectl", "logs", pod or self.pod, "--container", container, *options).stdout

    def said(self, container: str = "train", pod: str | None = None) -> list[Document]:
        """The training's lines."""
        return documents(self.logs(container, pod=pod).splitlines())

    def asked(self, container: str = "train", pod: str | None = None) -> list[Document]:
        """The training's lines about requests."""
        return [line for line in self.said(container, pod) if "client" in line]

    def principals(self, client: str | None = None, pod: str | None = None) -> set[str]:
        """The principals that the training had tokens of, and its errors."""
        lines = [line for line in self.asked(pod=pod) if client in (None, line["client"])]
        return {line.get("oid") or line["error"] for line in lines}

    def unhealthy_events(self) -> list[Document]:
        """The events about probes that failed."""
        events: list[Document] = self._cluster.read("events", f"--field-selector=involvedObject.name={self.pod}")[
            "items"
        ]
        return [event for event in events if event["reason"] == "Unhealthy"]
