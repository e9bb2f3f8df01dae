"""Ask Kafka for the newest timestamp of the events before an offset."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from confluent_kafka import Consumer

from schemas.reading import first_at, is_event, read_committed
from schemas.topics import begin_offsets

_AHEAD_MS = 24 * 3600 * 1000
_TAIL = 1_000


class NewestBefore:
    """Callable (partition, offset) → newest event timestamp before the offset, or None.

    Kafka answers "the first offset whose timestamp is at least t" from its time index. The newest
    timestamp before an offset is the greatest t for which that first offset lies before it: a
    binary search of some 42 requests, made once per partition when a job starts in mid-topic.
    The index knows the markers and aborted records of transactions too, whose timestamps are no
    event's. Where the search ends at one of these, events are read, from the first offset that
    the index can't speak for: all of the partition's where every marker is newer than every event,
    as in history that transactions wrote. `known` has by partition an offset and the newest
    timestamp before it, of events that the topic may hold no more.
    """

    def __init__(
        self,
        kafka: Mapping[str, Any],
        topic: str,
        known: Mapping[int, tuple[int, int]] | None = None,
    ) -> None:
        self._kafka = dict(kafka)
        self._topic = topic
        self._known = known or {}

    def __call__(self, partition: int, offset: int) -> int | None:
        """Return epoch milliseconds, or None where no event precedes `offset`.

        Raises `KafkaUnavailable`.
        """
        since, newest = self._known.get(partition, (offset + 1, 0))
        asked = self._asked(partition, offset)
        if offset < since:
            return asked
        return newest if asked is None else max(asked, newest)

    def _asked(self, partition: int, offset: int) -> int | None:
        if offset <= 0:
            return None
        consumer = Consumer({**self._kafka, "group.id": "kappa-clock", "enable.auto.commit": False})
        with closing(consumer):
            low, high = -1, int(time.time() * 1000) + _AHEAD_MS
            while high - low > 1:
                middle = (low + high) // 2
                if self._first_at(consumer, partition, middle) < offset:
                    low = middle
                else:
                    high = middle
            if low < 0:
                return None
            first = self._first_at(consumer, partition, low)
            if is_event(self._kafka, self._topic, partition, first):
                return low
            return self._read(consumer, partition, offset)

    def _read(self, consumer: Consumer, partition: int, offset: int) -> int | None:
        """Return the newest timestamp by reading what the time index can't tell."""
        begin = begin_offsets(self._kafka, self._topic)[partition]
        tail = self._newest_in(partition, max(begin, offset - _TAIL), offset)
        # Nothing before it, event or not, is newer than the tail.
        first = begin if tail is None else self._first_at(consumer, partition, tail + 1)
        rest = self._newest_in(partition, first, offset - _TAIL)
        return max((at for at in (tail, rest) if at is not None), default=None)

    def _newest_in(self, partition: int, first: int, end: int) -> int | None:
        batches = read_committed(self._kafka, self._topic, {partition: (first, end)})
        return max((m.timestamp()[1] for batch in batches for m in batch), default=None)

    def _first_at(self, consumer: Consumer, partition: int, timestamp: int) -> int:
        offset = first_at(consumer, self._topic, partition, timestamp)
        return 2**63 - 1 if offset is None else offset
