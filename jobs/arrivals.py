"""Streams as they arrive: decoded one event at a time, beside the panes, for answers at once."""

from __future__ import annotations

from pyflink.table import DataTypes, StreamTableEnvironment
from pyflink.table.udf import udf

from jobs.options import JobOptions, source_options
from jobs.plan import Input, JobPlan
from jobs.queries import data_type
from udfs.arrivals import ArrivalSpec, DecodeArrival
from udfs.avro_columns import wide_type

SETTINGS = {
    # Full buffers are worth waiting for where throughput counts: 100 ms by default.
    "execution.buffer-timeout.interval": "1 ms",
}


def add_arrivals(
    tables: StreamTableEnvironment, plan: JobPlan, source: Input, options: JobOptions
) -> None:
    """Declare the table of the good events of `source` in the order of their arrival.

    It reads the topic a second time: what the panes need comes in batches, and late events with
    it, while here each event goes its way alone.
    """
    # In the JVM's own thread a function answers at once; vectorised ones keep their process.
    tables.get_config().set("python.execution-mode", "thread")
    stream, columns = source.stream, source.arrival_columns
    function, table = f"decode_{stream.name}_arrival", f"{stream.name}_arriving"
    spec = ArrivalSpec(stream, columns, options.registry_url)
    by_name = {field["name"]: field for field in stream.schema["fields"]}
    event = DataTypes.ROW(
        [
            DataTypes.FIELD("is_good", DataTypes.BOOLEAN()),
            # In the JVM's thread a narrow number can't be null.
            *(DataTypes.FIELD(name, data_type(wide_type(by_name[name]))) for name in columns),
        ]
    )
    tables.create_temporary_function(
        function, udf(DecodeArrival(spec), result_type=event, deterministic=False)
    )
    tables.execute_sql(_source_ddl(table, plan, source, options))
    names = "".join(f"arrival.event.`{name}` AS `{name}`, " for name in columns)
    tables.execute_sql(
        f"""
        CREATE TEMPORARY VIEW {stream.name}_arrivals AS
        SELECT {names} TO_TIMESTAMP_LTZ(record_ms, 3) AS {stream.event_time_field},
            record_ms AS event_ms, source_partition, source_offset, arrived
        FROM (
            SELECT {function}(v, record_ms) AS event, record_ms, source_partition, source_offset,
                arrived
            FROM {table}) AS arrival
        WHERE arrival.event.is_good"""
    )


def _source_ddl(table: str, plan: JobPlan, source: Input, options: JobOptions) -> str:
    return f"""
        CREATE TEMPORARY TABLE {table} (
            v BYTES,
            source_partition INT METADATA FROM 'partition' VIRTUAL,
            source_offset BIGINT METADATA FROM 'offset' VIRTUAL,
            ts TIMESTAMP(3) METADATA FROM 'timestamp' VIRTUAL,
            record_ms AS 1000 * EXTRACT(EPOCH FROM ts) + EXTRACT(MILLISECOND FROM ts),
            arrived AS PROCTIME()
        ) WITH (
            'value.format' = 'raw',
            {source_options(source.topic, plan.arrivals_group, options)}
        )"""
