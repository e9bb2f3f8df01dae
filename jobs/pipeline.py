"""Build the Flink job of a plan: source, decode, dead and late letters, panes, view topics."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from pyflink.common import Configuration, Types
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.table import DataTypes, StatementSet, StreamTableEnvironment
from pyflink.table.udf import udf

from jobs.plan import JobPlan, used_fields, whole_ms
from jobs.start import Start
from schemas.topics import MAX_RAW_MESSAGE_BYTES
from udfs.functions import (
    NOT_LATE,
    AggregatePanes,
    DecodeEvents,
    DecodeSpec,
    PaneSpec,
    unpack_packet,
)
from udfs.lateness import milliseconds
from udfs.rows import RowEncoder

MAX_PARALLELISM = 128


@dataclass(frozen=True)
class JobOptions:
    """How one run of a job differs from another; the plan says what it computes."""

    kafka: dict[str, str]
    registry_url: str
    schema_ids: dict[str, int]
    early_fire: timedelta
    checkpoint_interval: timedelta
    idle_timeout: timedelta
    transaction_timeout: timedelta = timedelta(minutes=10)
    bundle_time: timedelta = timedelta(milliseconds=200)
    batch_events: int = 100_000
    buckets: int = 16
    start: Start = field(default_factory=Start)


def build(environment: StreamExecutionEnvironment, plan: JobPlan, options: JobOptions) -> Any:
    """Return the statement set of the job, ready to `execute()`."""
    tables = StreamTableEnvironment.create(environment)
    tables.get_config().set("table.local-time-zone", "UTC")
    tables.get_config().set("pipeline.name", plan.name)
    idle = f"{whole_ms(options.idle_timeout)} ms"
    tables.get_config().set("table.exec.source.idle-timeout", idle)
    if plan.copy:
        # Whoever goes on with this state reads another topic: with other names than its own,
        # nothing but the panes is handed over.
        tables.get_config().set("table.exec.uid.generation", "ALWAYS")
    keys = bucket_keys(plan, options.buckets)
    decoded = _decode(tables, plan, options, keys)
    records = _aggregate(tables, decoded, plan, options, keys)
    tables.execute_sql(_output_ddl(plan, options))
    tables.create_temporary_view("decoded", decoded)
    tables.create_temporary_view("view_records", records)
    statements: StatementSet = tables.create_statement_set()
    statements.add_insert_sql(_output_sql(plan))
    return statements


def configuration(options: JobOptions) -> Configuration:
    """Return the Flink settings that the job's correctness or speed depends on."""
    settings = {
        "execution.checkpointing.mode": "EXACTLY_ONCE",
        "execution.checkpointing.interval": f"{whole_ms(options.checkpoint_interval)} ms",
        "execution.checkpointing.min-pause": f"{whole_ms(options.checkpoint_interval) // 2} ms",
        "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        "state.backend.type": "rocksdb",
        "execution.checkpointing.incremental": "true",
        # Panes are rewritten and dropped soon: compressing them took a sixth of the JVM's time.
        "state.backend.rocksdb.compression.per.level": "NO_COMPRESSION",
        "pipeline.max-parallelism": str(MAX_PARALLELISM),
        "pipeline.object-reuse": "true",
        "python.fn-execution.bundle.time": str(whole_ms(options.bundle_time)),
        "python.fn-execution.bundle.size": str(options.batch_events),
        "python.fn-execution.arrow.batch.size": str(options.batch_events),
    }
    result = Configuration()
    for key, value in settings.items():
        result.set_string(key, value)
    return result


def state_locations(name: str) -> dict[str, str]:
    """Return the setting that gives job `name` a folder of its own below the cluster's.

    There its newest checkpoint can be found again by the job's name.
    """
    from pyflink.java_gateway import get_gateway

    cluster = get_gateway().jvm.org.apache.flink.configuration.GlobalConfiguration
    loaded = cluster.loadConfiguration()
    key = "execution.checkpointing.dir"
    base = loaded.getString(key, None)
    return {key: f"{base.rstrip('/')}/{name}"} if base else {}


def bucket_keys(plan: JobPlan, buckets: int) -> tuple[tuple[int, ...], ...]:
    """Return, per store, the Flink key of each bucket.

    Flink spreads keys over subtasks by hash. With few keys chance would load one subtask more
    than another, so the keys are picked for the key groups they hash to, evenly apart. They
    follow from the store's name, so that a store's state stays its own beside new stores.
    """
    from pyflink.java_gateway import get_gateway

    group_of = get_gateway().jvm.org.apache.flink.runtime.state.KeyGroupRangeAssignment
    result = []
    for store in plan.stores:
        count = buckets if store.dimensions else 1
        own = zlib.crc32(store.name.encode())
        keys, candidate = [], own >> 1
        for bucket in range(count):
            wanted = (bucket * MAX_PARALLELISM // count + own) % MAX_PARALLELISM
            while group_of.assignToKeyGroup(candidate, MAX_PARALLELISM) != wanted:
                candidate += 1
            keys.append(candidate)
            candidate += 1
        result.append(tuple(keys))
    return tuple(result)


def _decode(
    tables: StreamTableEnvironment,
    plan: JobPlan,
    options: JobOptions,
    keys: tuple[tuple[int, ...], ...],
) -> Any:
    """Return the decoded rows as a DataStream, which keeps the planner from decoding twice."""
    stream = plan.job.stream
    kafka = tuple(sorted(options.kafka.items()))
    spec = DecodeSpec(
        stream,
        plan.stores,
        tuple(sorted(used_fields(plan))),
        keys,
        options.registry_url,
        kafka,
        plan.events_topic,
        options.start.known,
    )
    tables.create_temporary_function("decode_events", decode_function(spec))
    tables.execute_sql(_source_ddl(plan, options))
    table = tables.sql_query(
        f"""
        SELECT k, v, source_partition, source_offset, verdict
        FROM (
            SELECT *, decode_events(
                v, source_partition, source_offset, CAST(ts AS TIMESTAMP(3)),
                CAST(CURRENT_WATERMARK(ts) AS TIMESTAMP(3))) AS verdict
            FROM source)
        WHERE verdict.reason IS NOT NULL
           OR verdict.missed_pane <> {NOT_LATE}
           OR verdict.packet IS NOT NULL
        """
    )
    return tables.from_data_stream(tables.to_data_stream(table))


def decode_function(spec: DecodeSpec) -> Any:
    """Return the decode function as Flink SQL calls it."""
    verdict = DataTypes.ROW(
        [
            DataTypes.FIELD("reason", DataTypes.STRING()),
            DataTypes.FIELD("detail", DataTypes.STRING()),
            DataTypes.FIELD("schema_id", DataTypes.BIGINT()),
            DataTypes.FIELD("event_ms", DataTypes.BIGINT()),
            DataTypes.FIELD("missed_pane", DataTypes.BIGINT()),
            DataTypes.FIELD("packet", DataTypes.BYTES()),
        ]
    )
    return udf(DecodeEvents(spec), result_type=verdict, func_type="pandas", deterministic=False)


def _aggregate(
    tables: StreamTableEnvironment,
    decoded: Any,
    plan: JobPlan,
    options: JobOptions,
    keys: tuple[tuple[int, ...], ...],
) -> Any:
    packets = tables.sql_query(
        f"SELECT t.verdict.packet AS packet FROM {decoded} AS t WHERE t.verdict.packet IS NOT NULL"
    )
    body = Types.PRIMITIVE_ARRAY(Types.BYTE())
    spec = PaneSpec(plan.stores, keys, _encoders(plan, options), whole_ms(options.early_fire))
    records = (
        tables.to_data_stream(packets)
        .flat_map(unpack_packet, output_type=Types.TUPLE([Types.INT(), Types.LONG(), body]))
        .key_by(lambda parcel: parcel[0], key_type=Types.INT())
        .process(
            AggregatePanes(spec),
            output_type=Types.ROW_NAMED(["topic", "k", "v"], [Types.STRING(), body, body]),
        )
        .name("panes")
        .uid("panes")
    )
    return tables.from_data_stream(records)


def _encoders(plan: JobPlan, options: JobOptions) -> tuple[tuple[str, RowEncoder], ...]:
    return tuple(
        (
            view.name,
            RowEncoder(
                view.topic(plan.version),
                json.dumps(view.avro_schema),
                options.schema_ids[view.subject(plan.version)],
                view.dimensions,
            ),
        )
        for view in plan.views
    )


def _source_ddl(plan: JobPlan, options: JobOptions) -> str:
    stream = plan.job.stream
    disorder, _, _ = milliseconds(stream)
    return f"""
        CREATE TEMPORARY TABLE source (
            k BYTES,
            v BYTES,
            source_partition INT METADATA FROM 'partition' VIRTUAL,
            source_offset BIGINT METADATA FROM 'offset' VIRTUAL,
            ts TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL,
            WATERMARK FOR ts AS ts - INTERVAL '{disorder / 1000:.3f}' SECOND
        ) WITH (
            'connector' = 'kafka',
            'topic' = '{plan.events_topic}',
            'key.format' = 'raw',
            'key.fields' = 'k',
            'value.format' = 'raw',
            'value.fields-include' = 'EXCEPT_KEY',
            {_startup(options.start)},
            'scan.topic-partition-discovery.interval' = '10 s',
            'properties.isolation.level' = 'read_committed',
            'properties.group.id' = 'kappa-{plan.name}',
            'properties.client.id.prefix' = 'kappa-{plan.name}',
            {_client_options(options)}
        )"""


def _startup(start: Start) -> str:
    if not start.offsets:
        return "'scan.startup.mode' = 'earliest-offset'"
    places = ";".join(f"partition:{part},offset:{at}" for part, at in start.offsets.items())
    return f"""'scan.startup.mode' = 'specific-offsets',
            'scan.startup.specific-offsets' = '{places}'"""


def _output_ddl(plan: JobPlan, options: JobOptions) -> str:
    stream = plan.job.stream
    topics = [*plan.topics.values(), stream.dead_letter_topic(plan.version)]
    topics.append(stream.late_topic(plan.version))
    return f"""
        CREATE TEMPORARY TABLE output (
            topic STRING METADATA,
            headers MAP<STRING, BYTES> METADATA,
            k BYTES,
            v BYTES
        ) WITH (
            'connector' = 'kafka',
            'topic' = '{";".join(topics)}',
            'key.format' = 'raw',
            'key.fields' = 'k',
            'value.format' = 'raw',
            'value.fields-include' = 'EXCEPT_KEY',
            'sink.delivery-guarantee' = 'exactly-once',
            'sink.transactional-id-prefix' = 'kappa-{plan.name}',
            'properties.transaction.timeout.ms' = '{whole_ms(options.transaction_timeout)}',
            'properties.compression.type' = 'lz4',
            'properties.max.request.size' = '{MAX_RAW_MESSAGE_BYTES}',
            'properties.linger.ms' = '5',
            {_client_options(options)}
        )"""


def _client_options(options: JobOptions) -> str:
    return ",\n".join(f"'properties.{key}' = '{value}'" for key, value in options.kafka.items())


def _output_sql(plan: JobPlan) -> str:
    stream = plan.job.stream
    _, _, pane = milliseconds(stream)
    where = f"""
        'topic', ENCODE('{stream.topic}', 'UTF-8'),
        'partition', ENCODE(CAST(source_partition AS STRING), 'UTF-8'),
        'offset', ENCODE(CAST(source_offset AS STRING), 'UTF-8'),
        'timestamp', ENCODE(CAST(d.verdict.event_ms AS STRING), 'UTF-8')"""
    return f"""
        INSERT INTO output
        SELECT topic, CAST(NULL AS MAP<STRING, BYTES>) AS headers, k, v FROM view_records
        UNION ALL
        SELECT '{stream.dead_letter_topic(plan.version)}',
            MAP['reason', ENCODE(d.verdict.reason, 'UTF-8'),
                'detail', ENCODE(d.verdict.detail, 'UTF-8'),
                'schema_id', ENCODE(
                    IF(d.verdict.schema_id < 0, '', CAST(d.verdict.schema_id AS STRING)), 'UTF-8'),
                {where}],
            k, v
        FROM decoded AS d WHERE d.verdict.reason IS NOT NULL
        UNION ALL
        SELECT '{stream.late_topic(plan.version)}',
            MAP['window_start', ENCODE(CAST(d.verdict.missed_pane AS STRING), 'UTF-8'),
                'window_end', ENCODE(CAST(d.verdict.missed_pane + {pane} AS STRING), 'UTF-8'),
                {where}],
            k, v
        FROM decoded AS d WHERE d.verdict.missed_pane <> {NOT_LATE}"""
