"""Events that a topic drops while a rebuild reads it, and what the rows of those events are called.

The rebuild is held to so few events a second that some are dropped before it could read them.
"""

from __future__ import annotations

import pytest

from schemas.topics import begin_offsets, delete_records, end_offsets
from tests.harness import Environment
from tests.replay.running import REBUILT, done, newest, refused, start_up_to

pytestmark = pytest.mark.long


def test_a_rebuild_that_misses_events_stops_and_one_that_accepts_it_is_explained(
    live: Environment,
) -> None:
    env, kafka, topic = live, live.settings.kafka_client, live.stream.topic
    build = start_up_to(env, "read", "build", "--yes", "--max-rate", "50")
    try:
        ends = end_offsets(kafka, topic)
        delete_records(kafka, topic, {part: end // 2 for part, end in ends.items()})
        _, errors = build.communicate(timeout=120)
    finally:
        build.kill()
    assert build.returncode == 1, errors
    assert f"of {topic} lacks offsets" in errors
    assert "dropped since the replay was planned, and it would miss them" in errors
    assert newest(env).state == "building"
    done(env, "abort", "--yes")

    assert "does not begin at offset zero" in refused(env, "build", "--yes")
    planned = done(env, "build", "--yes", "--from-earliest")["plan"]
    assert planned["begin"]["page_views"] == {
        str(part): first for part, first in begin_offsets(kafka, topic).items()
    }
    report = done(env, "verify")
    assert report["unexplained"] == 0
    assert {view["view"] for view in report["views"]} == set(REBUILT)
    assert all(view["counts"]["explained"] for view in report["views"])
    causes = {one["cause"] for view in report["views"] for one in view["samples"]}
    assert all("dropped from the topic before version 3 read" in cause for cause in causes)
