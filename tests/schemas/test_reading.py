"""Committed events between offsets, whatever transactions left among them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from confluent_kafka import Producer

from deploy.settings import Settings
from schemas.reading import event_ends, is_event, read_committed
from schemas.streams import Stream
from schemas.topics import KafkaUnavailable, end_offsets, ensure_events_topic
from tests.harness import end_transaction
from udfs.kafka_letters import EventsIn
from udfs.kafka_time import NewestBefore

HOUR = 3_600_000
NOON = 1_709_294_400_000


def transaction(
    settings: Settings,
    producer: Producer,
    stream: Stream,
    events: Sequence[tuple[int, int]],
    *,
    commit: bool = True,
) -> None:
    """Write (partition, timestamp) of `events` in one transaction, and end it."""
    producer.begin_transaction()
    for partition, timestamp in events:
        producer.produce(stream.topic, b"x", partition=partition, timestamp=timestamp)
    assert producer.flush(20) == 0
    end_transaction(producer, settings.kafka_client, stream.topic, commit=commit)


@pytest.fixture
def producer(settings: Settings, stream: Stream) -> Producer:
    """A transactional producer, with the topic there."""
    ensure_events_topic(settings.kafka_client, stream)
    made = Producer({**settings.kafka_client, "transactional.id": stream.topic})
    made.init_transactions(20)
    return made


def test_event_ends_leave_out_markers_and_aborted_events(
    settings: Settings, stream: Stream, producer: Producer
) -> None:
    producer = Producer({**settings.kafka_client, "transactional.id": stream.topic})
    producer.init_transactions(20)
    for partitions, commit in ((0, 0, 1), True), ((0, 2, *[1] * 30), False), ((0,), False):
        producer.begin_transaction()
        for partition in partitions:
            producer.produce(stream.topic, b"x", partition=partition)
        assert producer.flush(20) == 0
        end_transaction(producer, settings.kafka_client, stream.topic, commit=commit)
    assert event_ends(settings.kafka_client, stream.topic) == {0: 2, 1: 1, 2: 0, 3: 0}
    ends = end_offsets(settings.kafka_client, stream.topic)
    # Each transaction leaves one marker in each partition that it wrote to.
    assert ends == {0: 2 + 1 + 1 + 1 + 1 + 1, 1: 1 + 1 + 30 + 1, 2: 1 + 1, 3: 0}


def test_reading_keeps_to_its_ranges_and_passes_over_what_no_event_is(
    settings: Settings, stream: Stream, producer: Producer
) -> None:
    transaction(settings, producer, stream, [(0, NOON + n) for n in range(5)])
    transaction(settings, producer, stream, [(0, NOON + 9), (1, NOON)], commit=False)
    transaction(settings, producer, stream, [(0, NOON + 20), (1, NOON + 21)])
    kafka, topic = settings.kafka_client, stream.topic

    def read(**ranges: tuple[int, int]) -> list[tuple[int, int]]:
        wanted = {int(name[1:]): bounds for name, bounds in ranges.items()}
        found = [m for batch in read_committed(kafka, topic, wanted) for m in batch]
        return sorted((m.partition(), m.offset()) for m in found)

    # Partition 0: five events, marker, aborted event, marker, event, marker.
    assert read(p0=(0, 10)) == [*((0, n) for n in range(5)), (0, 8)]
    assert read(p0=(3, 8)) == [(0, 3), (0, 4)]
    assert read(p0=(4, 9), p1=(0, 4)) == [(0, 4), (0, 8), (1, 2)]
    assert read(p0=(2, 2)) == []
    there = [is_event(kafka, topic, 0, offset) for offset in range(10)]
    assert there == [True] * 5 + [False] * 3 + [True, False]
    assert EventsIn(kafka, topic)(0, 3, 9).tolist() == [3, 4, 8]
    with pytest.raises(KafkaUnavailable, match="partition 0 can't be read"):
        read(p0=(50, 60))


def test_the_newest_time_is_an_events_and_no_markers(
    settings: Settings, stream: Stream, producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("udfs.kafka_time._TAIL", 4)
    transaction(settings, producer, stream, [(0, NOON), (0, NOON + 7), (0, NOON + 3)])
    transaction(settings, producer, stream, [(0, NOON + HOUR)], commit=False)
    # Newer than all that follows, and older than the markers, which bear the time of now.
    transaction(settings, producer, stream, [(0, NOON + 5), (0, NOON + 99), *[(0, NOON + 8)] * 9])
    events = {0: 0, 1: 7, 2: 3, 6: 5, 7: 99, **dict.fromkeys(range(8, 17), 8)}
    newest = NewestBefore(settings.kafka_client, stream.topic)
    for offset in range(19):
        wanted = max((after for at, after in events.items() if at < offset), default=None)
        assert newest(0, offset) == (None if wanted is None else NOON + wanted), offset
    assert newest(1, 0) is None
