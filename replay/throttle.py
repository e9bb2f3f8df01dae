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
    """Keeps one rebuild at its pace; `ceiling` is in events a second, None for no limit."""

    settings: Settings
    job_name: str
    live_name: str
    ceiling: float | None
    limit: float | None = None
    slowed: int = 0
    _quota: float | None = None
    _changed: float = field(default_factory=time.monotonic)

    def begin(self, *, again: bool) -> None:
        """Set the limit that people asked for; `again` takes away one that a killed build left."""
        if self.ceiling is not None:
            self.limit = self.ceiling
            self._apply(self.ceiling)
        elif again:
            free_consumers(self.settings, self._clients())

    def look(self, read_rate: float, live_lag: int) -> None:
        """Change the limit if the live job's state or the rate that was read call for it."""
        if time.monotonic() - self._changed < _SETTLE_SECONDS:
            return
        strain = pace.Strain(live_lag, self._checkpoint_seconds())
        self.slowed += strain.too_much
        self.limit = pace.next_limit(self.limit, read_rate, self.ceiling, strain)
        if self.limit is not None:
            self._apply(read_rate)
        elif self._quota is not None:
            self.end()

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
        latest = cluster.get(f"/jobs/{live.id}/checkpoints")["latest"] or {}
        completed = latest.get("completed") or {}
        return float(completed.get("end_to_end_duration", 0)) / 1000
