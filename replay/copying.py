"""Write records to a topic of their own, each at the offset that it had in the original.

Where the original has offsets without a record, which transactions leave there, the copy gets such
offsets by transactions of its own: one offset after a record becomes the marker of a transaction
with this record, more become an aborted transaction. Readers of committed records see neither.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from replay.archive_files import ArchivedRecord, ArchiveFailed
from schemas.topics import MAX_MESSAGE_BYTES, KafkaUnavailable, delete_records, kafka_error

_SECONDS = 60.0
_POLL_SECONDS = 0.005
_REPORT_RECORDS = 5_000
# A transaction with many more would last so long that Kafka ends it by itself.
_TRANSACTION_RECORDS = 50_000


class Copier:
    """Appends to the topic `copy`; its first act is to end what a killed one left open there."""

    def __init__(self, kafka: Mapping[str, Any], copy: str) -> None:
        self.copy = copy
        self.kafka = {**kafka, "log_level": 3}
        options = {
            **self.kafka,
            "enable.idempotence": True,
            "compression.type": "lz4",
            "linger.ms": 20,
            "message.max.bytes": MAX_MESSAGE_BYTES,
            "queue.buffering.max.kbytes": 64 * 1024,
        }
        self.plain = Producer(options)
        self.transactional = Producer({**options, "transactional.id": f"kappa-{copy}"})
        with self._plain_errors():
            self.transactional.init_transactions(_SECONDS)

    def write(
        self, partition: int, records: Iterable[ArchivedRecord], start: int, end: int
    ) -> Iterator[int]:
        """Append `records`, of offsets `start` up to `end`; yield now and then how far it has come.

        Raises `ArchiveFailed` where the copy would come apart from the original.
        """
        with self._plain_errors(), closing(_Partition(self, partition, start)) as target:
            held: ArchivedRecord | None = None
            for record in records:
                # What follows a record decides whether it stands in a transaction.
                target.append(held, record.offset)
                if held is not None and held.offset % _REPORT_RECORDS == 0:
                    yield held.offset
                held = record
            target.append(held, end)
        yield end

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except KafkaException as error:
            raise KafkaUnavailable(
                f"{self.copy}: {kafka_error(error).str()}; the same command goes on."
            ) from error


class _Partition:
    """One partition of the copy, whose next offset is `at`."""

    def __init__(self, copier: Copier, number: int, at: int) -> None:
        self._copier = copier
        self._place = TopicPartition(copier.copy, number)
        self._at = at
        self._newest_ms = 0
        self._failures: list[str] = []
        self._watcher = Consumer(
            {
                **copier.kafka,
                "group.id": "kappa-reader",
                "isolation.level": "read_uncommitted",
                "enable.auto.commit": False,
            }
        )

    def append(self, record: ArchivedRecord | None, end: int) -> None:
        """Write `record`, if any, at the next offset, and none from there up to `end`."""
        gap = end - self._at - (record is not None)
        if gap < 0:
            raise ArchiveFailed(f"{self._name}: offset {end} comes after {self._at}.")
        if record is not None:
            self._newest_ms = record.timestamp_ms
            if gap == 1:
                self._transaction([record], commit=True)
                return
            self._send(self._copier.plain, record)
        if gap == 1:
            self._begin_after_one()
            return
        while gap:
            part = min(gap, _TRANSACTION_RECORDS)
            # A marker can't stand alone.
            part -= gap - part == 1
            # Its time must not be newer than the events' before it: it tells what is late.
            nothing = ArchivedRecord(-1, self._newest_ms, None, None)
            self._transaction([nothing] * (part - 1), commit=False)
            gap -= part

    def close(self) -> None:
        """Wait until the broker has all records."""
        try:
            self._flush(self._copier.plain)
        finally:
            self._watcher.close()

    def _transaction(self, records: Sequence[ArchivedRecord], *, commit: bool) -> None:
        producer = self._copier.transactional
        self._flush(self._copier.plain)
        producer.begin_transaction()
        for record in records:
            self._send(producer, record)
        self._flush(producer)
        (producer.commit_transaction if commit else producer.abort_transaction)(_SECONDS)
        self._at += 1
        self._await_end()

    def _await_end(self) -> None:
        """Wait for a transaction's marker, which may come after the word that it has ended."""
        deadline = time.monotonic() + _SECONDS
        while (end := self._end()) < self._at:
            if time.monotonic() > deadline:
                raise KafkaUnavailable(f"{self._name} ends no transaction; try again.")
            time.sleep(_POLL_SECONDS)
        if end > self._at:
            raise ArchiveFailed(f"{self._name} goes to {end}, not {self._at}; {_OTHER}")

    def _end(self) -> int:
        _, end = self._watcher.get_watermark_offsets(self._place, timeout=_SECONDS, cached=False)
        return int(end)

    def _begin_after_one(self) -> None:
        """Let the partition begin with the second offset, as the first has no record."""
        if self._at:
            raise ArchiveFailed(f"{self._name} has no record to lead to {self._at}; {_OTHER}")
        self._send(self._copier.plain, ArchivedRecord(0, 0, None, None))
        self._flush(self._copier.plain)
        begin = {self._place.partition: self._at}
        delete_records(self._copier.kafka, self._place.topic, begin)

    def _send(self, producer: Producer, record: ArchivedRecord) -> None:
        delivered = self._check(self._at)
        self._at += 1
        while True:
            try:
                producer.produce(
                    self._place.topic,
                    value=record.value,
                    key=record.key,
                    headers=_headers(record),
                    partition=self._place.partition,
                    # Zero is what the client takes for now, which would be the newest of all.
                    timestamp=record.timestamp_ms or 1,
                    on_delivery=delivered,
                )
            except BufferError:
                producer.poll(0.1)
                continue
            producer.poll(0)
            break
        self._raise_failure()

    def _check(self, expected: int) -> Callable[[KafkaError | None, Any], None]:
        def delivered(error: KafkaError | None, message: Any) -> None:
            if error is not None:
                self._failures.append(f"{self._name} took no record: {error.str()}")
            elif message.offset() != expected:
                self._failures.append(
                    f"{self._name} has offset {message.offset()} for {expected}; {_OTHER}"
                )

        return delivered

    def _flush(self, producer: Producer) -> None:
        if producer.flush(_SECONDS):
            raise KafkaUnavailable(f"Kafka took no record in {_SECONDS:.0f} s; try again.")
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failures:
            raise ArchiveFailed(self._failures[0])

    @property
    def _name(self) -> str:
        return f"{self._place.topic}[{self._place.partition}]"


_OTHER = "another process wrote there. Try again."


def _headers(record: ArchivedRecord) -> Any:
    # The client's types know nothing of a header without a value; Kafka and the client do.
    return list(record.headers)
