"""The agent in a container, confined as the documentation says, and other containers that ask it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from engine import CONFINED, until

if TYPE_CHECKING:
    from engine import Container, Done, Engine

AGENT = ("agent", "--sandbox")
TOKEN = ("token", "--raw")
GROUP = "2000"
OTHER = ("--user", "1000:1000")
SHARING = ("--group-add", GROUP, "--env", f"JOBCRED_SOCKET_GROUP={GROUP}")


def volume(*, read_only: bool = False) -> tuple[str, ...]:
    return ("--volume", "credentials:/run/jobcred" + (":ro" if read_only else ""))


def agent(engine: Engine, image: str, *options: str) -> Container:
    started = engine.start(image, *AGENT, options=(*CONFINED, *volume(), *options))
    started.until_ready()
    return started


def ask(engine: Engine, image: str, *options: str, command: tuple[str, ...] = TOKEN) -> Done:
    """Another container, which has the volume read-only."""
    return engine.run(image, *command, options=(*CONFINED, *volume(read_only=True), *options))


def assert_is_token(done: Done) -> None:
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(".") == 2


@pytest.mark.parametrize("user", ["65532:65532", "12345:54321", "1000:0", "0:0"])
def test_it_runs_as_any_user_and_serves_another_container(engine: Engine, jobcred: str, user: str) -> None:
    agent(engine, jobcred, "--user", user)
    assert_is_token(ask(engine, jobcred, "--user", user))
    healthy = ask(engine, jobcred, "--user", user, command=("health", "--ready"))
    assert healthy.returncode == 0, healthy.stderr


def test_without_an_agent_it_is_not_healthy(engine: Engine, jobcred: str) -> None:
    assert ask(engine, jobcred, command=("health",)).returncode == 123


def test_another_user_asks_through_the_group(engine: Engine, jobcred: str) -> None:
    agent(engine, jobcred, *SHARING)
    named = ("--env", "JOBCRED_AGENT_UID=65532")
    assert_is_token(ask(engine, jobcred, *OTHER, "--group-add", GROUP, *named))
    # Neither without the group, nor without knowing whom to trust.
    outside = ask(engine, jobcred, *OTHER, *named)
    assert outside.returncode != 0
    assert "not accessible to this user" in outside.stderr
    distrustful = ask(engine, jobcred, *OTHER, "--group-add", GROUP)
    assert distrustful.returncode != 0
    assert "JOBCRED_AGENT_UID" in distrustful.stderr


def test_after_the_signal_it_answers_for_a_grace(engine: Engine, jobcred: str) -> None:
    sidecar = agent(engine, jobcred)
    sidecar.signal("TERM")
    sidecar.until_said("still answering for a grace")
    assert_is_token(ask(engine, jobcred))
    # Whoever will not wait says so.
    sidecar.signal("TERM")
    assert sidecar.wait() == 0


def test_without_a_grace_it_ends_when_it_is_told(engine: Engine, jobcred: str) -> None:
    sidecar = agent(engine, jobcred, "--env", "JOBCRED_GRACE=0s")
    sidecar.signal("TERM")
    assert sidecar.wait() == 0
    assert "still answering" not in sidecar.output()


def test_stopping_it_is_an_end_and_no_kill(engine: Engine, jobcred: str) -> None:
    sidecar = agent(engine, jobcred, "--env", "JOBCRED_GRACE=1s")
    engine.do("stop", "--time", "60", sidecar.name)
    assert (sidecar.state["ExitCode"], sidecar.state["OOMKilled"]) == (0, False)


def test_the_engine_finds_it_healthy(engine: Engine, jobcred: str) -> None:
    sidecar = agent(engine, jobcred)

    def healthy() -> bool:
        health = sidecar.state["Health"]
        assert health["Status"] in {"starting", "healthy"}, health
        return bool(health["Status"] == "healthy")

    until("the health check succeeds", healthy)


def test_another_command_takes_the_place_of_agent(engine: Engine, jobcred: str) -> None:
    done = engine.run(jobcred, "explain", "--json", "--sandbox")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["strategy"] == "sandbox"
    # Where there is no identity, it says what was looked for.
    done = engine.run(jobcred, "explain")
    assert done.returncode == 121
    assert "AZUREML_OBO_ENABLED" in done.stdout + done.stderr


def test_without_an_identity_the_agent_does_not_start(engine: Engine, jobcred: str) -> None:
    sidecar = engine.start(jobcred)
    assert sidecar.wait() == 121
