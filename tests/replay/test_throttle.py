"""A rebuild gives way to a live job that falls behind, and speeds up when that has caught up.

The lag is a real one: Kafka holds the live job's own consumers back, as a slow sink would.
"""

from __future__ import annotations

import signal
import time
from functools import partial
from typing import Any

import pytest

from jobs.status import read_offsets
from replay.quota import (
    consumer_ids,
    free_consumers,
    free_groups,
    limit_consumers,
    limited_consumers,
)
from tests import datasets
from tests.harness import (
    Environment,
    create_topic,
    produce,
    register,
    start_loader,
    submit_page_views,
    wait_for,
)
from tests.oracle import judge
from tests.replay.running import done, journal, start
from tests.settling import wait_for_rows

pytestmark = pytest.mark.long

RATE, MOST_LAG, EVENTS = 1_000, 20_000, 150_000


def test_a_rebuild_slows_down_while_the_live_job_lags(empty: Environment) -> None:
    env = empty
    traffic = datasets.dense_traffic(register(env, datasets.V1), events=EVENTS)
    create_topic(env)
    came = produce(env, traffic[:2_000])
    submit_page_views(env)
    start_loader(env)
    wait_for_rows(env, judge(came, env.registered), 240)
    live = consumer_ids(f"kappa-{env.job_name}", env.settings.parallelism)
    limit_consumers(env.settings, live, 1_024)
    came += produce(env, traffic[2_000:])

    bounds = ("--max-rate", str(RATE), "--max-live-lag", str(MOST_LAG))
    build = start(env, "replay", "build", "--yes", *bounds)
    try:
        slowed = wait_for(partial(paces, env), 240, "it slows down")[0]
        assert slowed["live_lag"] > MOST_LAG
        assert slowed["limit"] <= RATE / 2
        wait_for(partial(rate, env), 120, "it reads slower", until=lambda now: now < 0.75 * RATE)
        assert read(env) < EVENTS
        assert paces(env)[-1]["limit"] <= RATE / 2
        free_consumers(env.settings, live)
        wait_for(
            lambda: paces(env)[-1],
            240,
            "the live job has caught up, and it reads as fast as it was asked to",
            until=lambda last: last["limit"] == RATE and last["live_lag"] <= MOST_LAG / 2,
        )
        assert read(env) < EVENTS
    finally:
        build.send_signal(signal.SIGKILL)
        build.communicate(timeout=30)

    # Without a limit it goes on, and what the killed command left in Kafka is gone.
    before = len(paces(env))
    done(env, "build", "--yes")
    assert len(paces(env)) == before
    done(env, "promote", "--yes")
    wait_for_rows(env, judge(came, env.registered), 240)


def paces(env: Environment) -> list[dict[str, Any]]:
    """Return what the rebuild noted at each change of its pace."""
    return [dict(entry.detail) for entry in journal(env) if entry.step == "pace"]


def read(env: Environment) -> int:
    """Return how many events the rebuild has read."""
    offsets = read_offsets(env.settings, f"kappa-{env.job_name}.v2", env.stream.topic)
    return sum(offsets.values())


def rate(env: Environment) -> float:
    """Return how many events a second the rebuild reads, over a third of a minute."""
    began, before = time.monotonic(), read(env)
    wait_for(lambda: time.monotonic() - began, 60, "a third of a minute", until=lambda s: s > 20)
    return (read(env) - before) / (time.monotonic() - began)


def test_limits_that_a_crash_left_are_found_by_their_group_and_taken_away(
    empty: Environment,
) -> None:
    settings, group = empty.settings, f"kappa-{empty.settings.namespace}.page_views.v2"
    # As many as its job had subtasks then; the others are another version's and another job's.
    left = consumer_ids(group, 3)
    others = [f"{group}2-0", f"{group}-arrivals-0", f"kappa-{empty.settings.namespace}.orders-0"]
    limit_consumers(settings, [*left, *others], 1_000_000)
    assert limited_consumers(settings, [group]) == left
    free_groups(settings, [group])
    assert limited_consumers(settings, [group]) == []
    groups = [other.removesuffix("-0") for other in others]
    assert limited_consumers(settings, groups) == sorted(others)
    free_groups(settings, groups)
    assert limited_consumers(settings, groups) == []
