"""Take the first events of a topic away, as Kafka's retention does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.harness import Environment, end_transaction
from tests.oracle import Record


def delete_before(env: Environment, offsets: Mapping[int, int]) -> None:
    """Delete the records of the events topic that lie before `offsets`, by partition."""
    admin = AdminClient(env.settings.kafka_client)
    places = [TopicPartition(env.stream.topic, part, end) for part, end in offsets.items()]
    for answer in admin.delete_records(places).values():
        answer.result(timeout=20)


def transaction(
    env: Environment, records: Sequence[Record], *, commit: bool = True, topic: str = ""
) -> None:
    """Write `records` to the events topic, or another, in one transaction, and end it."""
    producer = Producer(
        {"bootstrap.servers": env.settings.kafka, "transactional.id": env.settings.namespace}
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    for record in records:
        producer.produce(
            topic or env.stream.topic,
            record.value,
            record.key,
            partition=record.partition,
            timestamp=record.timestamp_ms,
        )
    assert producer.flush(30) == 0
    end_transaction(producer, env.settings.kafka_client, topic or env.stream.topic, commit=commit)
