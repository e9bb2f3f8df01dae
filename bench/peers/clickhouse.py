"""ClickHouse's own Kafka engine with a materialized view, in chDB of the release that has it."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

from bench.peers.protocol import Contender, Task

CONTENDERS = {
    "clickhouse": Contender(
        "ClickHouse Kafka engine",
        "no event time, closed windows, lateness or dead letters; at-least-once",
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
_ASSIGNED = "SELECT count() FROM system.kafka_consumers WHERE notEmpty(assignments.topic)"


def main(task: Task) -> None:
    """Create the tables, wait until the view has every event, and merge its rows."""
    from chdb.session import Session

    session = Session(str(Path(task.folder) / "data"))
    query = _asker(session)
    query("CREATE DATABASE bench")
    query(_queue(task))
    query(_rows(task))
    query(_view(task))
    while query(_ASSIGNED) in ("", "0"):
        time.sleep(0.02)
    task.report(0)
    read = 0
    while read < task.events:
        time.sleep(0.1)
        if (now := int(query("SELECT sum(views) FROM bench.rows"))) > read:
            task.report(read := now)
    uniques = ", uniqExactMerge(unique_users)" if task.uniques else ""
    found = session.query(
        f"""
        SELECT window_start, page_id, sum(views), sum(duration_ms) {uniques}
        FROM bench.rows GROUP BY window_start, page_id""",
        "ArrowTable",
    )
    task.write_rows(zip(*(column.to_pylist() for column in found.columns), strict=True))
    query("DROP VIEW bench.fold")


def _asker(session: Any) -> Any:
    return lambda sql: str(session.query(sql, "TSV")).strip()


def _queue(task: Task) -> str:
    settings = _ENGINE | {
        "kafka_broker_list": f"'{task.bootstrap}'",
        "kafka_topic_list": f"'{task.topic}'",
        "kafka_group_name": f"'bench-{uuid.uuid4().hex[:8]}'",
        "format_avro_schema_registry_url": f"'{task.registry}'",
    }
    listed = ",\n".join(f"{name} = {value}" for name, value in settings.items())
    return f"""
        CREATE TABLE bench.queue (
            event_time DateTime64(3, 'UTC'), page_id String, user_id String,
            duration_ms Nullable(Int64)
        ) ENGINE = Kafka SETTINGS {listed}"""


def _rows(task: Task) -> str:
    uniques = ", unique_users AggregateFunction(uniqExact, String)" if task.uniques else ""
    return f"""
        CREATE TABLE bench.rows (
            window_start Int64, page_id String, views SimpleAggregateFunction(sum, UInt64),
            duration_ms SimpleAggregateFunction(sum, Nullable(Int64)) {uniques}
        ) ENGINE = AggregatingMergeTree ORDER BY (window_start, page_id)"""


def _view(task: Task) -> str:
    uniques = ", uniqExactState(user_id) AS unique_users" if task.uniques else ""
    return f"""
        CREATE MATERIALIZED VIEW bench.fold TO bench.rows AS
        SELECT
            intDiv(toUnixTimestamp64Milli(event_time), {task.size_ms}) * {task.size_ms}
                AS window_start,
            page_id,
            count() AS views,
            sum(duration_ms) AS duration_ms {uniques}
        FROM bench.queue GROUP BY window_start, page_id"""


if __name__ == "__main__":
    main(Task.given())
