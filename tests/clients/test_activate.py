"""``jobcred.activate()`` with the real agent: programs and notebooks that nobody started under ``jobcred run``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from platforms import platform
from scene import Finished, Scene, python

if TYPE_CHECKING:
    from collections.abc import Callable

CLUSTER = platform("compute-identity")


def told(done: Finished) -> dict[str, dict[str, Any]]:
    """The lines of a program of ``jobs``, by what they are about."""
    assert done.status == 0, str(done)
    return {line.pop("what"): line for line in done.lines_of_json()}


def test_processes_of_one_user_share_an_agent_until_the_last_has_ended(scene: Callable[..., Scene]) -> None:
    machine = scene(CLUSTER.config(3600))
    environment = machine.environment(CLUSTER.environment(machine.doubles, machine.directory))
    done = machine.run(python("activated.py"), environment)
    seen = told(done)
    principal = CLUSTER.principal(machine.doubles.ready)
    assert seen["activated"]["started"] is True
    assert seen["activated"]["strategy"] == "compute-identity"
    assert seen["activated"]["socket"] == "/run/jobcred/agent.sock"
    assert seen["principal"]["object_id"] == principal["object_id"]
    for method in ("fork", "spawn", "forkserver", "threads", "guest"):
        assert seen[method] == {"same": True}, method
    assert seen["sharer"] == {"same": True, "same_agent": True, "started": False}
    assert seen["again"]["pid"] != seen["activated"]["pid"]
    assert seen["again"]["running"] is True
    assert seen["deactivated"] == {"named": False}
    assert seen["after"] == {"token": True}
    assert seen["end"] == {"running": False}
    asked = machine.doubles.requests()
    assert [name for name, requests in asked.items() if requests] == [CLUSTER.endpoint], str(done)


def test_under_run_nothing_is_started(scene: Callable[..., Scene]) -> None:
    machine = scene(CLUSTER.config(3600))
    environment = CLUSTER.environment(machine.doubles, machine.directory)
    program = "import jobcred, os; a = jobcred.activate(); print(a.started, a.socket == os.environ['JOBCRED_SOCKET'])"
    before = "import os; print(os.environ['JOBCRED_SOCKET'], flush=True)"
    done = machine.job([sys.executable, "-c", f"{before}\n{program}"], environment)
    assert done.status == 0, str(done)
    assert done.stdout.splitlines() == ["/run/jobcred/agent.sock", "False True"]


def test_a_sandbox_is_for_whoever_asked_for_it_alone(scene: Callable[..., Scene]) -> None:
    machine = scene(CLUSTER.config(3600))
    environment = machine.environment(CLUSTER.environment(machine.doubles, machine.directory))
    program = """
import jobcred, os, subprocess, sys
active = jobcred.activate(sandbox=True)
jobcred.JobCredential().get_token("https://storage.azure.com/.default")
print(active.strategy, active.principal["sandbox"], flush=True)
code = "import jobcred; print(jobcred.activate().strategy)"
subprocess.run([sys.executable, "-c", code], check=True)
del os.environ["JOBCRED_SOCKET"]
subprocess.run([sys.executable, "-c", code], check=True)
"""
    done = machine.run([sys.executable, "-c", program], environment)
    assert done.status == 0, str(done)
    assert done.stdout.splitlines() == ["sandbox True", "sandbox", "compute-identity"]


def test_without_an_identity_the_reason_is_raised_or_warned_of(scene: Callable[..., Scene]) -> None:
    machine = scene({"imds": None, "azure_ml": {}})
    program = """
import jobcred
try:
    jobcred.activate()
except jobcred.UnavailableError as error:
    print(error)
print(jobcred.activate(required=False))
"""
    done = machine.run([sys.executable, "-c", program], machine.environment())
    assert done.status == 0, str(done)
    reason, rest = done.stdout.splitlines()
    assert "Nothing here leads to an identity" in reason
    assert rest == "<jobcred.Activation: not active>"
    assert "RuntimeWarning: jobcred is not active" in done.stderr


def test_notebooks_of_one_user_share_an_agent_that_an_interrupt_does_not_reach(scene: Callable[..., Scene]) -> None:
    machine = scene(CLUSTER.config(3600))
    environment = machine.environment(CLUSTER.environment(machine.doubles, machine.directory))
    done = machine.run(python("notebook.py"), environment)
    seen = told(done)
    first = seen["first"]
    assert first["socket"] == "/run/jobcred/agent.sock"
    assert first["object_id"] == CLUSTER.principal(machine.doubles.ready)["object_id"]
    assert seen["second"] == first
    assert seen["interrupted"] == {"error": "KeyboardInterrupt"}
    assert seen["shell"]["length"] > 100
    assert seen["restarted"] == first
    for later in ("again", "other"):
        assert seen[later]["pid"] == first["pid"], later
