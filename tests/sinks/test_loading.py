"""View topics into ClickHouse, on the real stack: exact rows, whatever happens on the way."""

from __future__ import annotations

import os
import random
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from deploy.stack import Stack
from schemas.framing import frame
from schemas.topics import delete_consumer_groups, delete_topics
from sinks.batches import Limits
from sinks.clickhouse import ClickHouse
from sinks.lag import LagReader
from sinks.loader import group_of
from sinks.metrics import LoaderMetrics
from sinks.rows import BadRecord
from tests.harness import wait_for
from tests.sinks.loading import Gate, Row, Sandbox
from tests.sinks.samples import COUNTS, WIDER

PLACE = {"topic": "events.page_views", "partition": "0", "timestamp": "1714521600000"}
SMALL = Limits(batch_bytes=100_000, batch_seconds=0.05, longest_pause_seconds=0.5)


def many(count: int, revisions: int = 1) -> list[Row]:
    """Return rows of `count` keys, each as often as it has revisions; the last one counts."""
    return [
        (f"/{key % 97}", key, key * 10 + revision)
        for revision in range(revisions)
        for key in range(count)
    ]


def newest(rows: list[Row]) -> list[Row]:
    """Return the last revision of each key, in the order that `Sandbox.counts` has."""
    last = {(page, minute): views for page, minute, views in rows}
    return sorted((page, minute, views) for (page, minute), views in last.items())


def test_the_rows_of_a_view_topic_are_all_there_and_as_written(sandbox: Sandbox) -> None:
    topic = sandbox.topic()
    sandbox.create(topic)
    sandbox.write(topic, [("/a", 1, 3), ("/b", 1, 4), ("/a", 2, 5)])
    with sandbox.loader():
        sandbox.wait_until_loaded()
    assert sandbox.counts() == [("/a", 1, 3), ("/a", 2, 5), ("/b", 1, 4)]


def test_a_later_revision_replaces_a_row_in_the_same_batch_and_in_another(
    sandbox: Sandbox,
) -> None:
    topic = sandbox.topic()
    sandbox.create(topic)
    sandbox.write(topic, [("/a", 1, 3), ("/a", 1, 4), ("/b", 1, 1)])
    with sandbox.loader():
        sandbox.wait_until_loaded()
        assert sandbox.counts() == [("/a", 1, 4), ("/b", 1, 1)]
        sandbox.write(topic, [("/b", 1, 2)])
        sandbox.wait_until_loaded()
    assert sandbox.counts() == [("/a", 1, 4), ("/b", 1, 2)]


def test_rows_of_years_fit_into_one_batch(sandbox: Sandbox) -> None:
    topic = sandbox.topic()
    sandbox.create(topic)
    months = [("/a", month * 60 * 24 * 31, month) for month in range(400)]
    sandbox.write(topic, months)
    with sandbox.loader():
        sandbox.wait_until_loaded()
    assert sandbox.counts() == months


def test_rows_of_an_open_or_aborted_transaction_never_appear(sandbox: Sandbox) -> None:
    topic = sandbox.topic()
    sandbox.create(topic, partitions=1)
    sandbox.write(topic, [("/a", 1, 1)])
    with sandbox.loader():
        with sandbox.transaction(commit=False) as producer:
            sandbox.send(producer, topic, [("/a", 1, 99), ("/ghost", 1, 1)])
            sandbox.wait_until_loaded()
            assert sandbox.counts() == [("/a", 1, 1)]
        sandbox.write(topic, [("/b", 1, 2)])
        sandbox.wait_until_loaded()
    assert sandbox.counts() == [("/a", 1, 1), ("/b", 1, 2)]


def test_a_view_without_rows_has_a_table_and_a_public_name(sandbox: Sandbox) -> None:
    sandbox.create(sandbox.topic())
    with sandbox.loader():
        assert wait_for(sandbox.counts, 60, "the view can be asked", lambda rows: True) == []
        sandbox.write(sandbox.topic(), [("/a", 1, 3)])
        sandbox.wait_until_loaded()
        sandbox.create(sandbox.topic(2))
        count = "SELECT count() FROM system.tables WHERE name = 'counts_v2' AND database = "
        database = f"'{sandbox.settings.database}'"
        wait_for(lambda: sandbox.rows(count + database), 60, "a table", lambda n: n == [(1,)])
    assert sandbox.counts() == [("/a", 1, 3)]


def test_a_topic_that_is_created_later_is_found(sandbox: Sandbox) -> None:
    with sandbox.loader():
        for version, view in ((1, "counts"), (1, "others")):
            topic = sandbox.topic(version, view)
            sandbox.create(topic)
            sandbox.write(topic, [("/a", 1, version)])
            wait_for(
                lambda view=view: sandbox.rows(f"SELECT page, views FROM {view}"),
                10,
                f"the rows of {topic}",
            )


def test_a_rebuild_does_not_take_the_public_name(sandbox: Sandbox) -> None:
    for version in (2, 1):
        sandbox.create(sandbox.topic(version))
        sandbox.write(sandbox.topic(version), [("/a", 1, version)])
    with sandbox.loader():
        sandbox.wait_until_loaded()
    assert sandbox.counts() == [("/a", 1, 1)]
    assert sandbox.rows("SELECT views FROM counts_v2 FINAL") == [(2,)]


def test_rows_of_two_schemas_in_one_topic_are_all_loaded(sandbox: Sandbox) -> None:
    topic = sandbox.topic()
    sandbox.create(topic, COUNTS)
    sandbox.write(topic, [("/a", 1, 1)], COUNTS)
    first = sandbox.ids[topic]
    sandbox.create(topic, WIDER)
    sandbox.write(topic, [("/b", 1, 2)], WIDER)
    sandbox.ids[topic] = first
    sandbox.write(topic, [("/c", 1, 3)], COUNTS)
    with sandbox.loader():
        sandbox.wait_until_loaded()
    found = sandbox.rows("SELECT page, views, bots FROM counts_v1 FINAL ORDER BY page")
    assert found == [("/a", 1, None), ("/b", 2, 0), ("/c", 3, None)]


def test_a_retention_that_is_declared_anew_reaches_the_table(sandbox: Sandbox) -> None:
    topic, times = sandbox.topic(), {"type": "long", "logicalType": "timestamp-millis"}
    # The year 2100: no row of this test is old.
    ends = {"name": "window_end", "type": times, "default": 4_102_444_800_000}
    for page, retention, seconds in (("/a", 60_000, 60), ("/b", None, 0), ("/c", 120_000, 120)):
        schema = {**COUNTS, "fields": [*COUNTS["fields"], ends], "retention_ms": retention}
        sandbox.create(topic, schema)
        sandbox.write(topic, [(page, 1, 1)], schema)
        with sandbox.loader():
            sandbox.wait_until_loaded()
        assert seconds_kept(sandbox) == [seconds] * bool(seconds)
    # Rows of all three come in one batch now.
    drop_table(sandbox)
    with sandbox.loader():
        wait_for_rows(sandbox, [("/a", 1, 1), ("/b", 1, 1), ("/c", 1, 1)])
    assert seconds_kept(sandbox) == [120]


def test_a_stopped_loader_commits_and_leaves_the_group(sandbox: Sandbox) -> None:
    topic = sandbox.topic()
    sandbox.create(topic)
    sandbox.write(topic, many(5000))
    with sandbox.process() as process:
        wait_for(sandbox.counts, 60, "the first rows")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    # What is not committed is not loaded either, but for the transaction's end in each partition.
    missing = 5000 - len(sandbox.counts())
    assert missing <= sandbox.lag() <= missing + 2
    with sandbox.loader():
        # Whoever left without a word would hold the partitions for the session timeout.
        sandbox.wait_until_loaded(5)
    assert sandbox.counts() == newest(many(5000))


def test_a_killed_loader_loses_nothing_and_doubles_nothing(sandbox: Sandbox) -> None:
    topic = sandbox.topic()
    sandbox.create(topic)
    rows = many(20_000, revisions=3)
    goals = sorted(random.Random(7).sample(range(len(rows) // 2), 3))
    with sandbox.writing(topic, rows, step=500):
        for goal in goals:
            with sandbox.process() as process:
                wait_for(
                    lambda: sandbox.rows("SELECT max(_revision) FROM counts_v1"),
                    60,
                    f"a row at offset {goal // 2}",
                    until=lambda found, goal=goal: found[0][0] >= goal // 2,
                )
                process.send_signal(signal.SIGKILL)
    assert sandbox.lag() > 0
    with sandbox.loader():
        sandbox.wait_until_loaded()
    assert sandbox.counts() == newest(rows)


def test_a_batch_that_is_loaded_twice_counts_once(sandbox: Sandbox) -> None:
    topic = sandbox.topic()
    sandbox.create(topic)
    rows = many(100, revisions=2)
    sandbox.write(topic, rows)
    with sandbox.loader():
        sandbox.wait_until_loaded()
    forget_offsets(sandbox)
    with sandbox.loader():
        sandbox.wait_until_loaded()
    assert sandbox.rows("SELECT count() FROM counts_v1")[0][0] > 0
    assert sandbox.counts() == newest(rows)


def test_two_loaders_share_the_partitions(sandbox: Sandbox) -> None:
    topic = sandbox.topic()
    sandbox.create(topic, partitions=4)
    rows = many(10_000, revisions=2)
    sandbox.write(topic, rows[:5000])
    with sandbox.loader(SMALL):
        wait_for(sandbox.counts, 60, "the first rows")
        with sandbox.loader(SMALL):
            sandbox.write(topic, rows[5000:15_000])
            sandbox.wait_until_loaded()
        sandbox.write(topic, rows[15_000:])
        sandbox.wait_until_loaded()
    assert sandbox.counts() == newest(rows)


def test_a_clickhouse_that_is_away_is_waited_for(sandbox: Sandbox) -> None:
    topic = sandbox.topic()
    sandbox.create(topic)
    gate = Gate(sandbox.settings.clickhouse_http_port)
    rows = many(3000, revisions=2)
    with sandbox.loader(SMALL, clickhouse_port=gate.port) as loader:
        sandbox.write(topic, rows[:2000])
        wait_for(sandbox.counts, 60, "the first rows")
        gate.close()
        sandbox.write(topic, rows[2000:])
        before = sandbox.counts()
        assert sandbox.lag() > 0
        gate.open()
        sandbox.wait_until_loaded()
        assert loader.is_alive()
    gate.close()
    assert len(before) <= 3000
    assert sandbox.counts() == newest(rows)


def test_a_loader_may_start_before_clickhouse_and_registry(sandbox: Sandbox) -> None:
    topic = sandbox.topic()
    sandbox.create(topic)
    sandbox.write(topic, [("/a", 1, 1)])
    clickhouse = Gate(sandbox.settings.clickhouse_http_port)
    registry = Gate(sandbox.settings.port(81))
    clickhouse.close()
    registry.close()
    address = f"http://127.0.0.1:{registry.port}/apis/ccompat/v7"
    with sandbox.loader(SMALL, clickhouse_port=clickhouse.port, registry_url=address):
        clickhouse.open()
        wait_for(lambda: members(sandbox), 20, "the loader joins its group")
        assert sandbox.lag() > 0
        registry.open()
        sandbox.wait_until_loaded()
    clickhouse.close()
    registry.close()
    assert sandbox.counts() == [("/a", 1, 1)]


def test_a_dropped_table_is_loaded_again_from_the_start(sandbox: Sandbox) -> None:
    topic = sandbox.topic()
    sandbox.create(topic)
    rows = many(500)
    sandbox.write(topic, rows[:400])
    with sandbox.loader():
        sandbox.wait_until_loaded()
        drop_table(sandbox)
        wait_for_rows(sandbox, rows[:400])
        drop_table(sandbox)
        sandbox.write(topic, rows[400:])
        wait_for_rows(sandbox, rows)
    drop_table(sandbox)
    with sandbox.loader():
        wait_for_rows(sandbox, rows)


def test_a_record_that_is_no_row_is_named_and_holds_up_no_other_topic(sandbox: Sandbox) -> None:
    topic, other = sandbox.topic(), sandbox.topic(view="others")
    number = sandbox.create(topic, partitions=1)
    sandbox.create(other)
    sandbox.write(topic, [("/a", 1, 1)])
    with sandbox.transaction() as producer:
        producer.produce(topic, key=b"[]", value=frame(number, b"\x01"))
    with complaining(sandbox) as words:
        assert f"topic {topic}, partition 0, offset 2: the body" in words
        sandbox.write(other, [("/b", 2, 7)])
        reader, group = LagReader(sandbox.settings.kafka_client), group_of(sandbox.settings)
        wait_for(
            lambda: reader.loader(group, sandbox.settings.topic_prefix, only=[other]),
            60,
            "the other topic is loaded",
            until=lambda lags: not any(one.lag for one in lags),
        )
        assert sandbox.rows("SELECT page, views FROM others") == [("/b", 7)]
    with pytest.raises(BadRecord, match="offset 2: the body"), sandbox.loader() as loading:
        loading.join(60)


def test_a_schema_that_the_registry_does_not_know_is_named(sandbox: Sandbox) -> None:
    topic = sandbox.topic()
    sandbox.create(topic, partitions=1)
    with sandbox.transaction() as producer:
        producer.produce(topic, key=b"[]", value=frame(123_456, b"\x01"))
    with complaining(sandbox) as words:
        assert f"topic {topic}, partition 0, offset 0: schema id 123456 is not in" in words


def test_records_that_are_gone_unread_are_not_passed_over(sandbox: Sandbox) -> None:
    dead = sandbox.create_raw("dlq.page_views")
    write_dead_letters(sandbox, dead, ["empty"])
    with sandbox.loader():
        sandbox.wait_until_loaded()
    write_dead_letters(sandbox, dead, ["empty", "empty"])
    admin = AdminClient(sandbox.settings.kafka_client)
    (cut,) = admin.delete_records([TopicPartition(dead, 0, 2)]).values()
    cut.result(30)
    with complaining(sandbox) as words:
        assert f"topic {dead}, partition 0 has no record at offset 1 any more" in words
        assert "drop table dead_letters_loaded" in words


@pytest.mark.parametrize("count", [200, 600])
def test_a_view_topic_that_was_created_anew_waits_for_a_new_table(
    sandbox: Sandbox, count: int
) -> None:
    topic = sandbox.topic()
    sandbox.create(topic, partitions=1)
    sandbox.write(topic, many(300))
    with sandbox.loader():
        sandbox.wait_until_loaded()
    delete_topics(sandbox.settings.kafka_client, [topic])
    sandbox.create(topic, partitions=1)
    sandbox.write(topic, many(count))
    with complaining(sandbox) as words:
        assert f"topic {topic}, partition 0 has no record at offset 299 any more" in words
        assert "drop table counts_v1" in words
        drop_table(sandbox)
        wait_for_rows(sandbox, many(count))


def test_a_lost_group_loads_a_whole_topic_once_more(sandbox: Sandbox) -> None:
    topic = sandbox.topic()
    sandbox.create(topic, partitions=4)
    rows = many(300, revisions=2)
    sandbox.write(topic, rows)
    with sandbox.loader():
        sandbox.wait_until_loaded()
    delete_consumer_groups(sandbox.settings.kafka_client, [group_of(sandbox.settings)])
    assert sandbox.lag() > 0
    with sandbox.loader():
        sandbox.wait_until_loaded()
    assert sandbox.counts() == newest(rows)


def test_dead_letters_and_late_events_can_be_asked_for(sandbox: Sandbox) -> None:
    dead, late = sandbox.create_raw("dlq.page_views"), sandbox.create_raw("late.page_views")
    write_dead_letters(sandbox, dead, ["empty", "bad_magic", "bad_magic"])
    window = {"window_start": "1714521600000", "window_end": "1714521660000"}
    producer = Producer(sandbox.settings.kafka_client)
    producer.produce(late, value=b"late", key=None, headers={**PLACE, "offset": "9", **window})
    producer.flush()
    for _ in range(2):
        metrics = LoaderMetrics()
        with sandbox.loader(metrics=metrics):
            sandbox.wait_until_loaded()
        assert letters_counted(metrics) == {"empty": 1.0, "bad_magic": 2.0, "late": 1.0}
        # The same records once more, as after a crash before the commit.
        forget_offsets(sandbox)
    assert sandbox.rows(
        "SELECT reason, count() FROM dead_letters GROUP BY reason ORDER BY reason"
    ) == [("bad_magic", 2), ("empty", 1)]
    assert sandbox.rows(
        "SELECT offset, isNull(value), hex(ifNull(value, '')), key FROM dead_letters "
        "ORDER BY offset"
    ) == [(0, 1, "", "k"), (1, 0, "FF00", "k"), (2, 0, "FF00", "k")]
    assert sandbox.rows(
        "SELECT stream, version, offset, value, toString(window_end) FROM late_events"
    ) == [("page_views", 1, 9, "late", "2024-05-01 00:01:00.000")]


def test_no_dead_letter_is_an_answer_too(sandbox: Sandbox) -> None:
    sandbox.create_raw("dlq.page_views")
    sandbox.create_raw("late.page_views")
    with sandbox.loader():
        for table in ("dead_letters", "late_events"):
            query = f"SELECT count() FROM {table}"
            assert wait_for(lambda query=query: sandbox.rows(query), 20, query) == [(0,)]


def test_a_broker_that_dies_is_waited_for(sandbox: Sandbox, stack: Stack) -> None:
    topic = sandbox.topic()
    sandbox.create(topic)
    rows = many(2000, revisions=2)
    with sandbox.loader(SMALL) as loader:
        sandbox.write(topic, rows[:3000])
        (broker,) = (part.pid for part in stack.status() if part.name == "kafka")
        assert broker is not None
        os.kill(broker, signal.SIGKILL)
        stack.wait_healthy("kafka", 60, other_than=broker)
        sandbox.write(topic, rows[3000:])
        sandbox.wait_until_loaded()
        assert loader.is_alive()
    assert sandbox.counts() == newest(rows)


def letters_counted(metrics: LoaderMetrics) -> dict[str, float]:
    """Return how many letters were counted, by reason; late events are called late."""
    return {
        sample.labels.get("reason", "late"): sample.value
        for family in metrics.registry.collect()
        if family.name in ("kappa_loader_dead_letters", "kappa_loader_late_events")
        for sample in family.samples
        if sample.name.endswith("_total") and sample.value
    }


def write_dead_letters(sandbox: Sandbox, topic: str, reasons: list[str]) -> None:
    """Write one dead letter for each of `reasons` to partition 0, at the offsets that follow."""
    producer = Producer(sandbox.settings.kafka_client)
    for offset, reason in enumerate(reasons, start=sandbox.end(topic)):
        headers = {"offset": str(offset), "reason": reason, "detail": "", "schema_id": ""}
        value = None if reason == "empty" else b"\xff\x00"
        producer.produce(topic, value=value, key=b"k", partition=0, headers={**PLACE, **headers})
    producer.flush()


def seconds_kept(sandbox: Sandbox) -> list[int]:
    """Return for how long the table of `counts` keeps rows, nothing where that is for ever."""
    [(engine,)] = sandbox.rows(
        "SELECT engine_full FROM system.tables "
        "WHERE database = currentDatabase() AND name = 'counts_v1'"
    )
    return [int(found) for found in re.findall(r"toIntervalSecond\((\d+)\)", engine)]


@contextmanager
def complaining(sandbox: Sandbox) -> Iterator[str]:
    """Run a loader, and yield what it says of a topic that it can't load; it goes on."""
    with sandbox.process() as process:
        deadline = threading.Timer(60, process.kill)
        deadline.start()
        assert process.stderr is not None
        yield next((line for line in process.stderr if "is not loaded on" in line), "")
        deadline.cancel()
        assert process.poll() is None


def wait_for_rows(sandbox: Sandbox, rows: list[Row]) -> None:
    """Wait until people see the newest of `rows`, and nothing else."""
    wait_for(sandbox.counts, 30, "all rows", until=lambda found: found == newest(rows))


def members(sandbox: Sandbox) -> int:
    """Return how many loaders the namespace's group has."""
    group = group_of(sandbox.settings)
    admin = AdminClient(sandbox.settings.kafka_client)
    (answer,) = admin.describe_consumer_groups([group]).values()
    return len(answer.result(timeout=10).members)


def drop_table(sandbox: Sandbox) -> None:
    """Drop what is loaded of the view."""
    clickhouse = ClickHouse(sandbox.settings)
    clickhouse.command("DROP TABLE counts_v1")
    clickhouse.close()


def forget_offsets(sandbox: Sandbox) -> None:
    """Put the group's offsets back to the start, as if nothing had been committed."""
    group = group_of(sandbox.settings)
    lags = LagReader(sandbox.settings.kafka_client).loader(group, sandbox.settings.topic_prefix)
    consumer = Consumer({**sandbox.settings.kafka_client, "group.id": group})
    places = [TopicPartition(one.topic, one.partition, 0) for one in lags]
    consumer.commit(offsets=places, asynchronous=False)
    consumer.close()
