"""How one run of a job differs from another, and the Kafka options that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from deploy.settings import Settings
from jobs.plan import whole_ms
from jobs.start import Start
from schemas.streams import Stream
from schemas.topics import MAX_RAW_MESSAGE_BYTES


@dataclass(frozen=True)
class JobOptions:
    """How one run of a job differs from another; the plan says what it computes.

    `kafka` are a Java client's properties, `registry_options` those of the avro-confluent format.
    Without an `idle_timeout` each stream's own counts; one of zero leaves no partition idle. Dead
    letters before `accepted`, (partition, offset) by stream, are no reason to stop. Without
    `exactly_once` rows show as they are written, and after a failure events may count twice.
    """

    kafka: dict[str, str]
    registry_url: str
    schema_ids: dict[str, int]
    early_fire: timedelta
    checkpoint_interval: timedelta
    idle_timeout: timedelta | None
    checkpoint_timeout: timedelta = timedelta(minutes=10)
    transaction_timeout: timedelta = timedelta(minutes=10)
    bundle_time: timedelta = timedelta(milliseconds=200)
    batch_events: int = 100_000
    buckets: int = 16
    exactly_once: bool = True
    start: Start = field(default_factory=Start)
    accepted: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    registry_options: Mapping[str, str] = field(default_factory=dict)


def client_options(options: JobOptions) -> str:
    """Return the settings of every Kafka client, as options of a Flink table."""
    return table_options({f"properties.{key}": value for key, value in options.kafka.items()})


def registry_options(settings: Settings) -> dict[str, str]:
    """Return what a Flink table needs to reach the registry, beside its address."""
    given = {}
    if settings.registry_user:
        # Flink hides options with this name wherever it shows a table's.
        password = settings.registry_password.get_secret_value()
        given["basic-auth.credentials-source"] = "USER_INFO"
        given["basic-auth.user-info"] = f"{settings.registry_user}:{password}"
    if settings.ca_file and settings.registry.startswith("https:"):
        given["ssl.truststore.location"] = settings.ca_file
        given["properties.schema.registry.ssl.truststore.type"] = "PEM"
    return given


def table_options(options: Mapping[str, str]) -> str:
    """Return `options` as they stand in a Flink table's WITH clause."""
    quoted = {key: value.replace("'", "''") for key, value in options.items()}
    return ",\n".join(f"'{key}' = '{value}'" for key, value in quoted.items())


def startup_options(start: Start) -> str:
    """Return the options of a Kafka table that is read from `start` on."""
    if not start.offsets:
        return "'scan.startup.mode' = 'earliest-offset'"
    places = ";".join(f"partition:{part},offset:{at}" for part, at in start.offsets.items())
    return f"""'scan.startup.mode' = 'specific-offsets',
            'scan.startup.specific-offsets' = '{places}'"""


def idle_option(stream: Stream, options: JobOptions) -> str:
    """Return the option after which a partition is idle; none where it never is."""
    chosen = options.idle_timeout
    idle = whole_ms(stream.idle_timeout if chosen is None else chosen)
    return f"'scan.watermark.idle-timeout' = '{idle} ms'," if idle else ""


def source_options(topic: str, group: str, options: JobOptions) -> str:
    """Return the options of a Kafka table that reads `topic` as consumer group `group`."""
    return f"""
            'connector' = 'kafka',
            'topic' = '{topic}',
            {startup_options(options.start)},
            'scan.topic-partition-discovery.interval' = '10 s',
            'properties.isolation.level' = 'read_committed',
            'properties.group.id' = '{group}',
            'properties.client.id.prefix' = '{group}',
            {client_options(options)}"""


def sink_options(transactions: str, options: JobOptions) -> str:
    """Return the options of a Kafka table whose transactions are named alike, where it has any."""
    if not options.exactly_once:
        return prompt_sink_options(options)
    return f"""
            'sink.delivery-guarantee' = 'exactly-once',
            'sink.transactional-id-prefix' = '{transactions}',
            'properties.transaction.timeout.ms' = '{whole_ms(options.transaction_timeout)}',
            {_producer_options(options)}"""


def prompt_sink_options(options: JobOptions) -> str:
    """Return the options of an at-least-once Kafka table, which every reader sees at once."""
    return f"""
            'sink.delivery-guarantee' = 'at-least-once',
            {_producer_options(options)}"""


def _producer_options(options: JobOptions) -> str:
    return f"""'properties.compression.type' = 'lz4',
            'properties.max.request.size' = '{MAX_RAW_MESSAGE_BYTES}',
            'properties.linger.ms' = '5',
            {client_options(options)}"""
