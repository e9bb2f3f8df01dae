"""A topic lost its first events; a rebuild from archive and topic has every row, and goes on."""

from __future__ import annotations

from functools import partial

import pytest

from jobs.cluster import Cluster
from jobs.state import state_folders
from jobs.submit import flink_name
from replay.restored import copy_topic
from schemas.topics import end_offsets, topic_names
from tests import datasets
from tests.archive.topics import delete_before, transaction
from tests.harness import (
    PANE_VIEWS,
    Environment,
    kappa,
    produce,
    read_topic,
    register,
    rows,
    start_loader,
    submit_page_views,
    wait_for,
)
from tests.oracle import Record, Verdict, judge
from tests.replay.running import done, kill_at, refused
from tests.settling import wait_for_rows

pytestmark = pytest.mark.long


@pytest.fixture
def events(env: Environment) -> tuple[list[Record], list[Record]]:
    """The events that came, and those still to come; of the first only the newest are left."""
    schema_id = register(env, datasets.V1)
    before, after = halves(datasets.late_events(schema_id))
    first, second = halves(before)
    came = produce(env, first)
    # As a transactional producer does: markers, and events that were taken back.
    transaction(env, second[: len(second) // 2])
    transaction(env, second[:40], commit=False)
    transaction(env, second[len(second) // 2 :])
    came = [message.record for message in read_topic(env, env.stream.topic)]
    assert len(came) == len(before)
    submit_page_views(env, (*PANE_VIEWS, "page_stats"))
    start_loader(env)
    wait_for_rows(env, judge(came, env.registered))
    assert kappa(env, "archive", "run")["added"] > len(came)
    more, after = halves(after)
    came += produce(env, more)
    ends = end_offsets(env.settings.kafka_client, env.stream.topic)
    archived = {
        one["partition"]: one["next"] for one in kappa(env, "archive", "status")["partitions"]
    }
    # Of the first partition the topic begins where the archive ends.
    delete_before(env, {part: archived[part] - (part * archived[part]) // 4 for part in ends})
    return came, after


def halves(records: list[Record]) -> tuple[list[Record], list[Record]]:
    """Return the first and the second half of each partition's records."""
    first, second = [], []
    for part in {record.partition for record in records}:
        own = [record for record in records if record.partition == part]
        first += own[: len(own) // 2]
        second += own[len(own) // 2 :]
    return first, second


def letters(env: Environment, topic: str) -> list[tuple[int, int]]:
    return sorted(
        (int(m.headers["partition"]), int(m.headers["offset"])) for m in read_topic(env, topic)
    )


def totals(env: Environment) -> list[tuple[object, ...]]:
    query = "SELECT page_id, views, errors FROM {}.page_stats ORDER BY page_id"
    return rows(env, query.format(env.settings.database))


def minutes(env: Environment) -> list[tuple[object, ...]]:
    query = (
        "SELECT page_id, sum(views), sum(errors) FROM {}.page_views_per_minute "
        "GROUP BY page_id ORDER BY page_id"
    )
    return rows(env, query.format(env.settings.database))


def assert_fates(env: Environment, verdict: Verdict) -> None:
    """Assert that version 2 has every row and late event of `verdict` once, and no other."""
    wait_for_rows(env, verdict)
    wait_for(
        partial(letters, env, env.stream.late_topic(2)),
        60,
        "each late event is set apart once",
        until=lambda found: found == sorted(verdict.late),
    )
    assert letters(env, env.stream.dead_letter_topic(2)) == sorted(verdict.dead)
    wait_for(
        partial(totals, env),
        60,
        "all-time figures of pages are those of all their minutes",
        until=lambda found: found == minutes(env),
    )


def test_a_replay_reads_archive_then_topic_and_goes_on(
    env: Environment, events: tuple[list[Record], list[Record]]
) -> None:
    came, to_come = events
    assert "--from-archive takes them from the archive" in refused(env, "build", "--yes")
    done(env, "run", "--from-archive", "--yes")
    verdict = judge(came, env.registered)
    assert len(verdict.late) > 10
    assert_fates(env, verdict)

    came += produce(env, to_come)
    verdict = judge(came, env.registered)
    assert_fates(env, verdict)
    assert copy_topic(env.stream, 2) not in topic_names(env.settings.kafka_client)
    # So that an upgrade refuses what its state does not fit.
    kept = state_folders(Cluster(env.settings.flink), flink_name(env.settings, "page_views", 2))[0]
    assert {*PANE_VIEWS, "page_stats"} <= (kept.layout() or {}).keys()


@pytest.mark.parametrize("step", ["restore", "read", "hand over", "drop copy"])
def test_a_replay_from_the_archive_goes_on_after_it_was_killed(
    env: Environment, events: tuple[list[Record], list[Record]], step: str
) -> None:
    came, to_come = events
    kill_at(env, step, "build", "--from-archive", "--yes")
    done(env, "run", "--from-archive", "--yes")
    came += produce(env, to_come)
    assert_fates(env, judge(came, env.registered))


def test_an_archive_that_ends_too_early_is_refused(
    env: Environment, events: tuple[list[Record], list[Record]]
) -> None:
    delete_before(env, end_offsets(env.settings.kafka_client, env.stream.topic))
    assert "holds every event up to offset" in refused(env, "build", "--from-archive", "--yes")
