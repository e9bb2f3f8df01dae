"""How long events take from Kafka into the views, from two counts that only grow. No I/O.

The one count is of the events that a topic has, the other of those that are accounted for in
ClickHouse. An event that was the n-th to arrive is seen once n are accounted for, so the distance
of both curves in time is what an event waits. Nothing is assumed of the event's own time.
"""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass

WINDOW_SECONDS = 60.0
_MOST_BATCHES = 3600


@dataclass(frozen=True)
class Waiting:
    """What events waited that became visible within the window, in seconds; None where none did.

    `pending` events are not visible yet, the oldest of them for `oldest_pending`; None while it is
    not known how many arrived.
    """

    median: float | None
    longest: float | None
    last: float | None
    pending: int | None
    oldest_pending: float | None


@dataclass(frozen=True)
class _Batch:
    after: float
    at: float
    total: int

    @property
    def middle(self) -> float:
        return (self.after + self.at) / 2


class ArrivalCurve:
    """The arrivals of one stream that are not visible yet, and what the others waited."""

    def __init__(self, window_seconds: float = WINDOW_SECONDS) -> None:
        self._window = window_seconds
        self._last: tuple[float, int] | None = None
        self._batches: deque[_Batch] = deque(maxlen=_MOST_BATCHES)
        self._waited: deque[tuple[float, float]] = deque()
        self._placed = 0

    def arrived(self, at: float, total: int) -> None:
        """Note that the topic had `total` events at the moment `at`, in seconds."""
        if self._last is not None and total < self._last[1]:
            self._batches.clear()
            self._last = None
        if self._last is not None and total > self._last[1]:
            self._batches.append(_Batch(self._last[0], at, total))
        self._last = (at, total)

    def placed(self, at: float, total: int) -> None:
        """Note that `total` events were accounted for at the moment `at`, in seconds."""
        self._placed = total
        while self._batches and self._batches[0].total <= total:
            self._waited.append((at, max(0.0, at - self._batches.popleft().middle)))
        while self._waited and self._waited[0][0] < at - self._window:
            self._waited.popleft()

    def report(self, at: float) -> Waiting:
        """Return what is known at the moment `at`."""
        waited = [seconds for _, seconds in self._waited]
        pending = max(0, self._last[1] - self._placed) if self._last else None
        oldest = at - self._batches[0].middle if pending and self._batches else None
        return Waiting(
            median=statistics.median(waited) if waited else None,
            longest=max(waited, default=None),
            last=waited[-1] if waited else None,
            pending=pending,
            oldest_pending=oldest,
        )
