"""Stop where a partition gives little but dead letters, rather than eat the topic. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from schemas.streams import DeadLetterLimit

Int64s = npt.NDArray[np.int64]

DeadBefore = Callable[[int, int], Int64s]
"""(partition, offset) to the offsets of the newest dead letters before it, ascending."""

EventsIn = Callable[[int, int, int], Int64s]
"""(partition, first, end) to the offsets in [first, end) at which events stand, ascending."""
# With a transaction for each event a marker stands between two of them.
_NEAR = 2


class TooManyDeadLetters(Exception):
    """A partition went past its stream's limit; nothing more of it is taken."""


@dataclass
class DeadLetterGuard:
    """Follows the dead letters of each partition through the batches it is shown.

    After a restart those in the dead-letter topic count on, those in a row too, so that a job which
    failed here fails here again and does not go on by a limit's worth each time. Events before the
    offsets of `accepted`, by partition, are not judged.
    """

    topic: str
    limit: DeadLetterLimit
    dead_before: DeadBefore
    events_in: EventsIn
    accepted: Mapping[int, int] = field(default_factory=dict)
    _next_offset: dict[int, int] = field(default_factory=dict)
    _dead: dict[int, Int64s] = field(default_factory=dict)
    _in_a_row: dict[int, int] = field(default_factory=dict)
    _begun: dict[int, int] = field(default_factory=dict)

    def judge(self, partitions: Int64s, offsets: Int64s, reasons: npt.NDArray[np.object_]) -> None:
        """Raise `TooManyDeadLetters` if the batch goes past the limit.

        All have one entry per event, in partition order; `reasons` has None for good events.
        """
        for row in np.flatnonzero(np.diff(partitions, prepend=-1)).tolist():
            self._begun.setdefault(int(partitions[row]), int(offsets[row]))
        bad = np.flatnonzero(reasons != None)  # noqa: E711
        if len(bad) or self._in_a_row:
            self._judge_rows(partitions, offsets, reasons)
        for partition in np.unique(partitions[bad]).tolist():
            rows = bad[partitions[bad] == partition]
            dead = offsets[rows]
            first = int(dead[0])
            dead = np.concatenate([self._before(partition, first), dead])
            dead = dead[dead >= self.accepted.get(partition, 0)]
            for most, within in self.limit.windows:
                if (reached := _reached(dead, most, within)) is not None:
                    raise self._too_many(most, within, partition, reached, reasons[rows])
            self._dead[partition] = dead[-self.limit.remembered :]
            self._next_offset[partition] = int(offsets[rows[-1]]) + 1

    def _judge_rows(
        self, partitions: Int64s, offsets: Int64s, reasons: npt.NDArray[np.object_]
    ) -> None:
        """Raise where so many in a row are bad, however far apart their offsets are.

        Each transaction takes an offset more than its records have.
        """
        most = self.limit.in_a_row
        for partition in np.unique(partitions).tolist():
            rows = np.flatnonzero(partitions == partition)
            passed = offsets[rows] < self.accepted.get(partition, 0)
            good = np.flatnonzero((reasons[rows] == None) | passed)  # noqa: E711
            if partition not in self._in_a_row and (not len(good) or good[0]):
                self._in_a_row[partition] = self._run_before(partition, int(offsets[rows[0]]))
            begin = np.concatenate([[-1 - self._in_a_row.pop(partition, 0)], good])
            runs = np.append(begin[1:], len(rows)) - begin - 1
            if (long := np.flatnonzero(runs >= most)).size:
                reached = int(offsets[rows[begin[long[0]] + most]])
                raise self._too_many(most, most, partition, reached, reasons[rows])
            if runs[-1]:
                self._in_a_row[partition] = int(runs[-1])

    def _run_before(self, partition: int, offset: int) -> int:
        """Return how many dead letters in a row end at `offset`, of those before a restart too."""
        if offset > self._begun[partition]:
            return 0
        dead = self.dead_before(partition, offset)
        self._dead[partition], self._next_offset[partition] = dead, offset
        dead = dead[dead >= self.accepted.get(partition, 0)]
        apart = np.diff(np.append(dead, offset))
        near = dead[np.flatnonzero(np.append(True, apart > _NEAR))[-1] :]
        near = near[max(0, len(near) - self.limit.in_a_row + 1) :]
        if not len(near) or offset - near[0] == len(near):
            return len(near)
        # What stands between two may be a good event as well.
        events = self.events_in(partition, int(near[0]), offset)
        return int(np.argmin(np.append(np.isin(events, near)[::-1], False)))

    def _too_many(
        self,
        most: int,
        within: int,
        partition: int,
        reached: int,
        reasons: npt.NDArray[np.object_],
    ) -> TooManyDeadLetters:
        [(reason, _)] = Counter(filter(None, reasons)).most_common(1)
        return TooManyDeadLetters(
            f"{most} of {within} events up to offset {reached} of {self.topic}, "
            f"partition {partition}, are dead letters, the last ones for {reason!r}. "
            "Nothing more is read before the producer or the rule is mended, or "
            "`kappa submit … --accept-dead-letters` passes by what is there now."
        )

    def _before(self, partition: int, offset: int) -> Int64s:
        if partition not in self._dead:
            # What has been judged here is good now, whatever was written of it in another life.
            return self.dead_before(partition, min(offset, self._begun[partition]))
        if offset < self._next_offset[partition]:
            return self.dead_before(partition, offset)
        return self._dead[partition]


def _reached(dead: Int64s, most: int, within: int) -> int | None:
    """Return the first of the ascending offsets that makes `most` within `within` offsets."""
    if len(dead) < most:
        return None
    spans = dead[most - 1 :] - dead[: len(dead) - most + 1]
    crowded = np.flatnonzero(spans < within)
    return int(dead[most - 1 + crowded[0]]) if len(crowded) else None
