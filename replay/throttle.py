"""Hold a rebuild back where people ask for it, and where the live job would fall behind."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from deploy.settings import Settings
from jobs.cluster import Cluster, RunningJob
from replay import pace
from replay.archive import read_records
from replay.quota import clear_groups, consumer_ids, free_groups, limit_consumers
from schemas.topics import begin_offsets, end_offsets

# Kafka holds a consumer to its quota over eleven seconds: what a change does shows after them.
_SETTLE_SECONDS = 12.0
_SAMPLE = 250
_RUNS_MS = 60_000
# Of a record in a batch, besides key, value and headers.
_RECORD_BYTES = 12


@dataclass
class Throttle:
    """Keeps one rebuild within `limits`; `limit` is what it may read now, `slowed` how often.

    `groups` are its consumer groups, each of which reads every event that it needs once; `topics`
    are those that it reads.
    """

    settings: Settings
    groups: Sequence[str]
    live_name: str
    topics: Sequence[str]
    limits: pace.Limits
    limit: float | None = None
    slowed: int = 0
    _size: float | None = None
    _quota: float | None = None
    _changed: float = field(default_factory=time.monotonic)
    _mark: tuple[float, int] | None = None

    def begin(self, *, again: bool, say: Callable[[str], None]) -> None:
        """Set the limit that people asked for; `again` takes away one that a killed build left."""
        if self.limits.rate is not None:
            self.limit = self.limits.rate
            self._apply()
        elif again:
            left = "A limit that a killed build set may hold this one back still."
            clear_groups(self.settings, self.groups, say, left)

    def look(self, done: int, live_lag: int) -> dict[str, float | None] | None:
        """Change the limit where the live job's state calls for it; return what is, if it did.

        `done` are the events read by now.
        """
        read_rate = self._rate(done)
        if read_rate is None:
            return None
        before = self.limit
        if before is not None:
            self._size = pace.next_size(self._event_bytes(), before, read_rate)
        strain = pace.Strain(live_lag, self._checkpoint_seconds())
        self.slowed += strain.beyond(self.limits)
        self.limit = pace.next_limit(before, read_rate, self.limits, strain)
        if self.limit is not None:
            self._apply()
        else:
            self.end()
        changed = {"limit": self.limit, "read_rate": round(read_rate), **vars(strain)}
        return None if self.limit == before else changed

    def end(self) -> None:
        """Take the limit away."""
        if self._quota is not None:
            free_groups(self.settings, self.groups)
            self._note(None)

    def _rate(self, done: int) -> float | None:
        """Return the events a second of the last while, None where a change is too recent."""
        now = time.monotonic()
        since, first = self._mark or (now, done)
        if self._mark is None and now - self._changed >= _SETTLE_SECONDS:
            self._mark = now, done
        if now - since < _SETTLE_SECONDS:
            return None
        self._mark = now, done
        return (done - first) / (now - since)

    def _apply(self) -> None:
        assert self.limit is not None
        quota = self.limit * self._event_bytes()
        if self._quota is None or not pace.is_close(quota, self._quota):
            for group in self.groups:
                limit_consumers(self.settings, self._clients(group), quota)
            self._note(quota)

    def _note(self, quota: float | None) -> None:
        self._quota, self._changed, self._mark = quota, time.monotonic(), None

    def _event_bytes(self) -> float:
        """Return the bytes that an event of the topics takes on the wire at most, as is known."""
        if self._size is None:
            self._size = sampled_bytes(self.settings, self.topics)
        return self._size

    def _clients(self, group: str) -> list[str]:
        return consumer_ids(group, self.settings.parallelism)

    def _checkpoint_seconds(self) -> float:
        cluster = Cluster(*self.settings.flink_clusters)
        live = spared_job(cluster, self.live_name)
        if live is None:
            return 0.0
        return pace.checkpoint_seconds(cluster.get(f"/jobs/{live.id}/checkpoints"), time.time())


def spared_job(cluster: Cluster, name: str) -> RunningJob | None:
    """Return the job called `name` where it runs; one that is down is no reason to hold back.

    One that fails again and again runs for moments in between, and what it is behind only grows.
    """
    live = cluster.live_job(name)
    return live if live and cluster.running_ms(live.id) >= _RUNS_MS else None


def sampled_bytes(settings: Settings, topics: Sequence[str]) -> float:
    """Return the mean bytes of an event by some first ones of each partition, uncompressed.

    Topics count by the events that they hold.
    """
    weighed = [_sampled(settings, topic) for topic in topics]
    events = sum(count for _, count in weighed)
    return sum(size * count for size, count in weighed) / events if events else float(_RECORD_BYTES)


def _sampled(settings: Settings, topic: str) -> tuple[float, int]:
    """Return the mean bytes of some first events of each partition, and how many there are."""
    kafka = settings.kafka_client
    ends, begin = end_offsets(kafka, topic, read_committed=True), begin_offsets(kafka, topic)
    sizes = [
        record.size + _RECORD_BYTES
        for part, first in begin.items()
        for record in read_records(kafka, topic, part, first, min(first + _SAMPLE, ends[part]))
    ]
    held = sum(ends[part] - first for part, first in begin.items())
    return (sum(sizes) / len(sizes), held) if sizes else (0.0, 0)
