"""The query of the Flink SQL contender, for `flink run -py`: TASK.json, then the output topic."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pyflink.common import Configuration
from pyflink.table import EnvironmentSettings, TableEnvironment

from bench.peers.protocol import Task

_SETTINGS = {
    "execution.checkpointing.interval": "5 s",
    "execution.checkpointing.mode": "EXACTLY_ONCE",
    "state.backend.type": "rocksdb",
    "execution.checkpointing.incremental": "true",
    "state.backend.rocksdb.compression.per.level": "NO_COMPRESSION",
    "pipeline.object-reuse": "true",
    "table.local-time-zone": "UTC",
    # A page's rows come from one task, in order: nothing has to be sorted out before the sink.
    "table.exec.sink.upsert-materialize": "NONE",
    "table.exec.emit.late-fire.enabled": "true",
    # A delay counts in processing time, and event time passes the clean-up first.
    "table.exec.emit.late-fire.delay": "0 ms",
}


def source(task: Task) -> str:
    """Return the table of events: the fields in use, watermarks on the event's own time."""
    return f"""
        CREATE TABLE page_views (
            page_id STRING NOT NULL,
            {"user_id STRING NOT NULL," if task.uniques else ""}
            duration_ms BIGINT,
            event_time TIMESTAMP(3) NOT NULL,
            WATERMARK FOR event_time AS event_time - {_interval(task.disorder_ms)}
        ) WITH (
            'connector' = 'kafka',
            'topic' = '{task.topic}',
            'properties.bootstrap.servers' = '{task.bootstrap}',
            'properties.isolation.level' = 'read_committed',
            'scan.startup.mode' = 'earliest-offset',
            'scan.bounded.mode' = 'latest-offset',
            'value.format' = 'avro-confluent',
            'value.avro-confluent.url' = '{task.registry}')"""


def sink(task: Task, topic: str) -> str:
    """Return the table of rows, whose late corrections replace what they correct."""
    return f"""
        CREATE TABLE answer (
            window_start BIGINT, page_id STRING, `views` BIGINT, duration_ms BIGINT,
            {"unique_users BIGINT," if task.uniques else ""}
            PRIMARY KEY (window_start, page_id) NOT ENFORCED
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


def query(task: Task) -> str:
    """Return the query of the question."""
    size, slide = _interval(task.size_ms), _interval(task.slide_ms)
    tumbles = task.size_ms == task.slide_ms
    kind = "TUMBLE" if tumbles else "HOP"
    window = f"event_time, {size}" if tumbles else f"event_time, {slide}, {size}"
    return f"""
        INSERT INTO answer
        SELECT
            1000 * UNIX_TIMESTAMP(CAST({kind}_START({window}) AS STRING)),
            page_id,
            COUNT(*),
            SUM(duration_ms)
            {", COUNT(DISTINCT user_id)" if task.uniques else ""}
        FROM page_views
        GROUP BY page_id, {kind}({window})"""


def _interval(milliseconds: int) -> str:
    # A bare number of seconds may have two digits only.
    minutes, seconds = divmod(milliseconds // 1000, 60)
    hours, minutes = divmod(minutes, 60)
    return f"INTERVAL '0 {hours:02}:{minutes:02}:{seconds:02}' DAY TO SECOND"


def main() -> None:
    """Submit the query."""
    task, topic = Task(**json.loads(Path(sys.argv[1]).read_text())), sys.argv[2]
    configuration = Configuration()
    lateness = {"table.exec.emit.allow-lateness": f"{task.lateness_ms} ms"}
    for key, value in (_SETTINGS | lateness | {"pipeline.name": topic}).items():
        configuration.set_string(key, value)
    builder = EnvironmentSettings.new_instance().in_streaming_mode()
    tables = TableEnvironment.create(builder.with_configuration(configuration).build())
    tables.execute_sql(source(task))
    tables.execute_sql(sink(task, topic))
    tables.execute_sql(query(task))


if __name__ == "__main__":
    main()
