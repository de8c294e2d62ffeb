"""A pod, run by a docker engine as a kubelet would: everything in it is read from its manifest.

A field that is not known here is an error, so that none is passed over in silence.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from engine import Container, Engine

Document = dict[str, Any]

UNITS = {"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
# What workload identity's webhook adds: the label that asks for it, the annotation that says where not, and the place.
USES_IDENTITY = "azure.workload.identity/use"
SKIPS = "azure.workload.identity/skip-containers"
CLIENT_ID = "azure.workload.identity/client-id"
IDENTITY_MOUNT = "/var/run/secrets/azure/tokens"
IDENTITY_FILE = "azure-identity-token"
# The modes that a kubelet gives an `emptyDir` with an `fsGroup`, by medium. `tests/kubernetes` holds a kubelet to them.
MODES = {"Memory": 0o3777, None: 0o2777}


def take(document: Document, *known: str) -> tuple[Any, ...]:
    """Those fields, and that there are no others."""
    unknown = document.keys() - set(known)
    assert not unknown, f"the tests do not know what a kubelet does with {unknown}"
    return tuple(document.get(name) for name in known)


def quantity(text: str) -> int:
    """Bytes."""
    match = re.fullmatch(r"(\d+)(|Ki|Mi|Gi)", text)
    assert match is not None, text
    return int(match[1]) * UNITS[match[2]]


@dataclass(frozen=True)
class Identity:
    """What workload identity gives to the pod, and what leads to the double of Entra."""

    variables: dict[str, str]
    assertion: str
    authorities: Path


@dataclass
class Pod:
    """The pod of a Job, and what it runs with."""

    engine: Engine
    job: Document
    account: Document
    # By the names in the manifest.
    images: dict[str, str]
    directory: Path
    identity: Identity | None
    started: dict[str, Container] = field(default_factory=dict)

    def __post_init__(self) -> None:
        template = self.job["spec"]["template"]
        self._metadata, self._spec = template["metadata"], template["spec"]
        security, volumes, restart, account = take(
            self._spec,
            *("securityContext", "volumes", "restartPolicy", "serviceAccountName"),
            *("automountServiceAccountToken", "terminationGracePeriodSeconds", "initContainers", "containers"),
            "enableServiceLinks",
        )[:4]
        # Otherwise a kubelet sets more variables than these tests do.
        assert self._spec["enableServiceLinks"] is False
        assert restart == "Never"
        assert account == self.account["metadata"]["name"]
        self._must_not_be_root, self._group, seccomp = take(security, "runAsNonRoot", "fsGroup", "seccompProfile")
        # The one that docker has when nothing else is said.
        assert seccomp == {"type": "RuntimeDefault"}
        self._volumes = {volume["name"]: self._volume(volume) for volume in volumes}

    def _volume(self, volume: Document) -> Path:
        name, empty = take(volume, "name", "emptyDir")
        medium, limit = take(empty, "medium", "sizeLimit")
        path: Path = self.directory / name
        path.mkdir(parents=True)
        mode = MODES[medium]
        if medium == "Memory":
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={quantity(limit)}", "tmpfs", path], check=True)
        # Every user may write there. `fsGroup` gives it to the group, with every file that is made in it.
        os.chown(path, 0, self._group)
        path.chmod(mode)
        return path

    def close(self) -> None:
        """Removes the volumes in memory. The containers are the engine's to remove, before."""
        for path in self._volumes.values():
            if path.is_mount():
                subprocess.run(["umount", path], check=True)

    @property
    def sidecar(self) -> Document:
        """The one init container, which goes on beside the others."""
        (sidecar,) = self._spec["initContainers"]
        assert sidecar["restartPolicy"] == "Always"
        return dict(sidecar)

    @property
    def training(self) -> Document:
        """The one other container."""
        (training,) = self._spec["containers"]
        return dict(training)

    def start(self, container: Document) -> Container:
        """Starts one of its containers as it is declared."""
        name, image, command, arguments, env, resources, security, mounts = take(
            container,
            *("name", "image", "command", "args", "env", "resources", "securityContext", "volumeMounts"),
            *("restartPolicy", "startupProbe", "livenessProbe"),
        )[:8]
        variables = {item["name"]: item["value"] for item in env}
        # What a cluster gives to every container.
        variables |= {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
        options = [*self._security(security), *self._resources(resources), *self._mounts(mounts)]
        if self._has_identity(name):
            added, variables_added = self._identity_of()
            options += added
            variables |= variables_added
        options += [f"--env={key}={value}" for key, value in variables.items()]
        if command:
            first, *rest = command
            options.append(f"--entrypoint={first}")
            arguments = [*rest, *(arguments or [])]
        # The network is the pod's: here the namespace of the tests, with the doubles on its loopback device.
        started = self.engine.start(self.images[image], *(arguments or []), options=tuple(options), network="host")
        self.started[name] = started
        return started

    def _security(self, security: Document) -> list[str]:
        user, group, escalation, read_only, capabilities = take(
            security, "runAsUser", "runAsGroup", "allowPrivilegeEscalation", "readOnlyRootFilesystem", "capabilities"
        )
        assert user != 0 or not self._must_not_be_root
        options = [f"--user={user}:{group}", f"--group-add={self._group}"]
        options += ["--security-opt=no-new-privileges"] if escalation is False else []
        options += ["--read-only"] if read_only else []
        return options + [f"--cap-drop={name}" for name in capabilities["drop"]]

    def _resources(self, resources: Document) -> list[str]:
        limits, _ = take(resources, "limits", "requests")
        (memory,) = take(limits, "memory")
        # No swap, as in a cluster.
        return [f"--memory={quantity(memory)}", f"--memory-swap={quantity(memory)}"]

    def _mounts(self, mounts: list[Document]) -> list[str]:
        options = []
        for mount in mounts:
            name, path, read_only = take(mount, "name", "mountPath", "readOnly")
            options.append(f"--volume={self._volumes[name]}:{path}{':ro' if read_only else ''}")
        return options

    def _has_identity(self, name: str) -> bool:
        skipped = self._metadata["annotations"].get(SKIPS, "").split(";")
        wanted = self._metadata["labels"].get(USES_IDENTITY) == "true"
        return self.identity is not None and wanted and name not in skipped

    def _identity_of(self) -> tuple[list[str], dict[str, str]]:
        assert self.identity is not None
        token: Path = self.directory / "identity" / IDENTITY_FILE
        token.parent.mkdir(exist_ok=True)
        token.write_text(self.identity.assertion)
        # As a projected token is where there is an `fsGroup`.
        os.chown(token, 0, self._group)
        token.chmod(0o640)
        client = self.account["metadata"]["annotations"][CLIENT_ID]
        file = f"{IDENTITY_MOUNT}/{IDENTITY_FILE}"
        variables = {"AZURE_CLIENT_ID": client, "AZURE_FEDERATED_TOKEN_FILE": file, **self.identity.variables}
        # The double's authority takes the place of the public ones, where the image has those.
        roots = f"--volume={self.identity.authorities}:/etc/ssl/certs/ca-certificates.crt:ro"
        return [f"--volume={token.parent}:{IDENTITY_MOUNT}:ro", roots], variables

    def started_up(self, container: Document, running: Container) -> bool:
        """Whether the startup probe succeeds, as often as it may be tried, before the container ends."""
        probe = container["startupProbe"]
        (command,) = take(probe["exec"], "command")
        for _ in range(probe["failureThreshold"]):
            if running.run(*command).returncode == 0:
                return True
            if not running.state["Running"]:
                return False
            # As the kubelet does: the tries are worth as long as they last.
            time.sleep(probe["periodSeconds"])
        return False
