"""Tell since when a reader has something left to read. No I/O.

Event times say nothing of it, as old events may be sent today; so ends of partitions are noted
with the time at which they were seen.
"""

from __future__ import annotations

from bisect import bisect_right

Place = tuple[str, int]
"""A topic and one of its partitions."""

_KEPT = 1024


class Arrivals:
    """When each partition first had each of its ends; times are seconds of one clock.

    At most `kept` ends of a partition are remembered; of the older half every other one is
    forgotten when there are more, so that what is long ago is known less exactly.
    """

    def __init__(self, kept: int = _KEPT) -> None:
        self._kept = kept
        self._ends: dict[Place, list[int]] = {}
        self._times: dict[Place, list[float]] = {}

    def saw(self, place: Place, end: int, now: float) -> None:
        """Note that at `now` the next record of `place` would have had offset `end`."""
        ends, times = self._ends.setdefault(place, []), self._times.setdefault(place, [])
        if ends and end < ends[-1]:
            # The topic was created anew.
            ends.clear()
            times.clear()
        if ends and end == ends[-1]:
            return
        ends.append(end)
        times.append(now)
        if len(ends) > self._kept:
            half = len(ends) // 2
            ends[:half] = ends[1:half:2]
            times[:half] = times[1:half:2]

    def behind_seconds(self, place: Place, committed: int, now: float) -> float:
        """Return how long the record at offset `committed` has been there; 0 if it is not.

        Of what was there before the first look, only the time since then is known.
        """
        ends = self._ends.get(place, [])
        first = bisect_right(ends, committed)
        return now - self._times[place][first] if first < len(ends) else 0.0
