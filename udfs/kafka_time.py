"""Ask Kafka for the newest record timestamp before an offset."""

from __future__ import annotations

import time
from collections.abc import Mapping

from confluent_kafka import Consumer, TopicPartition

_TIMEOUT_SECONDS = 30.0
_AHEAD_MS = 24 * 3600 * 1000


class NewestBefore:
    """Callable (partition, offset) → newest record timestamp before the offset, or None.

    Kafka answers "the first offset whose timestamp is at least t" from its time index. The newest
    timestamp before an offset is the greatest t for which that first offset lies before it: a
    binary search of some 42 requests, made once per partition when a job starts in mid-topic.
    `known` has by partition an offset and the newest timestamp before it, of records that the
    topic may hold no more.
    """

    def __init__(
        self,
        kafka: Mapping[str, str],
        topic: str,
        known: Mapping[int, tuple[int, int]] | None = None,
    ) -> None:
        self._kafka = dict(kafka)
        self._topic = topic
        self._known = known or {}

    def __call__(self, partition: int, offset: int) -> int | None:
        """Return epoch milliseconds, or None where no record precedes `offset`."""
        since, newest = self._known.get(partition, (offset + 1, 0))
        asked = self._asked(partition, offset)
        if offset < since:
            return asked
        return newest if asked is None else max(asked, newest)

    def _asked(self, partition: int, offset: int) -> int | None:
        if offset <= 0:
            return None
        consumer = Consumer({**self._kafka, "group.id": "kappa-clock", "enable.auto.commit": False})
        try:
            low, high = -1, int(time.time() * 1000) + _AHEAD_MS
            while high - low > 1:
                middle = (low + high) // 2
                if self._first_at(consumer, partition, middle) < offset:
                    low = middle
                else:
                    high = middle
            return low if low >= 0 else None
        finally:
            consumer.close()

    def _first_at(self, consumer: Consumer, partition: int, timestamp: int) -> int:
        asked = [TopicPartition(self._topic, partition, timestamp)]
        (found,) = consumer.offsets_for_times(asked, timeout=_TIMEOUT_SECONDS)
        if found.error is not None:
            raise RuntimeError(f"{self._topic}[{partition}]: {found.error}")
        offset: int = found.offset
        # Kafka answers -1 (the end) where no record is as new.
        return offset if offset >= 0 else 2**63 - 1
