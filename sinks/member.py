"""One member of the loaders' group: reads its partitions, inserts, then commits.

A crash between insert and commit repeats a batch; `_revision` makes that harmless. The committed
offset carries the identity of the table it was loaded into, so that a table which was dropped is
loaded again from the topic's start.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable
from itertools import groupby
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from schemas.registry import Registry, RegistryError, RegistryUnavailable
from schemas.topics import kafka_error
from sinks.batches import Batch, Limits
from sinks.clickhouse import ClickHouse, ClickHouseFailed
from sinks.metrics import Health, LoaderMetrics
from sinks.rows import BadRecord
from sinks.tables import InvalidViewSchema
from sinks.target import Target
from sinks.topics import Source, UnknownTopicName, ViewTopic, parse_topic, subscription

_LOG = logging.getLogger("kappa.loader")
_FETCH = 10_000
_POLL_SECONDS = 0.1
_LAG_SECONDS = 1.0
_TABLES_SECONDS = 5.0
_KAFKA_SECONDS = 10.0
# These pass by themselves: wait, and try the same again.
_PASSING = (ClickHouseFailed, RegistryUnavailable, KafkaException)
_REFUSED_SECONDS = 60.0


class LoaderStopped(Exception):
    """The loader can't go on; the message says why."""


class TopicChanged(Exception):
    """A topic can't be loaded on without losing something; the message says where and why."""


_REFUSED = (BadRecord, InvalidViewSchema, RegistryError, TopicChanged)
"""Somebody must do something about these, and only their own topic waits for it."""


class Loader:
    """One member of the loaders' group: reads its share of partitions until told to stop."""

    def __init__(
        self,
        config: dict[str, Any],
        prefix: str,
        clickhouse: ClickHouse,
        registry: Registry,
        *,
        limits: Limits | None = None,
        metrics: LoaderMetrics | None = None,
        health: Health | None = None,
        clock: Callable[[], float] = time.monotonic,
        keeps_going: bool = False,
    ) -> None:
        self._consumer = Consumer(config)
        self._prefix = prefix
        self._target = Target(clickhouse, registry, self._versions)
        self._limits = limits or Limits()
        self._metrics = metrics or LoaderMetrics()
        self._health = health or Health()
        self._clock = clock
        self._refused = _REFUSED if keeps_going else ()
        self._told: dict[str, str] = {}
        self._batches: dict[str, Batch] = {}
        self._lost_offsets: set[tuple[str, int]] = set()
        self._place_at = self._lag_at = self._tables_at = 0.0

    def run(self, stop: Callable[[], bool]) -> None:
        """Load until `stop` returns true, then finish the batch, commit and leave the group.

        Raises `LoaderStopped`; unless it keeps going also `BadRecord`, `InvalidViewSchema`,
        `RegistryError` and `TopicChanged`.
        """
        self._consumer.subscribe(
            subscription(self._prefix),
            on_assign=self._assigned,
            on_revoke=self._revoked,
            on_lost=self._lost,
        )
        try:
            while not stop():
                self._step()
            for topic in list(self._batches):
                self._flush(topic)
        finally:
            self._consumer.close()

    def waiting(self) -> int:
        """Return how many records were read and are not loaded yet."""
        return sum(len(batch.records) for batch in self._batches.values())

    def _step(self) -> None:
        messages = self._consumer.consume(_FETCH, _POLL_SECONDS)
        self._take(messages)
        self._place_held()
        for topic in [t for t, batch in self._batches.items() if batch.due(self._clock())]:
            self._flush(topic)
            self._health.beat()
            if self._batches[topic].failing_since is not None:
                # A ClickHouse that hangs takes a minute of each, and the group waits for five.
                break
        self._check_tables()
        self._measure_lag()
        self._health.beat()

    # Reading

    def _take(self, messages: list[Message]) -> None:
        now = self._clock()
        for topic, run in groupby(messages, key=Message.topic):
            part = list(run)
            events = [message for message in part if message.error() is not None]
            if events:
                part = [message for message in part if message.error() is None]
            batch = self._batches.get(topic or "")
            if batch is not None and part:
                batch.add(part, sum(map(len, part)), now)
            for event in events:
                self._event(event, now)

    def _event(self, event: Message, now: float) -> None:
        error, topic, partition = event.error(), event.topic() or "", event.partition()
        assert error is not None
        batch = self._batches.get(topic)
        if error.code() == KafkaError._PARTITION_EOF and batch is not None:
            batch.reached(partition, event.offset() or 0, now)
        elif error.code() == KafkaError._AUTO_OFFSET_RESET and batch is not None:
            self._lost_offsets.add((topic, partition or 0))
            self._hold(topic, [partition or 0])
        elif error.fatal():
            raise LoaderStopped(f"Kafka: {error.str()}.")
        elif error.code() != KafkaError._PARTITION_EOF and not topic.startswith("^"):
            # A pattern that matches no topic yet is reported too, and is no trouble.
            _LOG.warning("topic %s: %s", topic, error.str())

    # Partitions come and go

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for place in partitions:
            source = parse_topic(place.topic, self._prefix)
            self._metrics.expects(source)
            batch = self._batches.setdefault(place.topic, Batch(source, self._limits))
            batch.hold([place.partition])
        consumer.incremental_assign(
            [TopicPartition(place.topic, place.partition, OFFSET_BEGINNING) for place in partitions]
        )
        if partitions:
            consumer.pause(partitions)
        self._place_at = 0.0

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        try:
            for topic in {place.topic for place in partitions}:
                self._flush(topic)
        finally:
            self._lost(consumer, partitions)

    def _lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for topic in {place.topic for place in partitions}:
            batch = self._batches[topic]
            batch.forget([place.partition for place in partitions if place.topic == topic])
            if batch.held or batch.partitions:
                self._settle(topic)
            else:
                del self._batches[topic]
                self._recovered(topic)
        consumer.incremental_unassign(partitions)

    def _hold(self, topic: str, partitions: Collection[int]) -> None:
        self._consumer.pause(_places(topic, partitions))
        self._batches[topic].hold(partitions)
        self._place_at = 0.0

    def _place_held(self) -> None:
        now = self._clock()
        held = [
            place for topic, batch in self._batches.items() for place in _places(topic, batch.held)
        ]
        if not held or now < self._place_at:
            return
        refused = False
        try:
            for topic in {place.topic for place in held}:
                self._target.prepare(self._batches[topic].source)
            tables = self._target.table_ids()
            for place in self._consumer.committed(held, timeout=_KAFKA_SECONDS):
                try:
                    self._place(place, tables)
                except self._refused as error:
                    refused = True
                    self._refuse(place.topic, error)
            self._health.recovered("start")
            if refused:
                # Looking for its newest row may take long, and all topics wait meanwhile.
                took = self._clock() - now
                self._place_at = self._clock() + max(self._limits.longest_pause_seconds, 9 * took)
        except _PASSING as error:
            self._place_at = self._clock() + self._limits.longest_pause_seconds / 5
            self._health.trouble("start", _reason(error))
            _LOG.warning("can't begin to load yet: %s", _reason(error))

    def _place(self, place: TopicPartition, tables: dict[str, str]) -> None:
        if place.error is not None:
            raise KafkaException(place.error)
        batch = self._batches[place.topic]
        table_id = tables.get(batch.source.table, "")
        # An offset that was loaded into another table says nothing about this one.
        known = place.offset >= 0 and (place.metadata or "") == table_id
        offset = place.offset if known else OFFSET_BEGINNING
        lost = offset if known and (place.topic, place.partition) in self._lost_offsets else None
        if not known and table_id:
            lost = self._of_another_topic(place, batch.source)
        if lost is not None:
            raise TopicChanged(
                f"topic {place.topic}, partition {place.partition} has no record at offset "
                f"{lost} any more, where loading stopped: it was cut or created anew. To load "
                f"what it has now, drop table {batch.source.table}."
            )
        self._consumer.seek(TopicPartition(place.topic, place.partition, offset))
        if batch.failing_since is None:
            # Else what waits is loaded before more is read.
            self._consumer.resume([place])
        self._lost_offsets.discard((place.topic, place.partition))
        batch.place(place.partition, offset if known else None, table_id)
        self._settle(place.topic)

    def _of_another_topic(self, place: TopicPartition, source: Source) -> int | None:
        """Return the offset of the newest row loaded, where that came from another topic.

        The offsets of a topic that is deleted are dropped with it. Of one created anew rows would
        be older revisions than those in the table, and be lost in silence. Such a one does not
        reach the newest row yet, or its first record was written after that.
        """
        if not isinstance(source, ViewTopic):
            return None
        newest = self._target.newest(source, place.partition)
        if newest is None:
            return None
        offset, moment = newest
        low, end = self._consumer.get_watermark_offsets(
            TopicPartition(place.topic, place.partition), timeout=_KAFKA_SECONDS
        )
        if offset >= end:
            return offset
        # Compaction leaves a topic's start behind: then nothing is known of what stood there.
        first, later = (self._first_since(place, since) for since in (0, moment + 1))
        return offset if low == first == later else None

    def _first_since(self, place: TopicPartition, moment: int) -> int:
        """Return the offset of the first record written at `moment`, epoch ms, or after it."""
        asked = TopicPartition(place.topic, place.partition, moment)
        (found,) = self._consumer.offsets_for_times([asked], timeout=_KAFKA_SECONDS)
        if found.error is not None:
            raise KafkaException(found.error)
        return found.offset

    # Loading

    def _flush(self, topic: str) -> None:
        batch = self._batches[topic]
        if not batch.waits:
            return
        try:
            self._load(topic, batch)
            self._commit(topic, batch)
        except _PASSING as error:
            self._delay(topic, batch, error)
            return
        except self._refused as error:
            # The records are kept, so that nothing of theirs is passed over.
            batch.failed(self._clock(), at_least=_REFUSED_SECONDS)
            self._consumer.pause(_places(topic, batch.partitions))
            self._refuse(topic, error)
            return
        if batch.failing_since is not None:
            _LOG.info("%s is loaded again", topic)
            self._consumer.resume(_places(topic, batch.partitions))
            self._health.recovered(topic)
        batch.settled()
        self._settle(topic)

    def _load(self, topic: str, batch: Batch) -> None:
        started = self._clock()
        table_id = self._target.table_ids().get(batch.source.table, "")
        self._hold_strangers(topic, batch, table_id)
        records = batch.records
        loaded = self._target.load(batch.source, records, table_id)
        batch.loaded(loaded.table_id)
        if loaded.rows:
            self._metrics.batch_seconds.observe(self._clock() - started)
            self._metrics.rows.labels(batch.source.table).inc(loaded.rows)
            self._metrics.batches.labels(batch.source.table).inc()
        if not isinstance(batch.source, ViewTopic):
            self._metrics.judged(batch.source, records)
        elif loaded.newest_ms is not None:
            self._metrics.emitted(batch.source.view, loaded.newest_ms)

    def _check_tables(self) -> None:
        """Create tables of views without rows, and notice a dropped table where nothing is new."""
        if self._clock() < self._tables_at:
            return
        self._tables_at = self._clock() + _TABLES_SECONDS
        try:
            tables = self._target.table_ids()
            for topic, batch in self._batches.items():
                if batch.source.table in tables:
                    self._settle(topic)
                elif isinstance(batch.source, ViewTopic):
                    self._prepare_view(topic, batch.source)
        except _PASSING:
            return
        for topic, batch in self._batches.items():
            self._hold_strangers(topic, batch, tables.get(batch.source.table, ""))

    def _prepare_view(self, topic: str, source: ViewTopic) -> None:
        try:
            self._target.prepare_view(source, topic)
        except _PASSING:
            raise
        except self._refused as error:
            self._refuse(topic, error)
        else:
            self._settle(topic)

    def _hold_strangers(self, topic: str, batch: Batch, table_id: str) -> None:
        if strangers := batch.strangers(table_id):
            _LOG.warning("table %s is not what it was: loading %s anew", batch.source.table, topic)
            self._hold(topic, strangers)

    def _commit(self, topic: str, batch: Batch) -> None:
        places = [
            TopicPartition(topic, partition, progress.loaded, metadata=progress.table_id)
            for partition, progress in batch.uncommitted().items()
        ]
        if not places:
            return
        for place in self._consumer.commit(offsets=places, asynchronous=False) or ():
            if place.error is not None:
                raise KafkaException(place.error)
            batch.committed(place.partition, place.offset)

    def _delay(self, topic: str, batch: Batch, error: Exception) -> None:
        pause = batch.failed(self._clock())
        self._consumer.pause(_places(topic, batch.partitions))
        self._metrics.failures.labels(topic).inc()
        self._health.trouble(topic, _reason(error))
        _LOG.warning("%s waits %.1f s: %s", topic, pause, _reason(error))

    def _refuse(self, topic: str, error: Exception) -> None:
        """Tell, once, that `topic` waits for somebody to do something about `error`."""
        self._metrics.failures.labels(topic).inc()
        self._health.trouble(topic, str(error))
        if self._told.get(topic) != str(error):
            self._told[topic] = str(error)
            _LOG.critical("%s is not loaded on: %s", topic, error)

    def _settle(self, topic: str) -> None:
        """Note that nothing of a refused `topic` waits any more, if that is so."""
        batch = self._batches[topic]
        if topic in self._told and batch.failing_since is None and not batch.held:
            self._recovered(topic)

    def _recovered(self, topic: str) -> None:
        self._told.pop(topic, None)
        self._health.recovered(topic)

    def _versions(self, view: str) -> frozenset[int]:
        found = self._consumer.list_topics(timeout=_KAFKA_SECONDS).topics
        sources = (_source(topic, self._prefix) for topic in found)
        return frozenset(
            one.version for one in sources if isinstance(one, ViewTopic) and one.view == view
        )

    def _measure_lag(self) -> None:
        if self._clock() < self._lag_at:
            return
        self._lag_at = self._clock() + _LAG_SECONDS
        for topic, batch in self._batches.items():
            lags = []
            for partition, progress in batch.partitions.items():
                _, end = self._consumer.get_watermark_offsets(
                    TopicPartition(topic, partition), cached=True
                )
                lags.append(max(0, end - max(progress.loaded, 0)))
            self._metrics.lag.labels(topic).set(sum(lags))


def _places(topic: str, partitions: Iterable[int]) -> list[TopicPartition]:
    return [TopicPartition(topic, partition) for partition in partitions]


def _source(topic: str, prefix: str) -> object:
    try:
        return parse_topic(topic, prefix)
    except UnknownTopicName:
        return None


def _reason(error: Exception) -> str:
    return kafka_error(error).str() if isinstance(error, KafkaException) else str(error)
