"""The queries of the Flink SQL contender, for `flink run -py`: TASK.json, then what names topics.

An event's time is read as epoch milliseconds; `ts` is the time that watermarks go by.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pyflink.common import Configuration
from pyflink.table import EnvironmentSettings, TableEnvironment

from bench.peers.protocol import Source, Table, Task

_SETTINGS = {
    "execution.checkpointing.interval": "5 s",
    "execution.checkpointing.mode": "EXACTLY_ONCE",
    "state.backend.type": "rocksdb",
    "execution.checkpointing.incremental": "true",
    "state.backend.rocksdb.compression.per.level": "NO_COMPRESSION",
    # A slot's share of what is managed would be a twelfth, as for twelve of these jobs.
    "state.backend.rocksdb.memory.fixed-per-slot": "512mb",
    "pipeline.object-reuse": "true",
    "table.local-time-zone": "UTC",
    # A key's rows come from one task, in order: nothing has to be sorted out before the sink.
    "table.exec.sink.upsert-materialize": "NONE",
}
# All-time figures are the only ones that are not of windows: each event would give a row. With
# them comes local aggregation; splitting distinct counts as well made it slower.
_MINI_BATCHES = {
    "table.exec.mini-batch.enabled": "true",
    "table.exec.mini-batch.allow-latency": "1 s",
    "table.exec.mini-batch.size": "50000",
}
# Only the older kind of windows, which the questions about windows use, can be corrected.
_CORRECTIONS = {
    "table.exec.emit.late-fire.enabled": "true",
    # A delay counts in processing time, and event time passes the clean-up first.
    "table.exec.emit.late-fire.delay": "0 ms",
}
_TYPES = {"string": "STRING", "long": "BIGINT", "int": "INT", "double": "DOUBLE"}
_FIELDS = {
    "W1": ("page_id", "duration_ms"),
    "W2": ("page_id", "user_id", "duration_ms"),
    "W3": ("page_id", "duration_ms"),
    "W4": ("user_id",),
    "W5": ("order_id", "status", "payment_id", "paid_cents"),
    "W6": ("event_id", "user_id", "amount_cents", "latitude", "longitude"),
    "W7": ("event_id", "user_id", "page_id", "duration_ms", "status"),
}
_TEXTS = {"page_id", "user_id", "order_id", "payment_id", "transaction_id", "event_id", "reasons"}

_SESSIONS = """
    SELECT user_id, MIN(event_time), COUNT(*), MAX(event_time) - MIN(event_time)
    FROM TABLE(SESSION(
        TABLE page_views PARTITION BY user_id, DESCRIPTOR(ts), INTERVAL '30' MINUTE))
    GROUP BY user_id, window_start, window_end"""
_PAYMENTS = """
    SELECT p.payment_id, o.order_id, o.event_time, p.event_time, p.paid_cents
    FROM orders AS o JOIN payments AS p
        ON p.order_id = o.order_id
        AND p.ts BETWEEN o.ts - INTERVAL '1' MINUTE AND o.ts + INTERVAL '1' MINUTE
    WHERE o.status = 'placed'"""
# The second SELECT needs values of the first, and one level has one window.
_THEFTS = """
    WITH so_far AS (
        SELECT *,
            SUM(amount_cents) OVER last_20 - amount_cents AS spent,
            COUNT(*) OVER last_20 - 1 AS known
        FROM transactions
        WINDOW last_20 AS (
            PARTITION BY user_id ORDER BY arrived ROWS BETWEEN 20 PRECEDING AND CURRENT ROW)),
    compared AS (
        SELECT *,
            event_time - LAG(event_time, 1) OVER by_user AS pause,
            event_time - LAG(event_time, 4) OVER by_user AS five,
            RADIANS(latitude) AS n2, RADIANS(LAG(latitude, 1) OVER by_user) AS n1,
            RADIANS(longitude) AS e2, RADIANS(LAG(longitude, 1) OVER by_user) AS e1
        FROM so_far
        WINDOW by_user AS (PARTITION BY user_id ORDER BY arrived))
    SELECT event_id, user_id, event_time, amount_cents,
        IF(five <= 300000, 'amount, distance, frequency', 'amount, distance')
    FROM compared
    WHERE known > 0 AND amount_cents * known > 5 * spent AND pause <= 3600000
        AND 2 * 6371 * ASIN(SQRT(POWER(SIN((n2 - n1) / 2), 2)
            + COS(n1) * COS(n2) * POWER(SIN((e2 - e1) / 2), 2))) > 1000"""
_MEASURES = """
    COUNT(*), COUNT(DISTINCT user_id),
    CAST(SUM(duration_ms) AS DOUBLE) / NULLIF(COUNT(duration_ms), 0),
    COUNT(*) FILTER (WHERE status >= 500)"""


def _ms(time: str) -> str:
    return f"1000 * UNIX_TIMESTAMP(CAST({time} AS STRING))"


def _tumbling(size: str, measures: str, by: str = "") -> str:
    named = f"{by}, " if by else ""
    return f"""
        SELECT {_ms("window_start")}, {named}{measures}
        FROM TABLE(TUMBLE(TABLE page_views, DESCRIPTOR(ts), INTERVAL {size}))
        GROUP BY {named}window_start, window_end"""


_SLIDING = f"""
    SELECT {_ms("window_start")}, page_id, {_MEASURES}
    FROM TABLE(HOP(
        TABLE page_views, DESCRIPTOR(ts), INTERVAL '1' MINUTE, INTERVAL '5' MINUTES))
    GROUP BY page_id, window_start, window_end"""
_STATS = """
    SELECT page_id, COUNT(*), COUNT(DISTINCT user_id), COUNT(*) FILTER (WHERE status >= 500),
        MIN(event_time), MAX(event_time)
    FROM page_views GROUP BY page_id"""
_MILESTONES = """
    WITH instants AS (
        SELECT page_id, event_time, window_time AS instant,
            COUNT(*) AS requests, ARRAY_SORT(ARRAY_AGG(event_id)) AS ids
        FROM TABLE(TUMBLE(TABLE page_views, DESCRIPTOR(ts), INTERVAL '0.001' SECOND(1, 3)))
        GROUP BY page_id, event_time, window_start, window_end, window_time),
    counted AS (
        SELECT page_id, event_time, requests, ids,
            SUM(requests) OVER (PARTITION BY page_id ORDER BY instant) AS total
        FROM instants)
    SELECT page_id, total - requests + place, event_time, event_id
    FROM counted CROSS JOIN UNNEST(ids) WITH ORDINALITY AS request (event_id, place)
    WHERE MOD(total, 1000) < requests AND MOD(total - requests + place, 1000) = 0"""
_TOP = f"""
    SELECT {_ms("window_start")}, place, page_id, requests
    FROM (
        SELECT *, ROW_NUMBER() OVER (
            PARTITION BY window_start, window_end ORDER BY requests DESC, page_id) AS place
        FROM (
            SELECT page_id, window_start, window_end, COUNT(*) AS requests
            FROM TABLE(TUMBLE(TABLE page_views, DESCRIPTOR(ts), INTERVAL '1' HOUR))
            GROUP BY page_id, window_start, window_end))
    WHERE place <= 10"""
_QUERIES = {
    "page_view_sessions": _SESSIONS,
    "order_payments": _PAYMENTS,
    "fraud_alerts": _THEFTS,
    "page_views_per_minute": _tumbling("'1' MINUTE", _MEASURES, "page_id"),
    "page_views_sliding": _SLIDING,
    "site_traffic_per_minute": _tumbling("'1' MINUTE", _MEASURES),
    "unique_users_per_hour": _tumbling("'1' HOUR", "COUNT(*), COUNT(DISTINCT user_id)"),
    "page_stats": _STATS,
    "page_milestones": _MILESTONES,
    "top_pages": _TOP,
}


def _is_corrected(task: Task) -> bool:
    # What comes late corrects a group window; all others get their watermark late.
    return bool(task.size_ms) and task.mode != "tvf"


def source(task: Task, source: Source) -> str:
    """Return the table of a stream's events: the fields in use, watermarks on their own time."""
    trails = source.disorder_ms if _is_corrected(task) else source.disorder_ms + source.lateness_ms
    columns = ",\n".join(
        _column(field)
        for field in source.schema["fields"]
        if field["name"] in _FIELDS[task.question]
    )
    return f"""
        CREATE TABLE {source.stream} (
            {columns},
            event_time BIGINT NOT NULL,
            arrived AS PROCTIME(),
            ts AS TO_TIMESTAMP_LTZ(event_time, 3),
            WATERMARK FOR ts AS ts - {_interval(trails)}
        ) WITH (
            'connector' = 'kafka',
            'topic' = '{source.topic}',
            'properties.bootstrap.servers' = '{task.bootstrap}',
            'properties.isolation.level' = 'read_committed',
            'scan.startup.mode' = 'earliest-offset',
            'scan.bounded.mode' = 'latest-offset',
            'value.format' = 'avro-confluent',
            'value.avro-confluent.url' = '{task.registry}')"""


def _column(field: dict[str, Any]) -> str:
    kinds = field["type"] if isinstance(field["type"], list) else [field["type"]]
    kind = next(kind for kind in kinds if kind != "null")
    return f"`{field['name']}` {_TYPES[kind]}{'' if 'null' in kinds else ' NOT NULL'}"


def sink(task: Task, table: Table, topic: str) -> str:
    """Return the table of a view's rows, whose later ones replace what they correct."""
    types = {name: "STRING" if name in _TEXTS else "BIGINT" for name in table.columns}
    types |= {name: "DOUBLE" for name in table.columns if name.startswith("avg")}
    columns = ", ".join(f"`{name}` {kind}" for name, kind in types.items())
    return f"""
        CREATE TABLE {table.view} (
            {columns}, PRIMARY KEY ({", ".join(f"`{name}`" for name in table.keys)}) NOT ENFORCED
        ) WITH (
            'connector' = 'upsert-kafka',
            'topic' = '{topic}',
            'properties.bootstrap.servers' = '{task.bootstrap}',
            'properties.compression.type' = 'lz4',
            'properties.linger.ms' = '5',
            'properties.transaction.timeout.ms' = '600000',
            'key.format' = 'json',
            'value.format' = 'json',
            'sink.delivery-guarantee' = 'exactly-once',
            'sink.transactional-id-prefix' = '{topic}')"""


def query(task: Task, table: Table) -> str:
    """Return the query of one view."""
    windows = _table_windows if task.mode == "tvf" else _group_windows
    return f"INSERT INTO {table.view} {_QUERIES.get(table.view) or windows(task)}"


def _table_windows(task: Task) -> str:
    size, slide = _interval(task.size_ms), _interval(task.slide_ms)
    tumbles = task.size_ms == task.slide_ms
    kind, steps = ("TUMBLE", size) if tumbles else ("HOP", f"{slide}, {size}")
    return f"""
        SELECT {_ms("window_start")}, page_id, COUNT(*), SUM(duration_ms)
            {", COUNT(DISTINCT user_id)" if task.uniques else ""}
        FROM TABLE({kind}(TABLE page_views, DESCRIPTOR(ts), {steps}))
        GROUP BY page_id, window_start, window_end"""


def _group_windows(task: Task) -> str:
    size, slide = _interval(task.size_ms), _interval(task.slide_ms)
    tumbles = task.size_ms == task.slide_ms
    kind = "TUMBLE" if tumbles else "HOP"
    window = f"ts, {size}" if tumbles else f"ts, {slide}, {size}"
    return f"""
        SELECT {_ms(f"{kind}_START({window})")}, page_id, COUNT(*), SUM(duration_ms)
            {", COUNT(DISTINCT user_id)" if task.uniques else ""}
        FROM page_views
        GROUP BY page_id, {kind}({window})"""


def _interval(milliseconds: int) -> str:
    # A bare number of seconds may have two digits only.
    minutes, seconds = divmod(milliseconds // 1000, 60)
    hours, minutes = divmod(minutes, 60)
    return f"INTERVAL '0 {hours:02}:{minutes:02}:{seconds:02}' DAY TO SECOND"


def settings(task: Task) -> dict[str, str]:
    """Return Flink's settings for the question."""
    if not _is_corrected(task):
        return _SETTINGS | (_MINI_BATCHES if task.question == "W7" else {})
    lateness = {"table.exec.emit.allow-lateness": f"{task.source.lateness_ms} ms"}
    return _SETTINGS | _CORRECTIONS | lateness


def main() -> None:
    """Submit the queries as one job."""
    task, prefix = Task.read(Path(sys.argv[1])), sys.argv[2]
    configuration = Configuration()
    for key, value in (settings(task) | {"pipeline.name": prefix}).items():
        configuration.set_string(key, value)
    builder = EnvironmentSettings.new_instance().in_streaming_mode()
    tables = TableEnvironment.create(builder.with_configuration(configuration).build())
    for one in task.sources:
        tables.execute_sql(source(task, one))
    statements = tables.create_statement_set()
    for table in task.tables:
        tables.execute_sql(sink(task, table, f"{prefix}.{table.view}"))
        statements.add_insert_sql(query(task, table))
    statements.execute()


if __name__ == "__main__":
    main()
