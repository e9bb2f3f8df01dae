"""Read the committed events that a topic holds between offsets."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from schemas.topics import KafkaUnavailable, again, begin_offsets, end_offsets, explained

_RECORDS = 2_000
_POLL_SECONDS = 0.05
_SILENT_SECONDS = 60.0
_ANSWER_SECONDS = 30.0


def read_committed(
    kafka: Mapping[str, Any], topic: str, ranges: Mapping[int, tuple[int, int]]
) -> Iterator[list[Message]]:
    """Yield the records of each partition's [first, end), some thousands at a time.

    Each partition's come in order, those of several mixed. The markers and aborted records that
    transactions leave are passed over. Raises `KafkaUnavailable` where a partition can't be read,
    such as before its first record, or gives nothing for a minute.
    """
    ends = {part: end for part, (first, end) in ranges.items() if first < end}
    if not ends:
        return
    consumer = Consumer(
        {
            **kafka,
            "group.id": "kappa-reader",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "fetch.message.max.bytes": 4 * 1024 * 1024,
            "queued.max.messages.kbytes": 16 * 1024,
            "log_level": 3,
        }
    )
    try:
        consumer.assign([TopicPartition(topic, part, ranges[part][0]) for part in ends])
        yield from _until(consumer, topic, ends)
    finally:
        consumer.close()


def is_event(kafka: Mapping[str, Any], topic: str, partition: int, offset: int) -> bool:
    """Tell whether a committed event stands at `offset`, and no marker or aborted record."""
    return has_events(kafka, topic, partition, offset, offset + 1)


def has_events(kafka: Mapping[str, Any], topic: str, partition: int, first: int, end: int) -> bool:
    """Tell whether a committed event stands in [first, end), and not only markers and the like."""
    return any(read_committed(kafka, topic, {partition: (first, end)}))


def first_at(consumer: Consumer, topic: str, partition: int, timestamp: int) -> int | None:
    """Return the first offset whose record is at least as new as `timestamp`, epoch ms.

    None where no record is. Raises `KafkaUnavailable`.
    """

    def ask() -> TopicPartition:
        asked = [TopicPartition(topic, partition, timestamp)]
        with explained(f"tell of times in {topic}, partition {partition}", _ANSWER_SECONDS):
            (found,) = consumer.offsets_for_times(asked, timeout=_ANSWER_SECONDS)
            if found.error is not None:
                raise KafkaException(found.error)
        return found

    offset: int = again(ask, _ANSWER_SECONDS).offset
    # Kafka answers -1 (the end) where no record is as new.
    return offset if offset >= 0 else None


def event_ends(kafka: Mapping[str, Any], topic: str) -> dict[int, int]:
    """Return for each partition the offset after its last committed event, else its first offset.

    The end offset lies beyond it where the newest transaction left its marker: no event is there,
    and who waits for a reader to come to the end offset waits for ever. Raises `UnknownTopic`.
    """
    starts = begin_offsets(kafka, topic)
    ends = end_offsets(kafka, topic, read_committed=True)
    found: dict[int, int] = {}
    # Nearly always the last offset is an event; each round looks back further.
    back = 1
    while left := set(ends) - set(found):
        froms = {part: max(starts[part], ends[part] - back) for part in left}
        ranges = {part: (first, ends[part]) for part, first in froms.items()}
        for messages in read_committed(kafka, topic, ranges):
            found |= {partition_of(m): offset_of(m) + 1 for m in messages}
        found |= {p: at for p, at in froms.items() if p not in found and at == starts[p]}
        back *= 8
    return dict(sorted(found.items()))


def partition_of(message: Message) -> int:
    """Return the partition of a message that was read."""
    partition = message.partition()
    assert partition is not None
    return partition


def offset_of(message: Message) -> int:
    """Return the offset of a message that was read."""
    offset = message.offset()
    assert offset is not None
    return offset


def _until(consumer: Consumer, topic: str, ends: dict[int, int]) -> Iterator[list[Message]]:
    unread = dict(ends)
    heard = time.monotonic()
    while unread:
        # It waits for so many records or so long, whichever comes first.
        messages = consumer.consume(_RECORDS, timeout=_POLL_SECONDS)
        if not messages and time.monotonic() - heard > _SILENT_SECONDS:
            raise KafkaUnavailable(f"{topic} gave no record for {_SILENT_SECONDS:.0f} s.")
        wanted = []
        for message in messages:
            error = message.error()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                raise KafkaUnavailable(_unreadable(topic, message.partition(), error), error.code())
            part = partition_of(message)
            if error is None and offset_of(message) < ends[part]:
                wanted.append(message)
            # What is left before the end at a partition's end are markers.
            if error is not None or offset_of(message) >= ends[part] - 1:
                unread.pop(part, None)
        if wanted:
            yield wanted
        if messages:
            # What is done with the records may take its time.
            heard = time.monotonic()


def _unreadable(topic: str, partition: int | None, error: KafkaError) -> str:
    # What the consumer group may not do concerns no partition.
    place = topic if partition is None else f"{topic}, partition {partition}"
    return f"{place} can't be read: {error.str()}."
