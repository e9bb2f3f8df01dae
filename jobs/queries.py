"""Views written in SQL: the events' columns as Flink sees them, and the topics they go to."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pyarrow as pa
from pyflink.table import DataTypes, StatementSet, StreamTableEnvironment

from jobs.options import JobOptions, prompt_sink_options, sink_options, table_options
from jobs.plan import JobPlan, whole_ms
from jobs.views import ArrivalView, QueryView
from schemas.columns import ColumnType
from schemas.streams import Stream
from udfs.avro_columns import reader_type
from udfs.decode_events import event_column

_SQL_TYPES = {
    ColumnType.STRING: "STRING",
    ColumnType.LONG: "BIGINT",
    ColumnType.DOUBLE: "DOUBLE",
    ColumnType.BOOLEAN: "BOOLEAN",
    ColumnType.TIMESTAMP: "TIMESTAMP(3)",
}


def event_fields(stream: Stream, columns: tuple[str, ...]) -> list[Any]:
    """Return the fields of the decode function's result that hold event columns."""
    by_name = {field["name"]: field for field in stream.schema["fields"]}
    return [
        DataTypes.FIELD(event_column(name), data_type(reader_type(by_name[name])))
        for name in columns
    ]


def add_queries(
    tables: StreamTableEnvironment, statements: StatementSet, plan: JobPlan, options: JobOptions
) -> None:
    """Add an insert for each of the plan's SQL views; the streams' tables must exist."""
    config = tables.get_config()
    early = max(options.early_fire, timedelta(milliseconds=100))
    batches = not all(isinstance(view, ArrivalView) for view in plan.queries)
    config.set("table.exec.mini-batch.enabled", "true" if batches else "false")
    config.set("table.exec.mini-batch.allow-latency", f"{whole_ms(early)} ms")
    config.set("table.exec.mini-batch.size", "20000")
    # A view's key is what its query groups by: nothing has to bring its changes into order.
    config.set("table.exec.sink.upsert-materialize", "NONE")
    retentions = [view.state_retention for view in plan.read_queries if view.state_retention]
    if retentions:
        config.set("table.exec.state.ttl", f"{whole_ms(max(retentions))} ms")
    for view in plan.read_queries:
        names = ", ".join(f"`{column.name}`" for column in view.columns)
        tables.execute_sql(f"CREATE TEMPORARY VIEW `{view.name}` ({names}) AS {view.sql}")
    for view in plan.queries:
        tables.execute_sql(_sink_ddl(plan, view, options))
        statements.add_insert_sql(_insert(view))


def data_type(arrow: pa.DataType) -> Any:
    """Return Flink's type for a column of Arrow's."""
    if pa.types.is_list(arrow):
        return DataTypes.ARRAY(data_type(arrow.value_type))
    if pa.types.is_timestamp(arrow):
        return DataTypes.TIMESTAMP(3)
    simple = {
        pa.string(): DataTypes.STRING(),
        pa.binary(): DataTypes.BYTES(),
        pa.int32(): DataTypes.INT(),
        pa.int64(): DataTypes.BIGINT(),
        pa.float32(): DataTypes.FLOAT(),
        pa.float64(): DataTypes.DOUBLE(),
        pa.bool_(): DataTypes.BOOLEAN(),
        pa.date32(): DataTypes.DATE(),
    }
    return simple[arrow]


def _sink_ddl(plan: JobPlan, view: QueryView, options: JobOptions) -> str:
    columns = ",\n".join(
        f"`{c.name}` {_SQL_TYPES[c.type]}{'' if c.nullable else ' NOT NULL'}" for c in view.columns
    )
    key = ", ".join(f"`{name}`" for name in view.key)
    schema = json.dumps(view.avro_schema).replace("'", "''")
    if isinstance(view, ArrivalView):
        delivery = prompt_sink_options(options)
    else:
        delivery = sink_options(f"kappa-{plan.name}-{view.name}", options)
    return f"""
        CREATE TEMPORARY TABLE `{view.sink}` (
            {columns},
            PRIMARY KEY ({key}) NOT ENFORCED
        ) WITH (
            'connector' = 'upsert-kafka',
            'topic' = '{view.topic(plan.version)}',
            'key.format' = 'json',
            'key.json.timestamp-format.standard' = 'ISO-8601',
            'value.format' = 'avro-confluent',
            'value.avro-confluent.url' = '{options.registry_url}',
            'value.avro-confluent.subject' = '{view.subject(plan.version)}',
            'value.avro-confluent.schema' = '{schema}',
            {_registry_options(options)}
            {delivery}
        )"""


def _registry_options(options: JobOptions) -> str:
    given = options.registry_options.items()
    text = table_options({f"value.avro-confluent.{key}": value for key, value in given})
    return f"{text}," if text else ""


def _insert(view: QueryView) -> str:
    values = ", ".join(
        f"CAST(`{column.name}` AS {_SQL_TYPES[column.type]})" for column in view.columns
    )
    return f"INSERT INTO `{view.sink}` SELECT {values} FROM `{view.name}`"
