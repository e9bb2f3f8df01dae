"""A job of an aborted replay that wakes, or comes late, does nothing to the replay after it."""

from __future__ import annotations

import os
import signal

import pytest

from deploy.stack import Stack
from jobs.status import read_offsets
from jobs.submit import flink_name, submit
from replay.quota import consumer_ids, limited_consumers
from schemas.topics import topic_names
from tests import datasets
from tests.harness import (
    PANE_VIEWS,
    Environment,
    create_topic,
    produce,
    register,
    start_loader,
    submit_page_views,
    wait_for,
)
from tests.replay.running import (
    assert_whole,
    done,
    judged,
    live_jobs,
    newest,
    one_version,
    start,
)
from tests.settling import wait_for_rows

pytestmark = pytest.mark.long

EVENTS, RATE = 40_000, 500


def test_what_an_aborted_replay_left_does_nothing_to_the_next(
    empty: Environment, stack: Stack
) -> None:
    env = empty
    traffic = datasets.dense_traffic(
        register(env, datasets.V1), events=EVENTS, late_share=0.02, broken_share=0.01
    )
    create_topic(env)
    produce(env, traffic)
    submit_page_views(env)
    start_loader(env)
    wait_for_rows(env, judged(env), 300)

    pid = frozen_amid_a_build(env, stack)
    assert done(env, "abort", "--yes")["state"] == "aborted"
    assert live_jobs(env) == ["page_views"]
    assert limited_consumers(env.settings, [rebuilt(env)]) == []
    os.kill(pid, signal.SIGCONT)
    assert stack.wait_healthy("taskmanager", 300).pid == pid
    assert topics_of(env, 2) == []

    # And a submission of the aborted version that comes late, while the next one is built.
    submit(env.settings, "page_views", version=2, views=PANE_VIEWS, restore="none")
    done(env, "build", "--yes")
    assert newest(env).to_version == 3
    done(env, "promote", "--yes")
    assert live_jobs(env) == ["page_views", "page_views.v2", "page_views.v3"]
    assert one_version(env) == 3
    assert_whole(env, (1, 3))
    wait_for_rows(env, judged(env), 300)


def frozen_amid_a_build(env: Environment, stack: Stack) -> int:
    """Freeze the TaskManager while a rebuild reads, its command killed; return its process id."""
    build = start(env, "replay", "build", "--yes", "--max-rate", str(RATE))
    group = rebuilt(env)
    wait_for(
        lambda: sum(read_offsets(env.settings, group, env.stream.topic).values()),
        300,
        "the rebuild reads",
    )
    build.send_signal(signal.SIGKILL)
    build.communicate(timeout=30)
    assert limited_consumers(env.settings, [group]) == consumer_ids(group, 1)
    assert sum(read_offsets(env.settings, group, env.stream.topic).values()) < EVENTS
    pid = stack.wait_healthy("taskmanager", 300).pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    return pid


def rebuilt(env: Environment) -> str:
    """Return the consumer group of the version that is built."""
    return f"kappa-{flink_name(env.settings, 'page_views', 2)}"


def topics_of(env: Environment, version: int) -> list[str]:
    """Return the topics of views at `version`."""
    mine = f"{env.settings.topic_prefix}views."
    names = topic_names(env.settings.kafka_client)
    return sorted(t for t in names if t.startswith(mine) and t.endswith(f".v{version}"))
