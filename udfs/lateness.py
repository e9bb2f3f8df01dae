"""Decide which events are later than allowed, the same way live, restarted and on replay. No I/O.

The watermark that judges an event is that of its own partition, in offset order: the newest record
timestamp so far, less the stream's disorder. It is a function of the topic alone. Flink's own
watermark, the least of all partitions', is never ahead of it, so that an event let through here
still finds its windows. Only an idle partition that resumes can lag behind Flink's, and then the
one that is ahead decides: here, if another partition of the same source told of it, else where the
windows are (`udfs.windows.in_time`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.streams import Stream

Int64s = npt.NDArray[np.int64]

UNKNOWN = np.iinfo(np.int64).min
"""The watermark before any record."""

NewestBefore = Callable[[int, int], int | None]
"""(partition, offset) to the newest record timestamp before that offset, epoch ms, or None."""


@dataclass
class PartitionClock:
    """Follows the newest record timestamp of each partition through the batches it is shown.

    Where it has not seen what came before a batch (a restart, a rewind), it asks `newest_before`.
    """

    newest_before: NewestBefore
    _next_offset: dict[int, int] = field(default_factory=dict)
    _newest: dict[int, int] = field(default_factory=dict)

    def newest(self, partitions: Int64s, offsets: Int64s, timestamps: Int64s) -> Int64s:
        """Return, per record, the newest timestamp of its partition up to and including it."""
        result = np.empty(len(partitions), dtype=np.int64)
        for partition in np.unique(partitions).tolist():
            rows = np.flatnonzero(partitions == partition)
            before = self._before(partition, int(offsets[rows[0]]))
            running = np.maximum(np.maximum.accumulate(timestamps[rows]), before)
            result[rows] = running
            self._newest[partition] = int(running[-1])
            self._next_offset[partition] = int(offsets[rows[-1]]) + 1
        return result

    def _before(self, partition: int, offset: int) -> int:
        # A gap forward is a transaction's marker or a compacted record; only a way back is news.
        if offset < self._next_offset.get(partition, 0) or partition not in self._newest:
            newest = self.newest_before(partition, offset)
            return UNKNOWN if newest is None else newest
        return self._newest[partition]


def milliseconds(stream: Stream) -> tuple[int, int, int]:
    """Return disorder, allowed lateness and pane of `stream` in milliseconds."""
    durations = (stream.disorder, stream.allowed_lateness, stream.pane)
    disorder, lateness, pane = (round(d.total_seconds() * 1000) for d in durations)
    return disorder, lateness, pane


def closes(instant: Any, pane: int, allowed_lateness: int) -> Any:
    """Return the watermark from which an event at `instant` is late: its pane's end and lateness.

    All are milliseconds; an instant is a number, or an array of them.
    """
    return instant - instant % pane + pane - 1 + allowed_lateness


def late(
    stream: Stream, timestamps: Int64s, newest: Int64s, flink: Int64s
) -> npt.NDArray[np.bool_]:
    """Tell which events' panes ended more than the allowed lateness before the watermark.

    `newest` is what `PartitionClock.newest` returned, `flink` the operator's watermark or UNKNOWN,
    both epoch ms per event.
    """
    disorder, lateness, pane = milliseconds(stream)
    watermark = np.maximum(newest - disorder, flink)
    result: npt.NDArray[np.bool_] = closes(timestamps, pane, lateness) <= watermark
    return result
