"""Decide how fast a rebuild may read, so that the live job does not suffer. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

MOST_LIVE_LAG = 100_000
"""Events that the live job may be behind before the rebuild slows down."""

MOST_CHECKPOINT_SECONDS = 30.0
"""Time that the live job's last checkpoint may take before the rebuild slows down."""

_LEAST_RATE = 500.0
_FIRST_BYTES_PER_EVENT = 150.0
# A quota that is nearly right is left alone: each change takes a second or two.
_CLOSE_ENOUGH = 0.15


@dataclass(frozen=True)
class Strain:
    """How the live job is: events it is behind, and the time of its last checkpoint."""

    live_lag: int
    checkpoint_seconds: float

    @property
    def too_much(self) -> bool:
        """Whether the rebuild must slow down."""
        return self.live_lag > MOST_LIVE_LAG or self.checkpoint_seconds > MOST_CHECKPOINT_SECONDS

    @property
    def little(self) -> bool:
        """Whether it may go faster again."""
        return (
            self.live_lag < MOST_LIVE_LAG // 2
            and self.checkpoint_seconds < MOST_CHECKPOINT_SECONDS / 2
        )


def next_limit(
    limit: float | None, read_rate: float, ceiling: float | None, strain: Strain
) -> float | None:
    """Return the events a second that the rebuild may read from now on; None is no limit.

    `limit` is what it may read now, `read_rate` what it did read, `ceiling` what people allow.
    """
    if strain.too_much:
        return max(_LEAST_RATE, (min(limit, read_rate) if limit else read_rate) / 2)
    if limit is None or limit == ceiling or not strain.little:
        return limit or ceiling
    doubled = limit * 2
    if ceiling is not None:
        return min(doubled, ceiling)
    # The rebuild reads much less than it may, so the limit holds nothing back any more.
    return None if read_rate < limit / 2 else doubled


def next_quota(quota: float | None, limit: float, read_rate: float) -> float:
    """Return the bytes a second that give `limit` events a second.

    Nobody knows how large events are on the wire, so the quota follows the rate that was read.
    """
    if quota is None or read_rate <= 0:
        return quota or limit * _FIRST_BYTES_PER_EVENT
    factor = min(2.0, max(0.5, limit / read_rate))
    return quota if abs(factor - 1) < _CLOSE_ENOUGH else quota * factor
