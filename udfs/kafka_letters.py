"""Ask Kafka which events before an offset became dead letters."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing

import numpy as np
import numpy.typing as npt
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

_TIMEOUT_SECONDS = 30.0


class DeadBefore:
    """Callable (partition, offset) → offsets of the dead letters shortly before it, ascending.

    Reads the last `most` committed records of each partition of the dead-letter topic, once per
    partition of the events and only when the first dead letter comes after a start.
    """

    def __init__(self, kafka: Mapping[str, str], dead_letter_topic: str, most: int) -> None:
        self._kafka = dict(kafka)
        self._topic = dead_letter_topic
        self._most = most

    def __call__(self, partition: int, offset: int) -> npt.NDArray[np.int64]:
        """Return the offsets of `partition`'s newest dead letters before `offset`."""
        if offset <= 0:
            return np.zeros(0, dtype=np.int64)
        with closing(self._consumer()) as consumer:
            found = sorted(at for part, at in self._letters(consumer) if part == partition)
        places = np.array(found, dtype=np.int64)
        return places[places < offset][-self._most :]

    def _consumer(self) -> Consumer:
        return Consumer(
            {
                **self._kafka,
                "group.id": "kappa-letters",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
            }
        )

    def _letters(self, consumer: Consumer) -> list[tuple[int, int]]:
        """Return partition and offset of the events in the topic's last letters."""
        topics = consumer.list_topics(self._topic, timeout=_TIMEOUT_SECONDS).topics
        places = []
        for number in topics[self._topic].partitions:
            place = TopicPartition(self._topic, number)
            first, end = consumer.get_watermark_offsets(place, timeout=_TIMEOUT_SECONDS)
            places.append(TopicPartition(self._topic, number, max(first, end - self._most)))
        consumer.assign(places)
        found, unread = [], {place.partition for place in places}
        while unread:
            messages = consumer.consume(1_000, timeout=_TIMEOUT_SECONDS)
            if not messages:
                raise TimeoutError(f"{self._topic} gave nothing for {_TIMEOUT_SECONDS:.0f} s.")
            for message in messages:
                error = message.error()
                if error is None:
                    headers = dict(message.headers() or ())
                    found.append((int(headers["partition"]), int(headers["offset"])))
                elif error.code() == KafkaError._PARTITION_EOF:
                    unread.discard(message.partition())
                else:
                    raise KafkaException(error)
        return found
