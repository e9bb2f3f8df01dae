"""The copy that a rebuild reads: archive, then topic, each record at its own offset."""

from __future__ import annotations

import pytest
from confluent_kafka import Producer

from replay.archive import catch_up
from replay.archive_files import Archive, ArchiveFailed
from replay.restored import copy_topic, restore
from schemas.topics import KafkaUnavailable, end_offsets, topic_names
from tests.archive.topics import delete_before
from tests.harness import Environment, produce, read_topic
from tests.oracle import Record


def events(first: int, end: int, partition: int) -> list[Record]:
    return [Record(partition, -1, 1_000 + n, b"k%d" % n, b"v%d" % n) for n in range(first, end)]


def restored(env: Environment, limit: int | None = None) -> list[Record]:
    """Restore up to the topic's ends, or `limit` of each partition; return the copy's records."""
    kafka, topic = env.settings.kafka_client, env.stream.topic
    ends = end_offsets(kafka, topic, read_committed=True)
    pinned = {part: end if limit is None else min(end, limit) for part, end in ends.items()}
    copy = copy_topic(env.stream, 2)
    held = restore(kafka, topic, Archive(env.settings.archive, topic), copy, pinned)
    assert held == sum(pinned.values())
    return [message.record for message in read_topic(env, copy)]


def archive(env: Environment) -> None:
    topic = env.stream.topic
    catch_up(env.settings.kafka_client, topic, Archive(env.settings.archive, topic))


def test_the_copy_has_every_record_at_its_offset_and_a_second_run_goes_on(
    env: Environment,
) -> None:
    sent = produce(env, [*events(0, 30, 0), *events(0, 20, 2)])
    archive(env)
    sent += produce(env, [*events(30, 40, 0), *events(0, 5, 1)])
    delete_before(env, {0: 30, 2: 12})
    assert restored(env, limit=7) == sorted(
        (record for record in sent if record.offset < 7), key=lambda r: r.place
    )
    assert restored(env) == sorted(sent, key=lambda r: r.place)
    assert restored(env) == sorted(sent, key=lambda r: r.place)


def test_an_offset_without_an_event_is_refused_and_leaves_no_copy(env: Environment) -> None:
    produce(env, events(0, 3, 0))
    producer = Producer(
        {"bootstrap.servers": env.settings.kafka, "transactional.id": env.settings.namespace}
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(env.stream.topic, b"v", partition=0, timestamp=1)
    producer.commit_transaction(30)
    produce(env, events(3, 4, 0))
    archive(env)
    with pytest.raises(ArchiveFailed, match="offset 4 of partition 0 holds no event"):
        restored(env)
    assert copy_topic(env.stream, 2) not in topic_names(env.settings.kafka_client)


def test_events_that_are_nowhere_are_missed(env: Environment) -> None:
    produce(env, events(0, 5, 0))
    archive(env)
    produce(env, events(5, 10, 0))
    delete_before(env, {0: 8})
    with pytest.raises(KafkaUnavailable, match=r"partition 0 can't be read"):
        restored(env)
