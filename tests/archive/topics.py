"""Take the first events of a topic away, as Kafka's retention does."""

from __future__ import annotations

from collections.abc import Mapping

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from tests.harness import Environment


def delete_before(env: Environment, offsets: Mapping[int, int]) -> None:
    """Delete the records of the events topic that lie before `offsets`, by partition."""
    admin = AdminClient(env.settings.kafka_client)
    places = [TopicPartition(env.stream.topic, part, end) for part, end in offsets.items()]
    for answer in admin.delete_records(places).values():
        answer.result(timeout=20)
