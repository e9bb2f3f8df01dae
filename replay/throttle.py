"""Hold a rebuild back where people ask for it, and where the live job would fall behind."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from deploy.settings import Settings
from jobs.cluster import Cluster
from replay import pace
from replay.quota import consumer_ids, free_consumers, limit_consumers

# Between two changes, so that the first shows: Kafka looks back over eleven seconds.
_SETTLE_SECONDS = 12.0


@dataclass
class Throttle:
    """Keeps one rebuild within `limits`; `limit` is what it may read now, `slowed` how often."""

    settings: Settings
    job_name: str
    live_name: str
    limits: pace.Limits
    limit: float | None = None
    slowed: int = 0
    _quota: float | None = None
    _changed: float = field(default_factory=time.monotonic)

    def begin(self, *, again: bool) -> None:
        """Set the limit that people asked for; `again` takes away one that a killed build left."""
        if self.limits.rate is not None:
            self.limit = self.limits.rate
            self._apply(self.limit)
        elif again:
            free_consumers(self.settings, self._clients())

    def look(self, read_rate: float, live_lag: int) -> pace.Strain | None:
        """Change the limit where the live job's state calls for it; return that if it did."""
        if time.monotonic() - self._changed < _SETTLE_SECONDS:
            return None
        before = self.limit
        strain = pace.Strain(live_lag, self._checkpoint_seconds())
        self.slowed += strain.beyond(self.limits)
        self.limit = pace.next_limit(self.limit, read_rate, self.limits, strain)
        if self.limit is not None:
            self._apply(read_rate)
        elif self._quota is not None:
            self.end()
        return None if self.limit == before else strain

    def end(self) -> None:
        """Take the limit away."""
        if self._quota is not None:
            free_consumers(self.settings, self._clients())
            self._quota = None
            self._changed = time.monotonic()

    def _apply(self, read_rate: float) -> None:
        assert self.limit is not None
        quota = pace.next_quota(self._quota, self.limit, read_rate)
        if quota != self._quota:
            limit_consumers(self.settings, self._clients(), quota)
            self._quota = quota
            self._changed = time.monotonic()

    def _clients(self) -> list[str]:
        return consumer_ids(self.job_name, self.settings.parallelism)

    def _checkpoint_seconds(self) -> float:
        cluster = Cluster(self.settings.flink)
        live = cluster.live_job(self.live_name)
        if live is None:
            return 0.0
        return pace.checkpoint_seconds(cluster.get(f"/jobs/{live.id}/checkpoints"), time.time())
