"""Topics as the broker holds them: created once, checked ever after."""

from __future__ import annotations

from dataclasses import replace

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from deploy.settings import Settings
from schemas.producer import EventProducer
from schemas.registry import Registry
from schemas.streams import Stream
from schemas.topics import (
    KafkaUnavailable,
    TopicMismatch,
    UnknownTopic,
    begin_offsets,
    end_offsets,
    ensure_events_topic,
    ensure_raw_topic,
    ensure_view_topic,
    partition_count,
)


def config_of(settings: Settings, topic: str) -> dict[str, str]:
    resource = ConfigResource(ResourceType.TOPIC, topic)
    admin = AdminClient(settings.kafka_client)
    answer = admin.describe_configs([resource])[resource].result()
    return {name: str(entry.value) for name, entry in answer.items()}


def create(settings: Settings, topic: NewTopic) -> None:
    admin = AdminClient(settings.kafka_client)
    admin.create_topics([topic], operation_timeout=20)[topic.topic].result()


def test_events_topic_keeps_events_for_ever_and_refuses_the_future(
    settings: Settings, stream: Stream
) -> None:
    assert ensure_events_topic(settings.kafka_client, stream) == 4
    config = config_of(settings, stream.topic)
    assert config["retention.ms"] == "-1"
    assert config["cleanup.policy"] == "delete"
    assert config["message.timestamp.type"] == "CreateTime"
    assert config["message.timestamp.after.max.ms"] == "600000"
    assert config["max.message.bytes"] == "2097152"


def test_view_topic_is_compacted_and_raw_topic_is_not(settings: Settings, stream: Stream) -> None:
    view, raw = stream.prefixed("views.x.v1"), stream.prefixed("dlq.x")
    assert ensure_view_topic(settings.kafka_client, view, 3) == 3
    assert ensure_raw_topic(settings.kafka_client, raw, 2) == 2
    assert config_of(settings, view)["cleanup.policy"] == "compact"
    assert config_of(settings, raw)["cleanup.policy"] == "delete"
    assert config_of(settings, view)["retention.ms"] == "-1"


def test_existing_topic_is_left_as_it_is(settings: Settings, stream: Stream) -> None:
    ensure_events_topic(settings.kafka_client, stream)
    assert ensure_events_topic(settings.kafka_client, stream) == 4


@pytest.mark.parametrize(("hours", "does"), [(1, True), (2, False)])
def test_a_topic_that_lets_in_what_is_an_hour_ahead_will_do(
    settings: Settings, stream: Stream, hours: int, does: bool
) -> None:
    bound = {"message.timestamp.after.max.ms": str(hours * 3_600_000)}
    config = {"retention.ms": "-1", "max.message.bytes": "2097152", **bound}
    create(settings, NewTopic(stream.topic, 4, config=config))
    if does:
        assert ensure_events_topic(settings.kafka_client, stream) == 4
    else:
        with pytest.raises(TopicMismatch, match="is 7200000 and must be 600000"):
            ensure_events_topic(settings.kafka_client, stream)


def test_more_partitions_are_accepted_and_fewer_refused(settings: Settings, stream: Stream) -> None:
    ensure_events_topic(settings.kafka_client, stream)
    assert ensure_events_topic(settings.kafka_client, replace(stream, partitions=2)) == 4
    with pytest.raises(TopicMismatch, match=rf"{stream.topic} has 4 partitions and needs 8"):
        ensure_events_topic(settings.kafka_client, replace(stream, partitions=8))


def test_topics_of_rows_stay_as_they_are_when_events_get_another_partition(
    settings: Settings, stream: Stream
) -> None:
    view, raw = stream.prefixed("views.x.v1"), stream.prefixed("dlq.x")
    for ensure, topic in ((ensure_view_topic, view), (ensure_raw_topic, raw)):
        assert ensure(settings.kafka_client, topic, 4) == 4
        assert ensure(settings.kafka_client, topic, 5) == 4


def test_topic_that_would_lose_events_is_refused_with_the_remedy(
    settings: Settings, stream: Stream
) -> None:
    create(settings, NewTopic(stream.topic, 4, 1, config={"retention.ms": "60000"}))
    with pytest.raises(TopicMismatch, match=r"retention\.ms is 60000 and must be -1.*--add-config"):
        ensure_events_topic(settings.kafka_client, stream)


def test_offsets_count_what_each_partition_holds(
    settings: Settings, stream: Stream, registry: Registry
) -> None:
    with EventProducer(settings.kafka_client, registry, stream) as producer:
        for partition in (0, 2, 2):
            producer.send_raw(b"x", None, 1, partition)
    assert end_offsets(settings.kafka_client, stream.topic) == {0: 1, 1: 0, 2: 2, 3: 0}
    assert begin_offsets(settings.kafka_client, stream.topic) == {0: 0, 1: 0, 2: 0, 3: 0}
    stable = end_offsets(settings.kafka_client, stream.topic, read_committed=True)
    assert stable == {0: 1, 1: 0, 2: 2, 3: 0}


def test_asking_for_a_missing_topic_does_not_create_it(settings: Settings, stream: Stream) -> None:
    with pytest.raises(UnknownTopic, match=rf"no topic {stream.topic}"):
        end_offsets(settings.kafka_client, stream.topic)
    assert partition_count(settings.kafka_client, stream.topic) == 0


def test_absent_broker_is_named(settings: Settings, stream: Stream, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("schemas.topics._TIMEOUT_SECONDS", 0.5)
    with pytest.raises(KafkaUnavailable, match=r"no Kafka broker answers at 127\.0\.0\.1:1"):
        partition_count({"bootstrap.servers": "127.0.0.1:1", "log_level": 0}, stream.topic)
