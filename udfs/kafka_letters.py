"""Ask Kafka which events before an offset became dead letters, and where events stand at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.reading import offset_of, read_committed
from schemas.topics import begin_offsets, end_offsets


class DeadBefore:
    """Callable (partition, offset) → offsets of the dead letters shortly before it, ascending.

    Reads the last `most` records of each partition of the dead-letter topic, once per partition
    of the events and only when the first dead letter comes after a start.
    """

    def __init__(self, kafka: Mapping[str, Any], dead_letter_topic: str, most: int) -> None:
        self._kafka = dict(kafka)
        self._topic = dead_letter_topic
        self._most = most

    def __call__(self, partition: int, offset: int) -> npt.NDArray[np.int64]:
        """Return the offsets of `partition`'s newest dead letters before `offset`."""
        found: list[int] = []
        if offset > 0:
            starts = begin_offsets(self._kafka, self._topic)
            ends = end_offsets(self._kafka, self._topic, read_committed=True)
            ranges = {p: (max(starts[p], end - self._most), end) for p, end in ends.items()}
            for messages in read_committed(self._kafka, self._topic, ranges):
                places = (dict(message.headers() or ()) for message in messages)
                found += [int(p["offset"]) for p in places if int(p["partition"]) == partition]
        letters = np.array(sorted(found), dtype=np.int64)
        return letters[letters < offset][-self._most :]


class EventsIn:
    """Callable (partition, first, end) → offsets of the events in [first, end), ascending.

    Markers of transactions, aborted records and what the topic holds no more are none.
    """

    def __init__(self, kafka: Mapping[str, Any], topic: str) -> None:
        self._kafka = dict(kafka)
        self._topic = topic

    def __call__(self, partition: int, first: int, end: int) -> npt.NDArray[np.int64]:
        """Return where events of `partition` stand; raises `KafkaUnavailable`."""
        begin = max(first, begin_offsets(self._kafka, self._topic)[partition])
        batches = read_committed(self._kafka, self._topic, {partition: (begin, end)})
        return np.array([offset_of(m) for batch in batches for m in batch], dtype=np.int64)
