"""ClickHouse's own Kafka engine with a materialized view, in chDB of the release that has it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from bench.peers.protocol import Cell, Contender, Source, Table, Task

_AT_END = "stores events as they come; one query at the end makes the rows, and is in the rate"
CONTENDERS = {
    "clickhouse": Contender(
        "ClickHouse Kafka engine",
        "no event time, closed windows, lateness or dead letters; at-least-once",
        "in the process (chDB), two consumers; blocks of 524,288, polls of 10,000 messages and "
        "10 ms, flushed every 2 s",
        answers=("W1", "W2", "W3", "W4", "W5", "W6", "W7"),
        notes={
            "W3": "keeps minutes; one query at the end makes five of each, and is not in the rate",
            **dict.fromkeys(("W4", "W5", "W6", "W7"), _AT_END),
        },
        environment="clickhouse",
    )
}
# Large blocks mean few inserts; with the defaults it is a quarter as fast.
_ENGINE = {
    "kafka_format": "'AvroConfluent'",
    "kafka_num_consumers": "2",
    "kafka_thread_per_consumer": "1",
    "kafka_max_block_size": "524288",
    "kafka_poll_max_batch_size": "10000",
    "kafka_poll_timeout_ms": "10",
    "kafka_flush_interval_ms": "2000",
}
_TYPES = {"string": "String", "long": "Int64", "int": "Int32", "double": "Float64"}
_FIELDS: dict[str, dict[str, tuple[str, ...]]] = {
    "W4": {"page_views": ("user_id",)},
    "W5": {"orders": ("order_id", "status"), "payments": ("payment_id", "order_id", "paid_cents")},
    "W6": {"transactions": ("event_id", "user_id", "amount_cents", "latitude", "longitude")},
    "W7": {"page_views": ("event_id", "user_id", "page_id", "duration_ms", "status")},
}
_ASSIGNED = "SELECT count() FROM system.kafka_consumers WHERE notEmpty(assignments.topic)"

_SESSIONS = """
    SELECT user_id, min(at), count(), max(at) - min(at)
    FROM (
        SELECT user_id, at, sum(begins) OVER (PARTITION BY user_id ORDER BY at, begins DESC) AS n
        FROM (
            SELECT user_id, at,
                at - lagInFrame(at, 1, 0) OVER (PARTITION BY user_id ORDER BY at
                    ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) > 1800000 AS begins
            FROM bench.page_views))
    GROUP BY user_id, n"""
_PAYMENTS = """
    SELECT p.payment_id, o.order_id, o.at, p.at, p.paid_cents
    FROM bench.payments AS p
    JOIN (SELECT order_id, at FROM bench.orders WHERE status = 'placed') AS o USING (order_id)
    WHERE abs(p.at - o.at) <= 60000"""
# One partition has all of a user's, in the order of arrival.
_THEFTS = """
    SELECT event_id, user_id, at, amount_cents,
        if(number > 4 AND at - fourth <= 300000,
            'amount, distance, frequency', 'amount, distance')
    FROM (
        SELECT *,
            row_number() OVER w AS number,
            sum(amount_cents) OVER last_20 - amount_cents AS spent,
            count() OVER last_20 - 1 AS known,
            lagInFrame(at, 1) OVER w AS before,
            lagInFrame(at, 4) OVER w AS fourth,
            lagInFrame(latitude, 1) OVER w AS north,
            lagInFrame(longitude, 1) OVER w AS east
        FROM bench.transactions
        WINDOW w AS (PARTITION BY user_id ORDER BY place
                ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW),
            last_20 AS (PARTITION BY user_id ORDER BY place
                ROWS BETWEEN 20 PRECEDING AND CURRENT ROW))
    WHERE known > 0 AND amount_cents * known > 5 * spent AND at - before <= 3600000
        AND 2 * 6371 * asin(sqrt(pow(sin(radians(latitude - north) / 2), 2)
            + cos(radians(north)) * cos(radians(latitude))
                * pow(sin(radians(longitude - east) / 2), 2))) > 1000"""
_MEASURES = """
    count(), uniqExact(user_id), sum(duration_ms) / nullIf(count(duration_ms), 0),
    countIf(status >= 500)"""


def _windows(size: int, measures: str, by: str = "", slide: int = 0) -> str:
    slide, named = slide or size, f"{by}, " if by else ""
    starts = f"arrayJoin(range(0, {size}, {slide}))"
    return f"""
        SELECT toInt64(intDiv(at, {slide}) * {slide} - {starts}) AS start, {named}{measures}
        FROM bench.page_views GROUP BY {named}start"""


_STATS = """
    SELECT page_id, count(), uniqExact(user_id), countIf(status >= 500), min(at), max(at)
    FROM bench.page_views GROUP BY page_id"""
_MILESTONES = """
    SELECT page_id, n, at, event_id
    FROM (
        SELECT page_id, at, event_id,
            row_number() OVER (PARTITION BY page_id ORDER BY at, event_id) AS n
        FROM bench.page_views)
    WHERE n % 1000 = 0"""
_TOP = f"""
    SELECT start, place, page_id, requests
    FROM (
        SELECT start, page_id, requests,
            row_number() OVER (PARTITION BY start ORDER BY requests DESC, page_id) AS place
        FROM ({_windows(3_600_000, "count() AS requests", "page_id")}))
    WHERE place <= 10"""
_QUERIES = {
    "page_view_sessions": _SESSIONS,
    "order_payments": _PAYMENTS,
    "fraud_alerts": _THEFTS,
    "page_views_per_minute": _windows(60_000, _MEASURES, "page_id"),
    "page_views_sliding": _windows(300_000, _MEASURES, "page_id", 60_000),
    "site_traffic_per_minute": _windows(60_000, _MEASURES),
    "unique_users_per_hour": _windows(3_600_000, "count(), uniqExact(user_id)"),
    "page_stats": _STATS,
    "page_milestones": _MILESTONES,
    "top_pages": _TOP,
}


def main(task: Task) -> None:
    """Create the tables, wait until they have every event, and make the rows."""
    from chdb.session import Session

    session = Session(str(Path(task.folder) / "data"))
    query = _asker(session)
    query("CREATE DATABASE bench")
    statements = _folding(task) if task.size_ms else _storing(task)
    for statement in statements:
        query(statement)
    while int(query(_ASSIGNED) or 0) < len(task.sources):
        time.sleep(0.02)
    task.report(0)
    _await_events(task, query)
    rows = [(table, _rows(session, task, table)) for table in task.tables]
    task.report(task.events)
    task.complete()
    for table, found in rows:
        task.write_rows(found, table=table)
    for source in task.sources:
        query(f"DROP VIEW bench.{source.stream}_view")


def _asker(session: Any) -> Callable[[str], str]:
    return lambda sql: str(session.query(sql, "TSV")).strip()


def _await_events(task: Task, query: Callable[[str], str]) -> None:
    """Return when all are in the tables; where a query follows, how far it is says nothing."""
    counted = " + ".join(
        f"(SELECT {'sum(views)' if task.size_ms else 'count()'} FROM bench.{source.stream})"
        for source in task.sources
    )
    read = 0
    while read < task.events:
        time.sleep(0.1)
        now = int(query(f"SELECT {counted}"))
        if now > read and task.size_ms:
            task.report(now)
        read = now


def _rows(session: Any, task: Task, table: Table) -> list[tuple[Cell, ...]]:
    found = session.query(_QUERIES.get(table.view) or _unfolded(task), "ArrowTable")
    return list(zip(*(column.to_pylist() for column in found.columns), strict=True))


def _unfolded(task: Task) -> str:
    uniques = ", uniqExactMerge(unique_users)" if task.uniques else ""
    return f"""
        SELECT window_start - arrayJoin(range(0, {task.size_ms}, {task.slide_ms})) AS start,
            page_id, sum(views), sum(duration_ms) {uniques}
        FROM bench.page_views GROUP BY start, page_id"""


def _queue(task: Task, source: Source, columns: str) -> str:
    settings = _ENGINE | {
        "kafka_broker_list": f"'{task.bootstrap}'",
        "kafka_topic_list": f"'{source.topic}'",
        "kafka_group_name": f"'bench-{uuid.uuid4().hex[:8]}'",
        "format_avro_schema_registry_url": f"'{task.registry}'",
    }
    if len(task.sources) > 1:
        settings["kafka_num_consumers"] = "1"
    listed = ",\n".join(f"{name} = {value}" for name, value in settings.items())
    return f"CREATE TABLE bench.{source.stream}_queue ({columns}) ENGINE = Kafka SETTINGS {listed}"


def _folding(task: Task) -> tuple[str, ...]:
    """Return what keeps the measures of windows, or of the parts that sliding windows are of."""
    states = ", unique_users AggregateFunction(uniqExact, String)" if task.uniques else ""
    uniques = ", uniqExactState(user_id) AS unique_users" if task.uniques else ""
    users = ", user_id String" if task.uniques else ""
    columns = f"""event_time DateTime64(3, 'UTC'), page_id String,
        duration_ms Nullable(Int64){users}"""
    return (
        _queue(task, task.source, columns),
        f"""
        CREATE TABLE bench.page_views (
            window_start Int64, page_id String, views SimpleAggregateFunction(sum, UInt64),
            duration_ms SimpleAggregateFunction(sum, Nullable(Int64)) {states}
        ) ENGINE = AggregatingMergeTree ORDER BY (window_start, page_id)""",
        f"""
        CREATE MATERIALIZED VIEW bench.page_views_view TO bench.page_views AS
        SELECT
            intDiv(toUnixTimestamp64Milli(event_time), {task.slide_ms}) * {task.slide_ms}
                AS window_start,
            page_id,
            count() AS views,
            sum(duration_ms) AS duration_ms {uniques}
        FROM bench.page_views_queue GROUP BY window_start, page_id""",
    )


def _storing(task: Task) -> Iterable[str]:
    """Return what stores the fields in use of all events, and where each stands."""
    for source in task.sources:
        wanted: tuple[str, ...] = _FIELDS[task.question][source.stream]
        fields = [_column(f) for f in source.schema["fields"] if f["name"] in wanted]
        stored = ", ".join(fields)
        yield _queue(task, source, f"event_time DateTime64(3, 'UTC'), {stored}")
        yield f"""
            CREATE TABLE bench.{source.stream} (at Int64, place UInt64, {stored})
            ENGINE = MergeTree ORDER BY tuple()"""
        yield f"""
            CREATE MATERIALIZED VIEW bench.{source.stream}_view TO bench.{source.stream} AS
            SELECT toUnixTimestamp64Milli(event_time) AS at, _offset AS place, {", ".join(wanted)}
            FROM bench.{source.stream}_queue"""


def _column(field: dict[str, Any]) -> str:
    kinds = field["type"] if isinstance(field["type"], list) else [field["type"]]
    kind = next(kind for kind in kinds if kind != "null")
    named = _TYPES[kind]
    return f"{field['name']} {f'Nullable({named})' if 'null' in kinds else named}"


if __name__ == "__main__":
    main(Task.given())
