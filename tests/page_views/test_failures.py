"""Processes killed in the middle leave no difference to the oracle."""

from __future__ import annotations

import os
import signal

import pytest

from deploy.stack import Stack
from jobs.cluster import Cluster
from tests import datasets
from tests.harness import (
    Environment,
    cancel_job,
    completed_checkpoints,
    failures,
    flink,
    kappa,
    produce,
    register,
    rows,
    start,
    start_loader,
    stop_loader,
    submit_page_views,
    wait_for,
)
from tests.oracle import SITE
from tests.settling import assert_status, settle


@pytest.fixture(scope="module")
def running(shared: Environment) -> Environment:
    register(shared, datasets.V1)
    start(shared)
    return shared


def schema_id(env: Environment) -> int:
    return min(env.registered)


def hours_later(hours: int) -> int:
    """Return a time of its own for each test's traffic, so that none of it is late for the last."""
    return datasets.EVENING + hours * datasets.HOUR


def seen(env: Environment) -> int:
    """Return how many events ClickHouse has counted; 0 before there is a table."""
    table = f"{env.settings.database}.{SITE}"
    [(exists,)] = rows(env, f"EXISTS TABLE {table}")
    return int(rows(env, f"SELECT sum(views) FROM {table}")[0][0]) if exists else 0


def test_a_loader_killed_in_the_middle_leaves_no_difference(running: Environment) -> None:
    traffic = datasets.dense_traffic(
        schema_id(running), events=20_000, late_share=0.02, start=hours_later(0)
    )
    produce(running, traffic[:12_000])
    wait_for(lambda: seen(running), 60, "some events are counted")
    stop_loader(running, signal.SIGKILL)
    produce(running, traffic[12_000:])
    start_loader(running)
    settle(running)


def test_a_taskmanager_killed_in_the_middle_leaves_no_difference(
    running: Environment, stack: Stack
) -> None:
    traffic = datasets.dense_traffic(
        schema_id(running),
        late_share=0.02,
        broken_share=0.01,
        start=hours_later(2),
        seed=7,
    )
    early, middle, rest = traffic[:25_000], traffic[25_000:40_000], traffic[40_000:]
    counted = seen(running)
    produce(running, early)
    wait_for(lambda: seen(running) > counted, 60, "some events are counted")
    before = completed_checkpoints(running)
    wait_for(lambda: completed_checkpoints(running) > before, 30, "a checkpoint completes")

    produce(running, middle)
    pid = stack.wait_healthy("taskmanager").pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    produce(running, rest[:10_000])
    stack.wait_healthy("taskmanager", other_than=pid)
    produce(running, rest[10_000:])

    verdict = settle(running, 120)
    assert failures(running) >= 1
    assert len(verdict.late) > 100
    assert len(verdict.dead) > 100
    assert_status(running, verdict)


def test_a_job_submitted_again_goes_on_where_it_was_cancelled(running: Environment) -> None:
    traffic = datasets.dense_traffic(
        schema_id(running), events=10_000, late_share=0.02, start=hours_later(4), seed=8
    )
    counted = seen(running)
    produce(running, traffic[:6_000])
    wait_for(lambda: seen(running) > counted, 60, "some events are counted")
    cancel_job(running)
    produce(running, traffic[6_000:])
    assert submit_page_views(running).restored_from
    assert_status(running, settle(running))


# As `tests/faults/test_each.py` shows with every change, in a job that has come a shorter way.
@pytest.mark.long
def test_a_jobmanager_killed_in_the_middle_leaves_no_difference(
    running: Environment, stack: Stack
) -> None:
    traffic = datasets.dense_traffic(
        schema_id(running), events=10_000, late_share=0.02, start=hours_later(6), seed=9
    )
    counted = seen(running)
    produce(running, traffic[:5_000])
    wait_for(lambda: seen(running) > counted, 60, "some events are counted")
    pid = stack.wait_healthy("jobmanager").pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    produce(running, traffic[5_000:])
    stack.wait_healthy("jobmanager", other_than=pid)
    assert_status(running, settle(running, 180))


@pytest.mark.parametrize(
    ("parallelism", "hours"), [(4, 8), pytest.param(1, 10, marks=pytest.mark.long)]
)
def test_an_upgraded_job_goes_on_from_its_savepoint_at_another_parallelism(
    running: Environment, parallelism: int, hours: int
) -> None:
    traffic = datasets.dense_traffic(
        schema_id(running), events=6_000, late_share=0.02, start=hours_later(hours), seed=hours
    )
    counted = seen(running)
    produce(running, traffic[:3_000])
    wait_for(lambda: seen(running) > counted, 60, "some events are counted")
    # Where a JobManager died, the job goes on under another id.
    before = Cluster(running.settings.flink).live_job(running.job_name)
    upgraded = kappa(running, "upgrade", "page_views", "--parallelism", str(parallelism))
    assert before is not None
    assert upgraded["stopped_job_id"] == before.id
    assert upgraded["started"]["restored_from"] == upgraded["savepoint"]
    running.job_id = upgraded["started"]["job_id"]
    produce(running, traffic[3_000:])
    assert_status(running, settle(running, 120))
    vertices = flink(running, f"/jobs/{running.job_id}")["vertices"]
    assert {vertex["parallelism"] for vertex in vertices} == {parallelism}
