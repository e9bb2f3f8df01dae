"""`kill -9` at every step: the same command goes on, and all ends in one consistent state."""

from __future__ import annotations

import os
import signal
from functools import partial
from operator import eq

import pytest

from deploy.stack import Stack
from jobs.cluster import LIVE_STATES, Cluster
from schemas.topics import topic_names
from tests.harness import Environment, rows, start_loader, stop_loader, wait_for
from tests.replay.running import (
    VIEWS,
    control,
    done,
    events_loaded,
    journal,
    kill_at,
    newest,
    refused,
    shown,
    start,
)

ALL = (*VIEWS, "page_views_accounting")
_BUILD = ("submit", "read", "load", "built")
_SWITCH = ("prepare names", "switch", "record")
_END = ("settle names", "stop job", "drop topics", "drop tables", "drop state", "record")

pytestmark = pytest.mark.long


def test_a_build_killed_at_every_step_goes_on(live: Environment) -> None:
    for step in _BUILD:
        kill_at(live, step, "build", "--yes")
        assert shown(live) == dict.fromkeys(ALL, 1)
    replay = done(live, "build", "--yes")
    assert (replay["id"], replay["state"], replay["to_version"]) == (newest(live).id, "built", 2)
    assert_whole(live, 2)
    assert live_jobs(live) == ["page_views", "page_views.v2"]


def test_promote_and_rollback_killed_at_every_step_end_as_asked(live: Environment) -> None:
    done(live, "build", "--yes")
    for step in _SWITCH:
        kill_at(live, f"promote: {step}", "promote", "--yes")
        assert one_version(live) in (1, 2)
        done(live, "promote", "--yes")
        assert one_version(live) == 2
        kill_at(live, f"roll back: {step}", "rollback", "--yes")
        assert one_version(live) in (1, 2)
        assert done(live, "rollback", "--yes")["state"] == "rolled_back"
        assert one_version(live) == 1
    assert live_jobs(live) == ["page_views", "page_views.v2"]


def test_a_promotion_killed_before_it_was_recorded_can_be_rolled_back(live: Environment) -> None:
    done(live, "build", "--yes")
    kill_at(live, "promote: record", "promote", "--yes")
    done(live, "rollback", "--yes")
    assert one_version(live) == 1


def test_retire_killed_at_every_step_drops_the_old_version_only(live: Environment) -> None:
    done(live, "build", "--yes")
    done(live, "promote", "--yes")
    for step in _END:
        if newest(live).state.open:
            kill_at(live, f"retire: {step}", "retire", "--now", "--yes")
        assert one_version(live) == 2
    if newest(live).state.open:
        assert "is retiring and can't be" in refused(live, "rollback", "--yes")
        done(live, "retire", "--now", "--yes")
    assert_only(live, 2)


def test_abort_killed_at_every_step_drops_the_new_version_only(live: Environment) -> None:
    done(live, "build", "--yes")
    for step in _END[1:]:
        if newest(live).state.open:
            kill_at(live, f"abort: {step}", "abort", "--yes")
        assert one_version(live) == 1
    if newest(live).state.open:
        assert "is held by replay" in refused(live, "build", "--yes")
        done(live, "abort", "--yes")
    assert_only(live, 1)
    assert done(live, "build", "--yes")["to_version"] == 3


def test_a_loader_killed_at_every_step_loses_nothing(live: Environment) -> None:
    for step in _BUILD:
        kill_at(live, step, "build", "--yes")
        stop_loader(live, signal.SIGKILL)
        start_loader(live)
    done(live, "build", "--yes")
    done(live, "verify")
    for command, verb, version in (("promote", "promote", 2), ("rollback", "roll back", 1)):
        for step in _SWITCH:
            kill_at(live, f"{verb}: {step}", command, "--yes")
            stop_loader(live, signal.SIGKILL)
            start_loader(live)
        done(live, command, "--yes")
        assert one_version(live) == version
    assert_whole(live, 1)
    assert_whole(live, 2)


def one_version(env: Environment) -> int:
    """Return the version that all public names show; they must agree."""
    versions = set(shown(env).values())
    assert len(versions) == 1
    return versions.pop()


def assert_whole(env: Environment, version: int) -> None:
    """Assert that the tables of `version` hold each event of the sample once."""
    events_loaded(env, version)
    database = env.settings.database
    count = rows(env, f"SELECT count() FROM {database}.page_views_per_minute_v{version} FINAL")
    assert count == [(5_458,)]


def assert_only(env: Environment, version: int) -> None:
    """Assert that nothing of any other version is left: jobs, topics, tables, leases."""
    assert_whole(env, version)
    suffix = "" if version == 1 else f".v{version}"
    assert live_jobs(env) == [f"page_views{suffix}"]
    prefix = env.settings.topic_prefix
    topics = {t for t in topic_names(env.settings.kafka_client) if t.startswith(f"{prefix}views.")}
    assert topics == {f"{prefix}views.{view}.v{version}" for view in ALL}
    tables = rows(
        env,
        "SELECT name FROM system.tables WHERE match(name, '_v[0-9]+$')"
        f" AND database = '{env.settings.database}'",
    )
    assert {name for (name,) in tables} == {f"{view}_v{version}" for view in ALL}
    with control(env) as found:
        assert found.leases() == []


def live_jobs(env: Environment) -> list[str]:
    """Return the names of the namespace's jobs that run, without its prefix."""
    prefix = f"{env.settings.namespace}."
    jobs = Cluster(env.settings.flink).jobs()
    return sorted(
        job.name.removeprefix(prefix)
        for job in jobs
        if job.name.startswith(prefix) and job.state in LIVE_STATES
    )


def test_a_taskmanager_killed_at_every_step_of_a_build_loses_nothing(
    live: Environment, stack: Stack
) -> None:
    for step in _BUILD[:3]:
        process = start(live, "replay", "build", "--yes")
        wait_for(partial(last_step, live), 120, f"the step {step}", until=partial(eq, step))
        pid = stack.wait_healthy("taskmanager").pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        stack.wait_healthy("taskmanager", other_than=pid)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
    assert done(live, "build", "--yes")["state"] == "built"
    assert done(live, "verify")["unexplained"] == 0
    assert_whole(live, 2)
    assert live_jobs(live) == ["page_views", "page_views.v2"]


def last_step(env: Environment) -> str:
    """Return the step that the newest replay began last."""
    return [entry.step for entry in journal(env) if entry.state == "started"][-1]
