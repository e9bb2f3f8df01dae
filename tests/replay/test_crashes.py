"""`kill -9` of each process at each step of build, promote and rollback: one consistent end.

All tests share a namespace whose version 1 is live. Events go on coming in while something is
dead, and in the end both versions must have exactly the oracle's rows.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from deploy.stack import Stack
from jobs.submit import cancel
from tests import datasets
from tests.harness import (
    Environment,
    create_topic,
    environment,
    produce,
    read_topic,
    register,
    start_loader,
    stop_loader,
    submit_page_views,
)
from tests.oracle import MINUTE
from tests.replay.running import (
    assert_whole,
    control,
    done,
    judged,
    kill_at,
    live_jobs,
    newest,
    one_version,
    readers,
    start_up_to,
    visit,
)
from tests.settling import wait_for_rows

pytestmark = pytest.mark.long

PROCESSES = ("kappa", "taskmanager", "loader")
BUILD = ("submit", "read", "load", "built")
_SWITCH = ("prepare names", "switch", "record", "keep names")
PROMOTE = ("verify", *(f"promote: {step}" for step in _SWITCH))
ROLL_BACK = tuple(f"roll back: {step}" for step in _SWITCH)

_ENDS_SECONDS = 420.0
_LATER = datasets.EVENING + 6 * datasets.HOUR
_BOTH = """
    SELECT (SELECT sum(views) FROM page_views_per_minute),
           (SELECT sum(views) FROM site_traffic_per_minute)"""


@pytest.fixture(scope="module")
def live(stack: Stack) -> Iterator[Environment]:
    """Return a namespace with late and broken events in it, and version 1 of its views live."""
    with environment(stack) as env:
        env.settings = env.settings.model_copy(update={"parallelism": 1})
        schema_id = register(env, datasets.V1)
        create_topic(env)
        produce(env, datasets.late_events(schema_id))
        submit_page_views(env)
        start_loader(env)
        wait_for_rows(env, judged(env), 600)
        yield env
        for name in live_jobs(env):
            cancel(env.settings, f"{env.settings.namespace}.{name}")


@pytest.mark.parametrize("step", BUILD)
@pytest.mark.parametrize("victim", PROCESSES)
def test_a_build_ends_though_a_process_was_killed(
    live: Environment, stack: Stack, victim: str, step: str
) -> None:
    if is_open(live):
        if one_version(live) != 1:
            done(live, "rollback", "--yes")
        done(live, "abort", "--yes")
    kill(victim, stack, live, step, "build", "--yes")
    assert one_version(live) == 1
    done(live, "build", "--yes")
    assert_consistent(live, "built", 1)
    assert done(live, "verify")["unexplained"] == 0


@pytest.mark.parametrize("step", PROMOTE)
@pytest.mark.parametrize("victim", PROCESSES)
def test_a_promotion_ends_though_a_process_was_killed(
    live: Environment, stack: Stack, victim: str, step: str
) -> None:
    built(live)
    if one_version(live) != 1:
        done(live, "rollback", "--yes")
    with readers(live, _BOTH, threads=1) as reading:
        kill(victim, stack, live, step, "promote", "--yes")
        assert one_version(live) in (1, newest(live).to_version)
        done(live, "promote", "--yes")
    assert (dict(reading.failures), bool(reading.answers)) == ({}, True)
    assert_consistent(live, "promoted", newest(live).to_version)


@pytest.mark.parametrize("step", ROLL_BACK)
@pytest.mark.parametrize("victim", PROCESSES)
def test_a_rollback_ends_though_a_process_was_killed(
    live: Environment, stack: Stack, victim: str, step: str
) -> None:
    built(live)
    if one_version(live) == 1:
        done(live, "promote", "--yes")
    with readers(live, _BOTH, threads=1) as reading:
        kill(victim, stack, live, step, "rollback", "--yes")
        assert one_version(live) in (1, newest(live).to_version)
        done(live, "rollback", "--yes")
    assert (dict(reading.failures), bool(reading.answers)) == ({}, True)
    assert_consistent(live, "rolled_back", 1)


def is_open(env: Environment) -> bool:
    """Return whether a replay is under way."""
    with control(env) as found:
        return any(one.state.open for one in found.replays())


def built(env: Environment) -> None:
    """Have a replay that is built, whatever tests ran before."""
    if not is_open(env) or newest(env).state == "building":
        done(env, "build", "--yes")


def kill(victim: str, stack: Stack, env: Environment, step: str, *words: str) -> None:
    """Run `kappa replay` with `words`, and kill `victim` once it has begun `step`; itself, within.

    Events come in before the victim is back. A loader's death no command notices; without a
    TaskManager it may give up, with a sentence that says so.
    """
    if victim == "kappa":
        kill_at(env, step, *words)
        come_in(env)
        return
    process = start_up_to(env, step, *words)
    if victim == "loader":
        stop_loader(env, signal.SIGKILL)
        come_in(env)
        start_loader(env)
        _, errors = process.communicate(timeout=_ENDS_SECONDS)
        assert process.returncode == 0, errors
    else:
        pid = stack.wait_healthy("taskmanager", 300).pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        come_in(env)
        stack.wait_healthy("taskmanager", 300, other_than=pid)
        _, errors = process.communicate(timeout=_ENDS_SECONDS)
        assert process.returncode in (0, 1), errors
        assert "Traceback" not in errors


def come_in(env: Environment) -> None:
    """Write an event to each partition, newer than all before."""
    there = [message.record for message in read_topic(env, env.stream.topic)]
    at = max(_LATER, *(record.timestamp_ms for record in there)) + MINUTE
    (schema_id,) = env.registered
    produce(
        env, [visit(number, at, schema_id, "/goes-on") for number in range(datasets.PARTITIONS)]
    )


def assert_consistent(env: Environment, state: str, version: int) -> None:
    """Assert that people see `version`, and that both versions hold what the events give, once."""
    replay = newest(env)
    assert (replay.state, one_version(env)) == (state, version)
    assert live_jobs(env) == ["page_views", f"page_views.v{replay.to_version}"]
    with control(env) as found:
        held = {lease.view: lease.replay_id for lease in found.leases()}
        states = found.version_states()
    assert held == dict.fromkeys(replay.views, replay.id)
    other = "building" if state == "built" else "standby"
    for view in replay.views:
        pair = {number: states[view, number] for number in (1, replay.to_version)}
        assert pair == {1: other, replay.to_version: other, version: "live"}
    assert_whole(env, (1, replay.to_version))
