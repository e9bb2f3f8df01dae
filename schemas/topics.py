"""Create the topics that the system needs, check those that exist, and read their offsets."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from schemas.streams import Stream

MAX_MESSAGE_BYTES = 2 * 1024 * 1024
# An event set apart carries headers on top of all that it was.
MAX_RAW_MESSAGE_BYTES = MAX_MESSAGE_BYTES + 512 * 1024
# Clocks drift by seconds; one that is set to another time zone is an hour off.
MAX_FUTURE_MS = 10 * 60 * 1000
# Kafka's own bound will do for a topic that is there.
_LONGEST_FUTURE_MS = 60 * 60 * 1000

_TIMEOUT_SECONDS = 20.0
_AGAIN_SECONDS = 0.1
AWAY = {
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TIMED_OUT,
    KafkaError._RESOLVE,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.BROKER_NOT_AVAILABLE,
}
"""What a client says of a broker that is not there."""
_REFUSED = {
    KafkaError._AUTHENTICATION,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
}
# What brokers say while topics come and go and leaders change: each knows of it at its own time.
_PASSING = {
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.REPLICA_NOT_AVAILABLE,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.NOT_CONTROLLER,
}
_QUIET = {"log_level": 0}

_KEEP_FOR_EVER = {"retention.ms": "-1", "max.message.bytes": str(MAX_MESSAGE_BYTES)}
_FUTURE = "message.timestamp.after.max.ms"
_EVENTS_CONFIG = _KEEP_FOR_EVER | {
    "cleanup.policy": "delete",
    "message.timestamp.type": "CreateTime",
    # A record from the far future would push the watermark past every event after it.
    _FUTURE: str(MAX_FUTURE_MS),
}
_VIEW_CONFIG = _KEEP_FOR_EVER | {"cleanup.policy": "compact"}
_RAW_CONFIG = _KEEP_FOR_EVER | {
    "cleanup.policy": "delete",
    "max.message.bytes": str(MAX_RAW_MESSAGE_BYTES),
}


T = TypeVar("T")


class KafkaUnavailable(Exception):
    """No broker answered, or one did not do what it was asked; `code` is its own, 0 without any."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code

    @property
    def refused(self) -> bool:
        """Whether Kafka does not know who asks, or does not allow it: asking again is no use."""
        return self.code in _REFUSED


class UnknownTopic(LookupError):
    """A topic that the cluster does not have."""


class TopicMismatch(Exception):
    """A topic that exists and differs from what the system needs."""


@dataclass(frozen=True)
class TopicSpec:
    """What a topic must be: made with so many partitions, with exactly these settings.

    One that is there has at least as many, or `least`.
    """

    name: str
    partitions: int
    config: Mapping[str, str]
    least: int | None = None


def ensure_events_topic(kafka: Mapping[str, Any], stream: Stream) -> int:
    """Create `stream`'s topic where it is missing; return its number of partitions.

    Raises `TopicMismatch` where it exists with fewer partitions or other settings.
    """
    return ensure_topic(kafka, TopicSpec(stream.topic, stream.partitions, _EVENTS_CONFIG))


def ensure_copy_topic(kafka: Mapping[str, Any], name: str, partitions: int) -> int:
    """Create topic `name` for a copy of an events topic; otherwise as `ensure_events_topic`."""
    return ensure_topic(kafka, TopicSpec(name, partitions, _EVENTS_CONFIG))


def ensure_view_topic(kafka: Mapping[str, Any], name: str, partitions: int) -> int:
    """Create the compacted topic `name` for a view's rows; one that is there may have fewer.

    More would move keys to other partitions, whose offsets are lower: newer rows would lose.
    """
    return ensure_topic(kafka, TopicSpec(name, partitions, _VIEW_CONFIG, least=1))


def ensure_raw_topic(kafka: Mapping[str, Any], name: str, partitions: int) -> int:
    """Create topic `name` for dead or late events; one that is there may have fewer partitions."""
    return ensure_topic(kafka, TopicSpec(name, partitions, _RAW_CONFIG, least=1))


def ensure_topic(kafka: Mapping[str, Any], spec: TopicSpec) -> int:
    """Create the topic of `spec`, or check the one there is; return its number of partitions."""
    admin = _admin(kafka)
    partitions = len(_partitions(admin, kafka, spec.name))
    if not partitions and _create(admin, spec):
        return _await_leaders(admin, kafka, spec.name, spec.partitions)
    # One that another process has just created may not be visible yet.
    partitions = partitions or _await_leaders(admin, kafka, spec.name, 1)
    least = spec.least or spec.partitions
    if partitions < least:
        raise TopicMismatch(
            f"topic {spec.name} has {partitions} partitions and needs {least}; "
            "add partitions while it is empty, or change the declaration."
        )
    resource = ConfigResource(ResourceType.TOPIC, spec.name)
    purpose = f"read topic {spec.name}"
    actual = again(lambda: _result(admin.describe_configs([resource])[resource], purpose))
    _check_config(spec, {name: entry.value for name, entry in actual.items()})
    return partitions


def partition_count(kafka: Mapping[str, Any], topic: str) -> int:
    """Return how many partitions `topic` has; 0 where there is no such topic."""
    return len(_partitions(_admin(kafka), kafka, topic))


def topic_names(kafka: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of all topics."""
    return frozenset(_topics(_admin(kafka), kafka))


def delete_topics(kafka: Mapping[str, Any], names: Collection[str]) -> None:
    """Delete the topics of `names` that exist, and wait until none of them is listed."""
    admin = _admin(kafka)
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while found := sorted(set(names) & set(_topics(admin, kafka))):
        if time.monotonic() > deadline:
            raise KafkaUnavailable(f"topics {', '.join(found)} are still there after their end.")
        for name, answer in admin.delete_topics(found, request_timeout=_TIMEOUT_SECONDS).items():
            try:
                _result(answer, f"delete topic {name}")
            except KafkaUnavailable as error:
                if error.code != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise
        admin.poll(0.1)


def delete_consumer_groups(kafka: Mapping[str, Any], groups: Collection[str]) -> None:
    """Delete the consumer groups of `groups` that exist, with their offsets."""
    admin = _admin(kafka)
    for group in groups:
        again(partial(_delete_group, admin, group))


def _delete_group(admin: AdminClient, group: str) -> None:
    try:
        _result(admin.delete_consumer_groups([group])[group], f"delete consumer group {group}")
    except KafkaUnavailable as error:
        if error.code != KafkaError.GROUP_ID_NOT_FOUND:
            raise


def delete_records(kafka: Mapping[str, Any], topic: str, begin: Mapping[int, int]) -> None:
    """Let each partition of `topic` begin at the offset that `begin` has for it."""
    # The answers come only while the client lives.
    admin = _admin(kafka)
    places = [TopicPartition(topic, part, offset) for part, offset in begin.items()]
    for answer in admin.delete_records(places, request_timeout=_TIMEOUT_SECONDS).values():
        _result(answer, f"delete the first records of {topic}")


def end_offsets(
    kafka: Mapping[str, Any], topic: str, *, read_committed: bool = False
) -> dict[int, int]:
    """Return for each partition the offset of its next record.

    With `read_committed` it is the last stable offset, up to which such readers come. Raises
    `UnknownTopic`.
    """
    return _offsets(kafka, topic, OffsetSpec.latest(), read_committed)


def begin_offsets(kafka: Mapping[str, Any], topic: str) -> dict[int, int]:
    """Return for each partition the offset of its first record, or raise `UnknownTopic`."""
    return _offsets(kafka, topic, OffsetSpec.earliest(), False)


@contextmanager
def explained(purpose: str, seconds: float = _TIMEOUT_SECONDS) -> Iterator[None]:
    """Raise `KafkaUnavailable` for what a client raises that was asked to do `purpose`."""
    try:
        yield
    except TimeoutError as error:
        raise KafkaUnavailable(f"Kafka did not {purpose} in {seconds:g} s.") from error
    except KafkaException as error:
        found = kafka_error(error)
        raise KafkaUnavailable(f"Kafka did not {purpose}: {found.str()}.", found.code()) from error


def again(ask: Callable[[], T], seconds: float = _TIMEOUT_SECONDS) -> T:
    """Return what `ask` does, asked again for so long while Kafka is amid a change."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return ask()
        except KafkaUnavailable as error:
            if error.code not in _PASSING or time.monotonic() > deadline:
                raise
        time.sleep(_AGAIN_SECONDS)


def kafka_error(exception: KafkaException) -> KafkaError:
    """Return the code and text inside `exception`."""
    error = exception.args[0]
    assert isinstance(error, KafkaError)
    return error


def _offsets(
    kafka: Mapping[str, Any], topic: str, spec: OffsetSpec, read_committed: bool
) -> dict[int, int]:
    admin = _admin(kafka)
    level = IsolationLevel.READ_COMMITTED if read_committed else IsolationLevel.READ_UNCOMMITTED

    def look() -> dict[int, int]:
        # Anew each time, as the topic may be gone by now.
        partitions = _partitions(admin, kafka, topic)
        if not partitions:
            raise UnknownTopic(f"there is no topic {topic} at {_address(kafka)}.")
        places = {TopicPartition(topic, partition): spec for partition in partitions}
        return _listed(admin, places, level, f"read the offsets of {topic}")

    return again(look)


def _listed(
    admin: AdminClient,
    places: dict[TopicPartition, OffsetSpec],
    level: IsolationLevel,
    purpose: str,
) -> dict[int, int]:
    answers = admin.list_offsets(places, isolation_level=level, request_timeout=_TIMEOUT_SECONDS)
    found = {
        place.partition: int(_result(answer, purpose).offset) for place, answer in answers.items()
    }
    return dict(sorted(found.items()))


def _create(admin: AdminClient, spec: TopicSpec) -> bool:
    """Create the topic of `spec`; False where another process was faster, which is as good."""
    topic = NewTopic(spec.name, num_partitions=spec.partitions, config=dict(spec.config))
    answers = admin.create_topics([topic], operation_timeout=_TIMEOUT_SECONDS)
    try:
        _result(answers[spec.name], f"create topic {spec.name}")
    except KafkaUnavailable as error:
        if error.code != KafkaError.TOPIC_ALREADY_EXISTS:
            raise
        return False
    return True


def _await_leaders(admin: AdminClient, kafka: Mapping[str, Any], topic: str, wanted: int) -> int:
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while True:
        found = _partitions(admin, kafka, topic)
        if len(found) >= wanted and all(found.values()):
            return len(found)
        if time.monotonic() > deadline:
            raise KafkaUnavailable(
                f"topic {topic} was created but has no leader after {_TIMEOUT_SECONDS:g} s; "
                "look at the broker's log."
            )
        admin.poll(0.05)


def _check_config(spec: TopicSpec, actual: Mapping[str, str | None]) -> None:
    wrong = [
        f"{name} is {actual.get(name)} and must be {value}"
        for name, value in spec.config.items()
        if not _does(name, actual.get(name), value)
    ]
    if wrong:
        settings = ",".join(
            f"{name}={value}"
            for name, value in spec.config.items()
            if not _does(name, actual.get(name), value)
        )
        raise TopicMismatch(
            f"topic {spec.name}: {'; '.join(wrong)}. Set it with: kafka-configs.sh --alter "
            f"--entity-type topics --entity-name {spec.name} --add-config {settings}"
        )


def _does(name: str, found: str | None, wanted: str) -> bool:
    if name == _FUTURE and found:
        return int(found) <= _LONGEST_FUTURE_MS
    return found == wanted


def _partitions(admin: AdminClient, kafka: Mapping[str, Any], topic: str) -> dict[int, bool]:
    """Return whether each partition of `topic` has a leader; empty where there is no topic."""
    topics = _topics(admin, kafka)
    if topic not in topics:
        return {}
    return {number: state.leader >= 0 for number, state in topics[topic].partitions.items()}


def _topics(admin: AdminClient, kafka: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        # All of them, because asking for one could create it.
        return admin.list_topics(timeout=_TIMEOUT_SECONDS).topics
    except KafkaException as error:
        raise KafkaUnavailable(
            f"no Kafka broker answers at {_address(kafka)}: {kafka_error(error).str()}; "
            "is it running?",
            kafka_error(error).code(),
        ) from error


def _result(answer: Future[Any], purpose: str) -> Any:
    with explained(purpose):
        return answer.result(timeout=_TIMEOUT_SECONDS)


def _admin(kafka: Mapping[str, Any]) -> AdminClient:
    # Errors come back as exceptions; what the client says besides would disturb a command's output.
    try:
        return AdminClient({**_QUIET, **kafka})
    except KafkaException as error:
        raise KafkaUnavailable(
            f"no client for Kafka at {_address(kafka)} can be set up: {kafka_error(error).str()}."
        ) from error


def _address(kafka: Mapping[str, Any]) -> str:
    return str(kafka.get("bootstrap.servers", "(no address)"))
