"""Build the Flink job of a plan: source, decode, dead and late letters, panes, view topics."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from pyflink.common import Configuration, Types
from pyflink.datastream import DataStream, StreamExecutionEnvironment
from pyflink.table import DataTypes, Schema, StatementSet, StreamTableEnvironment
from pyflink.table.udf import udf

from jobs.arrivals import SETTINGS, add_arrivals
from jobs.options import JobOptions, idle_option, sink_options, source_options
from jobs.plan import Input, JobPlan, whole_ms
from jobs.queries import add_queries, event_fields
from jobs.views import JoinView, View, versions_table
from udfs.aggregate_panes import AggregatePanes, PaneSpec
from udfs.decode_events import LETTER, DecodeEvents, DecodeSpec, event_column, unpack_packet
from udfs.joins import JoinStore
from udfs.rows import RowEncoder
from udfs.stores import Store

MAX_PARALLELISM = 128

_BODY = Types.PRIMITIVE_ARRAY(Types.BYTE())
_BODIES = Types.OBJECT_ARRAY(_BODY)
_UNPACKED = """
        SELECT topic, CAST(NULL AS MAP<STRING, BYTES>) AS headers, k, record_values[place] AS v
        FROM {table} CROSS JOIN UNNEST(record_keys) WITH ORDINALITY AS record (k, place)"""


def build(environment: StreamExecutionEnvironment, plan: JobPlan, options: JobOptions) -> Any:
    """Return the statement set of the job, ready to `execute()`."""
    tables = StreamTableEnvironment.create(environment)
    tables.get_config().set("table.local-time-zone", "UTC")
    tables.get_config().set("pipeline.name", plan.name)
    if plan.copy:
        # Whoever goes on with this state reads another topic: with other names than its own,
        # nothing but the panes is handed over.
        tables.get_config().set("table.exec.uid.generation", "ALWAYS")
    _output(tables, plan, options)
    statements: StatementSet = tables.create_statement_set()
    written, joined = [], _Joined(plan.joins, options.buckets)
    for source in plan.inputs:
        keys = bucket_keys(source.stores, options.buckets)
        decoded = _decode(tables, plan, source, options, keys, joined)
        parcels = _parcels(tables, decoded, "packet")
        spec = PaneSpec(
            source.stores,
            keys,
            _encoders(plan, source.views, options),
            whole_ms(options.early_fire),
            source.hold,
        )
        name = source.stream.name
        records = _records(parcels, spec, f"panes of {name}")
        tables.create_temporary_view(f"{name}_decoded", decoded)
        tables.create_temporary_view(f"{name}_records", tables.from_data_stream(records))
        if source.joins:
            joined.parcels.append(_parcels(tables, decoded, "join_packet"))
        if source.is_queried:
            tables.execute_sql(_events_ddl(source))
        if source.has_versions:
            _add_versions(tables, source)
        if source.has_arrivals:
            add_arrivals(tables, plan, source, options)
        written.append(_output_sql(plan, source))
    if joined.parcels:
        records = joined.records(plan, options)
        tables.create_temporary_view("joined_records", tables.from_data_stream(records))
        written.append(_UNPACKED.format(table="joined_records"))
    statements.add_insert_sql(f"INSERT INTO output {' UNION ALL '.join(written)}")
    if plan.queries:
        add_queries(tables, statements, plan, options)
    return statements


def configuration(plan: JobPlan, options: JobOptions) -> Configuration:
    """Return the Flink settings that the job's correctness or speed depends on."""
    settings = {
        "execution.checkpointing.mode": "EXACTLY_ONCE",
        "execution.checkpointing.interval": f"{whole_ms(options.checkpoint_interval)} ms",
        "execution.checkpointing.min-pause": f"{whole_ms(options.checkpoint_interval) // 2} ms",
        "execution.checkpointing.timeout": f"{whole_ms(options.checkpoint_timeout)} ms",
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
    if any(source.has_arrivals for source in plan.inputs):
        settings |= SETTINGS
    result = Configuration()
    for key, value in settings.items():
        result.set_string(key, value)
    return result


def state_locations(name: str) -> dict[str, str]:
    """Return the setting that gives job `name` a folder of its own below the configured one.

    `jobs.submit` gives it as the cluster has it; a job that is run without, as here.
    """
    from pyflink.java_gateway import get_gateway

    cluster = get_gateway().jvm.org.apache.flink.configuration.GlobalConfiguration
    loaded = cluster.loadConfiguration()
    key = "execution.checkpointing.dir"
    base = loaded.getString(key, None)
    return {key: f"{base.rstrip('/')}/{name}"} if base else {}


def bucket_keys(stores: Sequence[Store], buckets: int) -> tuple[tuple[int, ...], ...]:
    """Return, per store, the Flink key of each bucket.

    Flink spreads keys over subtasks by hash. With few keys chance would load one subtask more
    than another, so the keys are picked for the key groups they hash to, evenly apart. They
    follow from the store's name, so that a store's state stays its own beside new stores.
    """
    from pyflink.java_gateway import get_gateway

    group_of = get_gateway().jvm.org.apache.flink.runtime.state.KeyGroupRangeAssignment
    result = []
    for store in stores:
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
    source: Input,
    options: JobOptions,
    keys: tuple[tuple[int, ...], ...],
    joined: _Joined,
) -> Any:
    """Return the decoded rows of `source`, which no query makes the planner decode twice."""
    stream = source.stream
    spec = DecodeSpec(
        stream,
        source.stores,
        source.fields,
        keys,
        options.registry_url,
        options.kafka["bootstrap.servers"],
        source.topic,
        stream.dead_letter_topic(plan.version),
        options.accepted.get(stream.name, ()),
        options.start.known,
        source.columns,
        source.hold,
        source.is_queried,
        source.joins,
        tuple(joined.keys[join.store.name] for join in source.joins),
    )
    function, table = f"decode_{stream.name}", f"{stream.name}_source"
    tables.create_temporary_function(function, decode_function(spec))
    tables.execute_sql(_source_ddl(table, plan, source, options))
    decoded = tables.sql_query(
        f"""
        SELECT ts, verdict
        FROM (
            SELECT ts, {function}(
                k, v, source_partition, source_offset, ts,
                CAST(CURRENT_WATERMARK(ts) AS TIMESTAMP(3))) AS verdict
            FROM {table})
        WHERE verdict.is_told
        """
    )
    schema = (
        Schema.new_builder()
        .column_by_metadata("event_ts", "TIMESTAMP_LTZ(3)", "rowtime", True)
        .watermark("event_ts", "SOURCE_WATERMARK()")
        .build()
    )
    return tables.from_data_stream(_as_it_is(tables, decoded), schema)


def _as_it_is(tables: StreamTableEnvironment, table: Any) -> DataStream:
    """Return the stream of a table's rows in Flink's own form, converted neither way.

    Only for streams that become a table again: Python can't read these rows.
    """
    from pyflink.java_gateway import get_gateway

    rows = get_gateway().jvm.org.apache.flink.table.data.RowData
    kind = table._j_table.getResolvedSchema().toPhysicalRowDataType()
    internal = kind.notNull().bridgedTo(rows._java_lang_class)
    return DataStream(tables._j_tenv.toDataStream(table._j_table, internal))


def _events_ddl(source: Input) -> str:
    """Return the statement that names the stream's good events for queries."""
    columns = "".join(f"d.verdict.{event_column(name)} AS `{name}`, " for name in source.columns)
    return f"""
        CREATE TEMPORARY VIEW {source.stream.name} AS
        SELECT {columns}event_ts AS {source.stream.event_time_field},
            d.verdict.time_ms AS event_ms, d.verdict.source_partition AS source_partition,
            d.verdict.source_offset AS source_offset
        FROM {source.stream.name}_decoded AS d WHERE d.verdict.in_time"""


def _add_versions(tables: StreamTableEnvironment, source: Input) -> None:
    """Add the table of the stream's events in which each is a version of what its key names.

    Flink joins it without bringing the events into the order of their times before, for which
    they would have to wait until newer ones come.
    """
    stream = source.stream
    fields = {field.name: field.data_type for field in event_fields(stream, source.columns)}
    columns = "".join(f"`{name}`, " for name in source.columns)
    events = tables.sql_query(
        f"SELECT {columns}{stream.event_time_field} AS event_ts FROM {stream.name}"
    )
    schema = Schema.new_builder()
    for name in source.columns:
        kind = fields[event_column(name)]
        schema.column(name, kind.not_null() if name == stream.key_field else kind)
    schema.column("event_ts", "TIMESTAMP_LTZ(3)")
    schema.column_by_metadata(stream.event_time_field, "TIMESTAMP_LTZ(3)", "rowtime", True)
    schema.watermark(stream.event_time_field, "SOURCE_WATERMARK()").primary_key(stream.key_field)
    versions = tables.from_data_stream(_as_it_is(tables, events), schema.build())
    tables.create_temporary_view(versions_table(stream), versions)


def decode_function(spec: DecodeSpec) -> Any:
    """Return the decode function as Flink SQL calls it."""
    queried = [
        DataTypes.FIELD("in_time", DataTypes.BOOLEAN()),
        DataTypes.FIELD("source_partition", DataTypes.INT()),
        DataTypes.FIELD("source_offset", DataTypes.BIGINT()),
        DataTypes.FIELD("time_ms", DataTypes.BIGINT()),
        *event_fields(spec.stream, spec.columns),
    ]
    verdict = DataTypes.ROW(
        [
            DataTypes.FIELD("is_told", DataTypes.BOOLEAN()),
            DataTypes.FIELD("letter", DataTypes.ARRAY(DataTypes.BYTES())),
            *(queried if spec.is_queried else []),
            DataTypes.FIELD("packet", DataTypes.BYTES()),
            *([DataTypes.FIELD("join_packet", DataTypes.BYTES())] if spec.joins else []),
        ]
    )
    return udf(DecodeEvents(spec), result_type=verdict, func_type="pandas", deterministic=False)


def _parcels(tables: StreamTableEnvironment, decoded: Any, packet: str) -> DataStream:
    """Return the parcels (key, first due, body) in the decoded rows' column `packet`."""
    packets = tables.sql_query(
        f"SELECT t.verdict.{packet} AS packet FROM {decoded} AS t "
        f"WHERE t.verdict.{packet} IS NOT NULL"
    )
    parcel = Types.TUPLE([Types.INT(), Types.LONG(), _BODY])
    return tables.to_data_stream(packets).flat_map(unpack_packet, output_type=parcel)


def _records(parcels: DataStream, spec: PaneSpec, name: str) -> DataStream:
    """Return the records (topic, keys, values) of the views that are kept as `spec` says."""
    return (
        parcels.key_by(lambda parcel: parcel[0], key_type=Types.INT())
        .process(
            AggregatePanes(spec),
            output_type=Types.ROW_NAMED(
                ["topic", "record_keys", "record_values"], [Types.STRING(), _BODIES, _BODIES]
            ),
        )
        .name(name)
        .uid(name)
    )


class _Joined:
    """The joins of a job, while the streams that are their sides are added one by one."""

    def __init__(self, stores: tuple[JoinStore, ...], buckets: int) -> None:
        self._stores = stores
        found = bucket_keys(stores, buckets)
        self.keys = dict(zip((store.name for store in stores), found, strict=True))
        self.parcels: list[DataStream] = []

    def records(self, plan: JobPlan, options: JobOptions) -> DataStream:
        """Return the records of all joins, whose time is that of the stream furthest behind."""
        views = [view for view in plan.views if isinstance(view, JoinView)]
        hold = min(source.hold for source in plan.inputs if source.joins)
        keys = tuple(self.keys[store.name] for store in self._stores)
        spec = PaneSpec(self._stores, keys, _encoders(plan, views, options), 0, hold)
        return _records(self.parcels[0].union(*self.parcels[1:]), spec, "joins")


def _encoders(
    plan: JobPlan, views: Sequence[View], options: JobOptions
) -> tuple[tuple[str, RowEncoder], ...]:
    return tuple(
        (
            view.name,
            RowEncoder(
                view.topic(plan.version),
                json.dumps(view.avro_schema),
                options.schema_ids[view.subject(plan.version)],
                view.key,
            ),
        )
        for view in views
    )


def _source_ddl(table: str, plan: JobPlan, source: Input, options: JobOptions) -> str:
    trail = source.hold + whole_ms(source.stream.disorder)
    return f"""
        CREATE TEMPORARY TABLE {table} (
            k BYTES,
            v BYTES,
            source_partition INT METADATA FROM 'partition' VIRTUAL,
            source_offset BIGINT METADATA FROM 'offset' VIRTUAL,
            ts TIMESTAMP(3) METADATA FROM 'timestamp' VIRTUAL,
            WATERMARK FOR ts AS ts - INTERVAL '{_interval(trail)}' DAY TO SECOND
        ) WITH (
            'key.format' = 'raw',
            'key.fields' = 'k',
            'value.format' = 'raw',
            'value.fields-include' = 'EXCEPT_KEY',
            {idle_option(source.stream, options)}
            {source_options(source.topic, plan.group, options)}
        )"""


def _interval(milliseconds: int) -> str:
    days, rest = divmod(milliseconds, 24 * 3600 * 1000)
    hours, rest = divmod(rest, 3600 * 1000)
    minutes, rest = divmod(rest, 60 * 1000)
    return f"{days} {hours:02}:{minutes:02}:{rest / 1000:06.3f}"


def _output(tables: StreamTableEnvironment, plan: JobPlan, options: JobOptions) -> None:
    """Declare the table that writes panes' rows, dead letters and late events."""
    topics = [view.topic(plan.version) for source in plan.inputs for view in source.views]
    topics += [view.topic(plan.version) for view in plan.views if isinstance(view, JoinView)]
    for source in plan.inputs:
        topics.append(source.stream.dead_letter_topic(plan.version))
        topics.append(source.stream.late_topic(plan.version))
    tables.execute_sql(
        f"""
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
            {sink_options(f"kappa-{plan.name}", options)}
        )"""
    )


def _output_sql(plan: JobPlan, source: Input) -> str:
    stream = source.stream
    part = {name: f"d.verdict.letter[{at}]" for at, name in enumerate(LETTER, 1)}
    where = f"""
        'topic', ENCODE('{stream.topic}', 'UTF-8'),
        {_headers(part, "partition", "offset", "timestamp")}"""
    return f"""
        {_UNPACKED.format(table=f"{stream.name}_records")}
        UNION ALL
        SELECT '{stream.dead_letter_topic(plan.version)}',
            MAP[{_headers(part, "reason", "detail", "schema_id")}, {where}],
            {part["key"]}, {part["value"]}
        FROM {stream.name}_decoded AS d WHERE {part["reason"]} IS NOT NULL
        UNION ALL
        SELECT '{stream.late_topic(plan.version)}',
            MAP[{_headers(part, "window_start", "window_end")}, {where}],
            {part["key"]}, {part["value"]}
        FROM {stream.name}_decoded AS d WHERE {part["window_start"]} IS NOT NULL"""


def _headers(part: Mapping[str, str], *names: str) -> str:
    return ", ".join(f"'{name}', {part[name]}" for name in names)
