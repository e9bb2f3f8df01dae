"""How one run of a job differs from another, and the Kafka options that follow from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from jobs.plan import whole_ms
from jobs.start import Start
from schemas.topics import MAX_RAW_MESSAGE_BYTES


@dataclass(frozen=True)
class JobOptions:
    """How one run of a job differs from another; the plan says what it computes."""

    kafka: dict[str, str]
    registry_url: str
    schema_ids: dict[str, int]
    early_fire: timedelta
    checkpoint_interval: timedelta
    idle_timeout: timedelta | None
    transaction_timeout: timedelta = timedelta(minutes=10)
    bundle_time: timedelta = timedelta(milliseconds=200)
    batch_events: int = 100_000
    buckets: int = 16
    start: Start = field(default_factory=Start)


def client_options(options: JobOptions) -> str:
    """Return the settings of every Kafka client, as options of a Flink table."""
    return ",\n".join(f"'properties.{key}' = '{value}'" for key, value in options.kafka.items())


def sink_options(transactions: str, options: JobOptions) -> str:
    """Return the options of an exactly-once Kafka table, its transactions named alike."""
    return f"""
            'sink.delivery-guarantee' = 'exactly-once',
            'sink.transactional-id-prefix' = '{transactions}',
            'properties.transaction.timeout.ms' = '{whole_ms(options.transaction_timeout)}',
            'properties.compression.type' = 'lz4',
            'properties.max.request.size' = '{MAX_RAW_MESSAGE_BYTES}',
            'properties.linger.ms' = '5',
            {client_options(options)}"""
