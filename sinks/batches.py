"""What a topic's partitions have read, loaded and committed, and when a batch is due. No I/O."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from sinks.rows import Record, last_offsets
from sinks.topics import Source

# What a record in memory takes beside its bytes.
_RECORD_BYTES = 300


@dataclass(frozen=True)
class Limits:
    """How large a batch may grow, how old, and how long to wait after failures, at most."""

    batch_bytes: int = 64 * 1024 * 1024
    batch_seconds: float = 0.5
    longest_pause_seconds: float = 5.0


@dataclass
class Progress:
    """How far one partition has come; each offset is that of the next record.

    `table_id` is the table that holds the records before `loaded`, empty where there is none yet.
    """

    table_id: str
    read: int
    loaded: int
    committed: int


@dataclass
class Batch:
    """The records of one topic that wait to be loaded, and the progress of its partitions.

    A partition is first held, which means that its place in the topic is not known yet.
    """

    source: Source
    limits: Limits
    held: set[int] = field(default_factory=set)
    partitions: dict[int, Progress] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    bytes: int = 0
    attempts: int = 0
    failing_since: float | None = None
    _oldest: float | None = None
    _retry_at: float = 0.0

    def place(self, partition: int, offset: int | None, table_id: str) -> None:
        """Begin `partition` at `offset`, or at its start where that is None."""
        known = -1 if offset is None else offset
        self.held.discard(partition)
        self.partitions[partition] = Progress(table_id, known, known, known)

    def add(self, records: Sequence[Record], size: int, now: float) -> None:
        """Take `records` of `size` bytes, in offset order; those of unplaced partitions are not."""
        last = last_offsets(records)
        if not last.keys() <= self.partitions.keys():
            records = [record for record in records if record.partition() in self.partitions]
        self.records.extend(records)
        self.bytes += size + len(records) * _RECORD_BYTES
        for partition, offset in last.items():
            self.reached(partition, offset + 1, now)

    def reached(self, partition: int | None, offset: int, now: float) -> None:
        """Note that `partition` has been read up to `offset`, records or not."""
        if partition is None or partition not in self.partitions:
            return
        self.partitions[partition].read = offset
        if self._oldest is None:
            self._oldest = now

    @property
    def waits(self) -> bool:
        """Whether something was read, be it no record, that is not both loaded and committed."""
        return self._oldest is not None

    def due(self, now: float) -> bool:
        """Whether the batch, even an empty one, has progress to load or commit by now."""
        if now < self._retry_at or self._oldest is None:
            return False
        return (
            self.bytes >= self.limits.batch_bytes or now - self._oldest >= self.limits.batch_seconds
        )

    def strangers(self, table_id: str) -> set[int]:
        """Return the partitions whose earlier rows are in another table than `table_id`."""
        return {
            partition
            for partition, progress in self.partitions.items()
            if progress.table_id not in ("", table_id)
        }

    def hold(self, partitions: Collection[int]) -> None:
        """Forget where `partitions` were, and their records; their place must be found again."""
        self.forget(partitions)
        self.held.update(partitions)

    def forget(self, partitions: Collection[int]) -> None:
        """Drop all that is known of `partitions`."""
        for partition in partitions:
            self.held.discard(partition)
            self.partitions.pop(partition, None)
        self.records = [r for r in self.records if r.partition() in self.partitions]
        self.bytes = sum(len(r.value() or b"") + _RECORD_BYTES for r in self.records)

    def loaded(self, table_id: str) -> None:
        """Note that all that was read is in table `table_id`."""
        self.records, self.bytes = [], 0
        for progress in self.partitions.values():
            progress.loaded = progress.read
            progress.table_id = table_id

    def uncommitted(self) -> dict[int, Progress]:
        """Return the partitions with loaded records that are not committed."""
        return {
            partition: progress
            for partition, progress in self.partitions.items()
            if progress.loaded > progress.committed
        }

    def committed(self, partition: int, offset: int) -> None:
        """Note that `offset` is committed for `partition`."""
        self.partitions[partition].committed = offset

    def settled(self) -> None:
        """Note that nothing waits and nothing fails any more."""
        self._oldest = None
        self.attempts = 0
        self.failing_since = None

    def failed(self, now: float, at_least: float = 0.0) -> float:
        """Note a failure at `now` and return for how many seconds to let things rest."""
        pause = max(at_least, min(0.1 * 2.0**self.attempts, self.limits.longest_pause_seconds))
        self.attempts = min(self.attempts + 1, 16)
        self._retry_at = now + pause
        if self.failing_since is None:
            self.failing_since = now
        return pause
