"""A Kafka client's answers without a broker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

MOVED = KafkaException(KafkaError(KafkaError.NOT_LEADER_FOR_PARTITION))
ELSEWHERE = KafkaException(KafkaError(KafkaError.NOT_COORDINATOR))
NO_TOPIC = KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
NO_RIGHT = KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
NO_GROUP_RIGHT = KafkaException(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED))


def answer(given: Any) -> Future[Any]:
    found: Future[Any] = Future()
    if isinstance(given, Exception):
        found.set_exception(given)
    else:
        found.set_result(given)
    return found


class Admin:
    """A client that knows `names`, of one partition each, and gives `answers` one by one."""

    def __init__(self, names: list[str], answers: list[Any]) -> None:
        self.names = names
        self.answers = iter(answers)
        self.asked: list[list[str]] = []

    def list_topics(self, timeout: float) -> Any:
        partitions = {0: SimpleNamespace(leader=0)}
        return SimpleNamespace(
            topics={name: SimpleNamespace(partitions=partitions) for name in self.names}
        )

    def list_offsets(
        self, places: Mapping[TopicPartition, Any], **_: Any
    ) -> dict[TopicPartition, Any]:
        self.asked.append(sorted(place.topic for place in places))
        given = next(self.answers)
        return {place: answer(given) for place in places}

    def list_consumer_groups(self) -> Future[Any]:
        return answer(SimpleNamespace(valid=[]))

    def describe_consumer_groups(self, groups: list[str]) -> dict[str, Future[Any]]:
        return {group: answer(next(self.answers)) for group in groups}

    delete_consumer_groups = describe_consumer_groups


class Times:
    """A consumer that answers when it is asked for the offset of a time."""

    def __init__(self, *answers: KafkaException | int) -> None:
        self.answers: Iterator[KafkaException | int] = iter(answers)

    def offsets_for_times(self, asked: list[TopicPartition], timeout: float) -> list[Any]:
        given = next(self.answers)
        wrong = isinstance(given, KafkaException)
        return [
            SimpleNamespace(error=given.args[0] if wrong else None, offset=None if wrong else given)
        ]


def offset(at: int) -> Any:
    return SimpleNamespace(offset=at)
