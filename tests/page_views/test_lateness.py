"""Events beyond the allowed lateness are set apart, and every event has exactly one fate."""

from __future__ import annotations

import time

import pytest

from tests import datasets
from tests.harness import (
    Environment,
    create_topic,
    kappa,
    produce,
    read_topic,
    register,
    rows,
    start,
    start_loader,
    submit_page_views,
    view_rows,
    wait_for,
)
from tests.oracle import MINUTE, SITE, judge
from tests.settling import assert_status, late_letters, settle, wait_for_rows

IDLE_SECONDS = 5


def test_late_events_are_aggregated_within_the_lateness_and_set_apart_beyond_it(
    env: Environment,
) -> None:
    schema_id = register(env, datasets.V1)
    start(env)
    produce(env, datasets.late_events(schema_id))
    verdict = settle(env)
    assert len(verdict.late) > 50
    assert_status(env, verdict)

    table = f"{env.settings.database}.late_events"
    [(late,)] = wait_for(
        lambda: rows(env, f"SELECT count() FROM {table}"),
        30,
        "ClickHouse has every late event",
        until=lambda found: found[0][0] >= len(verdict.late),
    )
    assert late == len(verdict.late)


def test_late_events_get_the_same_verdict_when_all_lie_in_the_topic_beforehand(
    env: Environment,
) -> None:
    schema_id = register(env, datasets.V1)
    create_topic(env)
    produce(env, datasets.late_events(schema_id))
    start(env)
    settle(env)


@pytest.mark.parametrize("parallelism", [2, 4])
def test_what_a_partition_sends_after_it_was_idle_is_counted_or_set_apart(
    env: Environment, parallelism: int
) -> None:
    """With a source of its own no other partition tells of the time: what it sends is missed."""
    schema_id = register(env, datasets.V1)
    create_topic(env)
    options = {"idle_timeout_seconds": IDLE_SECONDS, "parallelism": parallelism}
    submit_page_views(env, options=options)
    start_loader(env)
    first, second = datasets.returning_partition(schema_id)
    produce(env, first)
    written = time.monotonic()
    verdict = settle(env)
    assert verdict.watermarks[0] < verdict.watermarks[1] - 30 * MINUTE
    idle = written + 2 * IDLE_SECONDS
    wait_for(lambda: time.monotonic() > idle, 30, "the partition counts as idle")

    returned = {record.place: record for record in produce(env, second)}
    # The job's watermark has left the partition behind, so each may be late; none is lost.
    wait_for(
        lambda: (
            sum(row.views for row in view_rows(env, SITE).values())
            + len(late_letters(env))
            + sum(events for *_, events in missed(env))
        ),
        60,
        "every event is counted, late or missed",
        until=lambda found: found == len(first) + len(second),
    )
    apart = set(late_letters(env))
    for partition, minute, begin, end, events in missed(env):
        places = {
            place
            for place, record in returned.items()
            if record.timestamp_ms // MINUTE * MINUTE == minute
            and place[0] == partition
            and begin <= place[1] <= end
        }
        assert len(places) == events
        assert not places & apart
        apart |= places
    assert apart <= returned.keys()
    assert bool(missed(env)) == (parallelism == 4)
    everything = [message.record for message in read_topic(env, env.stream.topic)]
    counted = judge([event for event in everything if event.place not in apart], env.registered)
    assert counted.late == {}
    wait_for_rows(env, counted)
    (status,) = [job for job in kappa(env, "status")["jobs"] if job["stream"] == env.stream.topic]
    assert status["missed"] == sum(events for *_, events in missed(env))
    assert status["in_flight"] == 0


def missed(env: Environment) -> list[tuple[int, int, int, int, int]]:
    """Return what the accounting tells of as missed: partition, minute, offsets, how many."""
    found = rows(
        env,
        "SELECT splitByChar('@', source_partition)[1], toUnixTimestamp(window_start) * 1000, "
        f"first_offset, last_offset, events FROM {env.settings.database}.page_views_accounting "
        "WHERE source_partition LIKE '%@%'",
    )
    return [(int(part), int(minute), a, b, events) for part, minute, a, b, events in found]
