"""How fast event time runs beside the clock, and what that lets wait. No I/O."""

from __future__ import annotations

from collections import deque

from udfs import lateness

LONGEST_PAUSE_MS = 3_000
"""How long at most a job that catches up leaves parcels unmerged."""

# While event time runs so much faster than the clock, windows close before anybody has read their
# early rows.
_CATCHING_UP = 5
_BASE_MS = 2_000
_LEAST_MS = 1_000
_APART_MS = 200
# While a job catches up, folding what came for all buckets takes about a tenth of a task's time:
# the longer it waits, the more of it is one and the same row.
_PAUSE_PER_MERGE = 10
_LEAST_PAUSE_MS = 100


class Pace:
    """Where event time was lately, and how long merges of each bucket took; times in ms."""

    def __init__(self) -> None:
        self._seen: deque[tuple[int, int]] = deque()
        self._took: dict[int, int] = {}
        self._took_in_all = 0

    def note(self, now: int, watermark: int) -> None:
        """Note that event time is at `watermark`."""
        if watermark <= lateness.UNKNOWN:
            return
        if self._seen and now < self._seen[-1][0]:
            # The clock was set back.
            self._seen.clear()
        newest, last = self._seen[-1] if self._seen else (lateness.UNKNOWN, lateness.UNKNOWN)
        if watermark != last and now >= newest + _APART_MS:
            self._seen.append((now, watermark))
        # One that is old enough stays, however old: events that are rare move time far at once.
        while len(self._seen) > 1 and self._seen[1][0] <= now - _BASE_MS:
            self._seen.popleft()

    def catches_up(self, now: int, watermark: int) -> bool:
        """Tell whether event time has run much faster than the clock for the last seconds."""
        if not self._seen:
            return False
        then, before = self._seen[0]
        return watermark - before > _CATCHING_UP * max(now - then, _LEAST_MS)

    def took(self, bucket: int, milliseconds: int) -> None:
        """Note how long the newest merge of `bucket` took."""
        # A clock that is set back meanwhile took no time.
        milliseconds = max(0, milliseconds)
        self._took_in_all += milliseconds - self._took.get(bucket, 0)
        self._took[bucket] = milliseconds

    @property
    def pause(self) -> int:
        """How long a bucket waits from one merge to the next while the job catches up."""
        wanted = _PAUSE_PER_MERGE * self._took_in_all
        return min(max(wanted, _LEAST_PAUSE_MS), LONGEST_PAUSE_MS)
