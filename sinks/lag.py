"""Read how far the loader, and other consumers, are behind the ends of their topics."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from schemas.topics import AWAY, KafkaUnavailable, again, kafka_error
from sinks.topics import UnknownTopicName, parse_topic

_TIMEOUT_SECONDS = 10.0

P = ParamSpec("P")
T = TypeVar("T")


def _again(look: Callable[P, T]) -> Callable[P, T]:
    """Let `look`, which lists partitions itself, look again while topics and leaders change."""

    @wraps(look)
    def looked(*given: P.args, **named: P.kwargs) -> T:
        return again(partial(look, *given, **named), _TIMEOUT_SECONDS)

    return looked


@dataclass(frozen=True)
class PartitionLag:
    """How far a consumer group is in one partition; offsets are those of the next record.

    `committed` is the partition's first offset where nothing is committed. `end` is the last
    stable offset, up to which readers of committed records come.
    """

    group: str
    topic: str
    partition: int
    committed: int
    end: int

    @property
    def lag(self) -> int:
        """Number of offsets that are not consumed yet."""
        return max(0, self.end - self.committed)


@dataclass(frozen=True)
class StableOffset:
    """Where a partition's last stable offset is, and its end; transactions are open between."""

    topic: str
    partition: int
    stable: int
    end: int


class LagReader:
    """Reads lags from the Kafka that `kafka`, a client's settings, leads to."""

    def __init__(self, kafka: Mapping[str, Any]) -> None:
        # A broker that is down is told in one sentence, not by the client's log.
        self._kafka = {**kafka, "log_level": 0}
        self._client: AdminClient | None = None
        self._address = kafka.get("bootstrap.servers", "")

    @property
    def _admin(self) -> AdminClient:
        if self._client is None:
            self._client = AdminClient(self._kafka)
        return self._client

    @_again
    def loader(
        self,
        group: str,
        prefix: str = "",
        table_ids: Mapping[str, str] | None = None,
        only: Collection[str] | None = None,
    ) -> list[PartitionLag]:
        """Return the lag of the loaders' `group` in every partition of the topics to load.

        With `table_ids`, the identities of the tables, an offset counts only for the table it
        was loaded into; a table that was dropped is then all to be loaded. With `only`, no other
        topics are asked about.
        """
        partitions = self._partitions(
            lambda topic: _is_ours(topic, prefix) and (only is None or topic in only)
        )
        committed = {
            _key(place): place.offset
            for place in self._committed(group)
            if _is_ours(place.topic, prefix) and _counts(place, prefix, table_ids)
        }
        return self._lags(group, partitions, committed)

    @_again
    def readers(self, topic_start: str, but: str) -> list[PartitionLag]:
        """Return the lags of all groups except `but` in topics that begin with `topic_start`."""
        partitions = self._partitions(lambda topic: topic.startswith(topic_start))
        found: list[PartitionLag] = []
        for group in self._groups():
            if group == but:
                continue
            committed = {
                _key(place): place.offset
                for place in self._offsets_of(group)
                if _key(place) in partitions
            }
            found += self._lags(group, list(committed), committed)
        return found

    @_again
    def committed(self, group: str) -> dict[tuple[str, int], int]:
        """Return what `group` has committed, by topic and partition."""
        return {_key(p): p.offset for p in self._committed(group) if p.offset >= 0}

    @_again
    def ends(self, topic_start: str) -> dict[tuple[str, int], int]:
        """Return the end of every partition of the topics that begin with `topic_start`."""
        partitions = self._partitions(lambda topic: topic.startswith(topic_start))
        return self._offsets(partitions, OffsetSpec.latest())

    @_again
    def stable_offsets(self, prefix: str = "") -> list[StableOffset]:
        """Return how far committed records reach in every partition of the topics to load."""
        partitions = self._partitions(lambda topic: _is_ours(topic, prefix))
        # In this order, so that a transaction that ends in between looks closed.
        ends = self._offsets(partitions, OffsetSpec.latest(), IsolationLevel.READ_UNCOMMITTED)
        stable = self._offsets(partitions, OffsetSpec.latest())
        return [StableOffset(*key, stable[key], ends[key]) for key in sorted(partitions)]

    @_again
    def newest(self, topic_start: str) -> dict[str, int]:
        """Return the newest record timestamp, epoch ms, of each topic that begins so."""
        partitions = self._partitions(lambda topic: topic.startswith(topic_start))
        found: dict[str, int] = {}
        for place, answer in self._listed(partitions, OffsetSpec.max_timestamp()).items():
            moment = int(self._wait(answer, f"read the times of {place.topic}").timestamp)
            if moment >= 0:
                found[place.topic] = max(moment, found.get(place.topic, 0))
        return found

    def _lags(
        self,
        group: str,
        partitions: list[tuple[str, int]],
        committed: Mapping[tuple[str, int], int],
    ) -> list[PartitionLag]:
        ends = self._offsets(partitions, OffsetSpec.latest())
        fresh = [key for key in partitions if committed.get(key, -1) < 0]
        starts = self._offsets(fresh, OffsetSpec.earliest())
        return [
            PartitionLag(group, *key, starts[key] if key in starts else committed[key], ends[key])
            for key in sorted(partitions)
        ]

    def _partitions(self, wanted: Callable[[str], bool]) -> list[tuple[str, int]]:
        try:
            topics = self._admin.list_topics(timeout=_TIMEOUT_SECONDS).topics
        except KafkaException as error:
            raise self._failed(error, "list its topics") from error
        return [
            (name, partition)
            for name, topic in topics.items()
            if wanted(name)
            for partition in topic.partitions
        ]

    def _committed(self, group: str) -> list[TopicPartition]:
        # Asked for a group that no coordinator has, librdkafka may end the process (SIGSEGV).
        return self._offsets_of(group) if group in self._groups() else []

    def _groups(self) -> list[str]:
        found = self._wait(self._admin.list_consumer_groups(), "list the consumer groups").valid
        return sorted(one.group_id for one in found)

    def _offsets_of(self, group: str) -> list[TopicPartition]:
        request = ConsumerGroupTopicPartitions(group)
        (answer,) = self._admin.list_consumer_group_offsets([request]).values()
        return list(self._wait(answer, f"read the offsets of {group}").topic_partitions)

    def _offsets(
        self,
        partitions: list[tuple[str, int]],
        spec: OffsetSpec,
        isolation: IsolationLevel = IsolationLevel.READ_COMMITTED,
    ) -> dict[tuple[str, int], int]:
        return {
            _key(place): int(self._wait(answer, f"read the offsets of {place.topic}").offset)
            for place, answer in self._listed(partitions, spec, isolation).items()
        }

    def _listed(
        self,
        partitions: list[tuple[str, int]],
        spec: OffsetSpec,
        isolation: IsolationLevel = IsolationLevel.READ_COMMITTED,
    ) -> dict[TopicPartition, Future[Any]]:
        if not partitions:
            return {}
        answers: dict[TopicPartition, Future[Any]] = self._admin.list_offsets(
            {TopicPartition(*key): spec for key in partitions},
            isolation_level=isolation,
            request_timeout=_TIMEOUT_SECONDS,
        )
        return answers

    def _wait(self, answer: Future[T], purpose: str) -> T:
        try:
            return answer.result(timeout=_TIMEOUT_SECONDS)
        except KafkaException as error:
            raise self._failed(error, purpose) from error
        except TimeoutError as error:
            self._client = None
            raise KafkaUnavailable(f"Kafka did not {purpose} in {_TIMEOUT_SECONDS:g} s.") from error

    def _failed(self, error: KafkaException, purpose: str) -> KafkaUnavailable:
        found = kafka_error(error)
        if found.code() not in AWAY:
            return KafkaUnavailable(f"Kafka did not {purpose}: {found.str()}.", found.code())
        # One that saw its broker die may not find the next for as long as it lives.
        self._client = None
        return KafkaUnavailable(
            f"Kafka at {self._address} does not answer: {found.str()}; is it running?",
            found.code(),
        )


def _key(place: TopicPartition) -> tuple[str, int]:
    return place.topic, place.partition


def _counts(place: TopicPartition, prefix: str, table_ids: Mapping[str, str] | None) -> bool:
    if table_ids is None:
        return True
    table = parse_topic(place.topic, prefix).table
    return (place.metadata or "") == table_ids.get(table, "")


def _is_ours(topic: str, prefix: str) -> bool:
    try:
        parse_topic(topic, prefix)
    except UnknownTopicName:
        return False
    return True
