"""Read late events and the events of chosen windows from Kafka, and write repaired rows to it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaException, Message, Producer

from replay.late import Event
from schemas.reading import first_at, is_event, read_committed
from schemas.topics import KafkaUnavailable, begin_offsets, end_offsets, kafka_error

Range = tuple[int, int, int]
"""Partition, first offset, and the offset after the last."""

_SECONDS = 30.0
# While a transaction is open, readers wait: one of a killed process must end soon.
_TRANSACTION_MS = 30_000

_BY_KEY = -1


@dataclass(frozen=True)
class RowRecord:
    """A row to write; without a partition it goes where Flink's sink would put its key."""

    topic: str
    partition: int | None
    key: bytes
    value: bytes


class EventsGone(Exception):
    """The events topic has lost the beginning of a window that is to be computed again."""


def late_events(kafka: Mapping[str, Any], topic: str, read: Mapping[int, int]) -> list[Event]:
    """Return the late events in `topic`, each once, of those before the offsets `read`."""
    whole = [
        (part, first, end)
        for part, end in end_offsets(kafka, topic, read_committed=True).items()
        if end > (first := begin_offsets(kafka, topic)[part])
    ]
    found: dict[tuple[int, int], Event] = {}
    for messages in _read(kafka, topic, whole):
        for message in messages:
            event = _late(message)
            if event.offset < read.get(event.partition, 0):
                found[event.place] = event
    return list(found.values())


def events_in(kafka: Mapping[str, Any], topic: str, ranges: list[Range]) -> Iterator[list[Event]]:
    """Yield the records of `topic` in `ranges`, some thousands at a time."""
    for messages in _read(kafka, topic, ranges):
        yield [
            Event(m.partition() or 0, m.offset() or 0, m.timestamp()[1], _bytes(m.value()))
            for m in messages
        ]


def ranges_of(
    kafka: Mapping[str, Any], topic: str, spans: list[tuple[int, int]], read: Mapping[int, int]
) -> list[Range]:
    """Return where the records of `spans` (epoch ms) stand, before the offsets `read`.

    Raises `EventsGone` where records of a span may have been dropped.
    """
    begin = begin_offsets(kafka, topic)
    with closing(Consumer({**kafka, "group.id": "kappa-repair", "log_level": 3})) as consumer:
        found = [
            (part, *_bounds(consumer, topic, part, span, end))
            for span in spans
            for part, end in read.items()
        ]
    # Where a transaction's marker is the first that is as new, events of the span may follow it.
    found = [
        (part, first, read[part])
        if end < read[part] and not is_event(kafka, topic, part, end)
        else (part, first, end)
        for part, first, end in found
    ]
    for part, first, end in found:
        if begin[part] > 0 and first <= begin[part] < end:
            raise EventsGone(
                f"{topic}, partition {part} begins at offset {begin[part]:,}, so events of the "
                "windows to repair may be gone; a repair needs all of them."
            )
    return _merged([one for one in found if one[1] < one[2]])


def _bounds(
    consumer: Consumer, topic: str, partition: int, span: tuple[int, int], read: int
) -> tuple[int, int]:
    offsets = []
    for moment in span:
        offset = first_at(consumer, topic, partition, max(moment, 0))
        offsets.append(read if offset is None else min(offset, read))
    return offsets[0], offsets[1]


def _merged(ranges: list[Range]) -> list[Range]:
    merged: list[Range] = []
    for part, first, end in sorted(ranges):
        if merged and merged[-1][0] == part and first <= merged[-1][2]:
            merged[-1] = (part, merged[-1][1], max(merged[-1][2], end))
        else:
            merged.append((part, first, end))
    return merged


def _read(kafka: Mapping[str, Any], topic: str, ranges: list[Range]) -> Iterator[list[Message]]:
    for part, first, end in ranges:
        yield from read_committed(kafka, topic, {part: (first, end)})


def _late(message: Message) -> Event:
    headers: dict[str, Any] = dict(message.headers() or ())
    partition, offset, timestamp = (
        int(headers[name]) for name in ("partition", "offset", "timestamp")
    )
    return Event(partition, offset, timestamp, _bytes(message.value()))


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


def write_rows(
    kafka: Mapping[str, Any],
    transactional_id: str,
    records: Collection[RowRecord],
) -> None:
    """Write `records` in one transaction: all of them or none."""
    producer = Producer(
        {
            **kafka,
            "transactional.id": transactional_id,
            "transaction.timeout.ms": _TRANSACTION_MS,
            # Java's clients, of which Flink's sink is one, place a key so.
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
            "log_level": 3,
        }
    )
    try:
        # This also ends what a killed process left open under the same id.
        producer.init_transactions(_SECONDS)
        producer.begin_transaction()
        for record in records:
            _produce(producer, record)
        producer.commit_transaction(_SECONDS)
    except KafkaException as error:
        raise KafkaUnavailable(
            f"the rows were not written: {kafka_error(error).str()}; try again."
        ) from error


def _produce(producer: Producer, record: RowRecord) -> None:
    partition = _BY_KEY if record.partition is None else record.partition
    while True:
        try:
            producer.produce(record.topic, value=record.value, key=record.key, partition=partition)
        except BufferError:
            producer.poll(0.1)
            continue
        producer.poll(0)
        return
