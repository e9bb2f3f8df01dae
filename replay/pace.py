"""Decide how fast a rebuild may read, so that the live job does not suffer. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_LEAST_RATE = 500.0
# A quota that is nearly right is left alone: each change takes a second or two.
_CLOSE_ENOUGH = 1.15
# Well within its bounds the live job leaves room for the rebuild to go faster again.
_AT_EASE = 0.5


@dataclass(frozen=True)
class Limits:
    """What a rebuild must keep to.

    `rate` is the events a second that it may read, None for any. `live_lag` (events) and
    `checkpoint_seconds` are the strain on the live job beyond which it slows down.
    """

    rate: float | None = None
    live_lag: int = 100_000
    checkpoint_seconds: float = 30.0


@dataclass(frozen=True)
class Strain:
    """How the live job is: events it is behind, and the time of its last checkpoint."""

    live_lag: int
    checkpoint_seconds: float

    def beyond(self, limits: Limits, share: float = 1.0) -> bool:
        """Whether it is more than a share of what `limits` allow."""
        lagging = self.live_lag > share * limits.live_lag
        return lagging or self.checkpoint_seconds > share * limits.checkpoint_seconds


def checkpoint_seconds(checkpoints: Mapping[str, Any], now: float) -> float:
    """Return the time of a job's last checkpoint, or of the one under way where that is longer.

    `checkpoints` is what Flink's REST API says of them, `now` is in seconds since the epoch.
    """
    last = (checkpoints["latest"] or {}).get("completed") or {}
    pending = [
        now * 1000 - one["trigger_timestamp"]
        for one in checkpoints["history"]
        if one["status"] == "IN_PROGRESS"
    ]
    return float(max([last.get("end_to_end_duration", 0), *pending])) / 1000


def next_limit(
    limit: float | None, read_rate: float, limits: Limits, strain: Strain
) -> float | None:
    """Return the events a second that the rebuild may read from now on; None is no limit.

    `limit` is what it may read now, `read_rate` what it did read.
    """
    if strain.beyond(limits):
        return max(_LEAST_RATE, (min(limit, read_rate) if limit else read_rate) / 2)
    if limit is None or limit == limits.rate or strain.beyond(limits, _AT_EASE):
        return limit or limits.rate
    doubled = limit * 2
    if limits.rate is not None:
        return min(doubled, limits.rate)
    # The rebuild reads much less than it may, so the limit holds nothing back any more.
    return None if read_rate < limit / 2 else doubled


def is_close(quota: float, other: float) -> bool:
    """Whether two quotas are so alike that a change from one to the other is not worth it."""
    return max(quota, other) <= min(quota, other) * _CLOSE_ENOUGH


def next_size(size: float, limit: float, read_rate: float) -> float:
    """Return the bytes that an event takes on the wire, at most `size`.

    A quota for `limit` events of that size a second let `read_rate` through. Fewer prove nothing:
    once what else held them back is over, a quota raised for that would let too many through.
    """
    return size if read_rate <= limit * _CLOSE_ENOUGH else size * limit / read_rate
