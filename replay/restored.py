"""A rebuild's copy of an events topic that lacks its first events: archive, then topic.

What Kafka has dropped can't be put back into its topic. So the events up to the pinned offsets are
written once more, into a topic of the replay's own, each at the partition and offset that it had.
The rebuild reads that copy. Then it stops with a savepoint, and goes on from it in the stream's own
topic at exactly the pinned offsets: its panes come from the copy, what follows from the topic, and
no event from both. The copy is dropped; nothing has to keep it up.

A HybridSource would switch without a stop, but Flink gives its readers no partitions and offsets
in SQL or Python. A copy that a mirror keeps up for good would be a second source of truth.

Every offset has to hold an event. Where transactions left markers or aborted records, the copy
would come apart from the topic, and is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from itertools import chain
from typing import Any

from confluent_kafka import KafkaError, Producer

from replay.archive import read_records
from replay.archive_files import Archive, ArchivedRecord, ArchiveFailed
from schemas.streams import Stream
from schemas.topics import (
    MAX_MESSAGE_BYTES,
    KafkaUnavailable,
    delete_topics,
    end_offsets,
    ensure_copy_topic,
    partition_count,
)

_FLUSH_SECONDS = 60.0
_REPORT_RECORDS = 5_000

Progress = Callable[[int], None]
"""Told how many records the copy holds."""


def copy_topic(stream: Stream, version: int) -> str:
    """Return the topic with the copy for the rebuild of `version`."""
    return stream.prefixed(f"restored.{stream.name}.v{version}")


def covered(archive: Archive, begin: Mapping[int, int]) -> dict[int, int]:
    """Return by partition how far its archive goes from offset zero without a gap or a hole.

    Only partitions that begin later than that in the topic are looked at.
    """
    result = {}
    for part, first in begin.items():
        reached = 0
        for file in archive.files(part) if first > 0 else []:
            if file.first != reached or file.records != file.next - file.first:
                break
            reached = file.next
        result[part] = reached
    return result


def restore(
    kafka: Mapping[str, Any],
    topic: str,
    archive: Archive,
    copy: str,
    pinned: Mapping[int, int],
    progress: Progress = lambda records: None,
) -> int:
    """Let `copy` hold every event of `topic` before `pinned`, at its own offset; return how many.

    Goes on where a killed run stopped. Raises `ArchiveFailed` where an offset has no record; then
    the copy is gone again.
    """
    ensure_copy_topic(kafka, copy, partition_count(kafka, topic))
    there = end_offsets(kafka, copy)
    done = sum(there.values())
    try:
        for part, end in pinned.items():
            records = _originals(kafka, topic, archive, part, there[part], end)
            for offset in _write(kafka, copy, part, records, there[part], end):
                progress(done + offset - there[part])
            done += end - there[part]
    except ArchiveFailed:
        # Whatever stands in it may be out of step.
        delete_topics(kafka, [copy])
        raise
    return done


def _originals(
    kafka: Mapping[str, Any], topic: str, archive: Archive, partition: int, start: int, end: int
) -> Iterator[ArchivedRecord]:
    """Return the records from the archive as far as it goes, the others from the topic."""
    cut = min(archive.next_offset(partition) or 0, end)
    return chain(
        archive.records(partition, start, cut),
        read_records(kafka, topic, partition, max(start, cut), end),
    )


def _write(
    kafka: Mapping[str, Any],
    copy: str,
    partition: int,
    records: Iterator[ArchivedRecord],
    start: int,
    end: int,
) -> Iterator[int]:
    """Append `records`, of offsets `start` up to `end`; yield now and then how far it has come."""
    failures: list[str] = []

    def check(expected: int) -> Callable[[KafkaError | None, Any], None]:
        def delivered(error: KafkaError | None, message: Any) -> None:
            if error is not None:
                failures.append(f"{copy}[{partition}] took no record: {error.str()}")
            elif message.offset() != expected:
                failures.append(
                    f"{copy}[{partition}] has offset {message.offset()} for {expected}; another "
                    "process wrote there. Try again."
                )

        return delivered

    at = start
    with closing(_Writer(kafka)) as writer:
        for record in records:
            if record.offset != at or failures:
                break
            writer.send(copy, partition, record, check(at))
            at += 1
            if at % _REPORT_RECORDS == 0:
                yield at
    if failures:
        raise ArchiveFailed(failures[0])
    if at != end:
        raise ArchiveFailed(
            f"offset {at} of partition {partition} holds no event but what a transaction left, "
            f"so {copy} can't have the topic's offsets; --from-earliest rebuilds without the "
            "first events."
        )
    yield at


def _headers(record: ArchivedRecord) -> Any:
    # The client's types know nothing of a header without a value; Kafka and the client do.
    return list(record.headers)


class _Writer:
    """Appends records in order; `close` waits until the broker has them."""

    def __init__(self, kafka: Mapping[str, Any]) -> None:
        self._producer = Producer(
            {
                **kafka,
                "enable.idempotence": True,
                "compression.type": "lz4",
                "linger.ms": 20,
                "message.max.bytes": MAX_MESSAGE_BYTES,
                "queue.buffering.max.kbytes": 64 * 1024,
                "log_level": 3,
            }
        )

    def send(
        self, topic: str, partition: int, record: ArchivedRecord, delivered: Callable[..., None]
    ) -> None:
        while True:
            try:
                self._producer.produce(
                    topic,
                    value=record.value,
                    key=record.key,
                    headers=_headers(record),
                    partition=partition,
                    timestamp=record.timestamp_ms,
                    on_delivery=delivered,
                )
            except BufferError:
                self._producer.poll(0.1)
                continue
            self._producer.poll(0)
            return

    def close(self) -> None:
        if self._producer.flush(_FLUSH_SECONDS):
            raise KafkaUnavailable(f"Kafka took no record in {_FLUSH_SECONDS:.0f} s; try again.")
