"""Measure the loader: rows a second from a view topic into ClickHouse.

    python -m bench.loader --rows 2000000

Needs a running stack (`kappa up`). Works in a namespace of its own, which it removes at the end.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyruhvro
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from deploy.console import print_json, progress_bar
from deploy.settings import Settings
from jobs.page_views import PAGE_VIEWS_PER_MINUTE
from schemas.framing import header
from schemas.registry import Registry, publish
from schemas.topics import ensure_view_topic
from sinks.clickhouse import ClickHouse
from sinks.lag import LagReader
from sinks.loader import group_of, open_loader
from sinks.sql import identifier

PARTITIONS = 4
PAGES = 1000
CHUNK = 50_000
FIRST_MINUTE = 28_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2_000_000, help="rows in the view topic")
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_args()
    settings = Settings()
    namespace = f"bench{time.time_ns() // 1_000_000:x}"
    settings = Settings(**{**settings.model_dump(), "namespace": namespace})
    topic = f"{settings.topic_prefix}views.{PAGE_VIEWS_PER_MINUTE.name}.v1"
    try:
        fill(settings, topic, asked.rows)
        seconds = load(settings, asked.rows)
        count = loaded_rows(settings)
    finally:
        clean_up(settings, topic)
    if count != asked.rows:
        raise SystemExit(f"ClickHouse has {count:,} rows instead of {asked.rows:,}.")
    if asked.json:
        print_json({"rows": count, "seconds": seconds, "rows_per_second": count / seconds})
    else:
        print(f"{count:,} rows in {seconds:.2f} s: {count / seconds:,.0f} rows/s")


def fill(settings: Settings, topic: str, rows: int) -> None:
    """Write `rows` rows of distinct keys to the view topic."""
    ensure_view_topic(settings.kafka_client, topic, PARTITIONS)
    schema = PAGE_VIEWS_PER_MINUTE.avro_schema
    with Registry(**settings.registry_access) as registry:
        prefix = header(publish(registry, f"{topic}-value", schema))
    producer = Producer(
        settings.kafka_client
        | {"linger.ms": 50, "batch.size": 1_000_000, "queue.buffering.max.messages": 1_000_000}
    )
    with progress_bar(unit="rows written") as progress:
        task = progress.add_task("Filling", total=rows)
        for number, body in enumerate(bodies(rows, json.dumps(schema))):
            produce(producer, topic, number, prefix + body)
            if number % CHUNK == 0:
                progress.update(task, completed=number)
        producer.flush()
        progress.update(task, completed=rows)


def produce(producer: Producer, topic: str, number: int, value: bytes) -> None:
    """Write one row, waiting while the producer's queue is full."""
    minute, page = divmod(number, PAGES)
    key = json.dumps([FIRST_MINUTE + minute, f"/page/{page}"]).encode()
    while True:
        try:
            producer.produce(topic, key=key, value=value)
        except BufferError:
            producer.poll(0.1)
            continue
        producer.poll(0)
        return


def bodies(rows: int, schema: str) -> Iterator[bytes]:
    """Return the Avro bodies of rows that count up through pages and minutes."""
    for start in range(0, rows, CHUNK):
        numbers = np.arange(start, min(start + CHUNK, rows), dtype=np.int64)
        starts = (FIRST_MINUTE + numbers // PAGES) * 60_000
        batch = pa.RecordBatch.from_pydict(
            {
                "page_id": pa.array([f"/page/{page}" for page in numbers % PAGES]),
                "window_start": pa.array(starts, pa.timestamp("ms")),
                "window_end": pa.array(starts + 60_000, pa.timestamp("ms")),
                "views": pa.array(numbers % 500),
                "unique_users": pa.array(numbers % 97),
                "avg_duration_ms": pa.array(numbers / 7.0),
                "errors": pa.array(numbers % 3),
            }
        )
        for part in pyruhvro.serialize_record_batch(batch, schema, 1):
            yield from (bytes(body) for body in part.to_pylist())


def load(settings: Settings, rows: int) -> float:
    """Load all and return the seconds from the first record read to the last one committed."""
    reader, group = LagReader(settings.kafka_client), group_of(settings)
    loader = open_loader(settings)
    began = 0.0
    with progress_bar(unit="rows loaded") as progress:
        task = progress.add_task("Loading", total=rows)

        def finished() -> bool:
            nonlocal began
            if not began and loader.waiting():
                began = time.perf_counter()
            if not began or loader.waiting():
                return False
            return sum(one.lag for one in reader.loader(group, settings.topic_prefix)) == 0

        loader.run(finished)
        seconds = time.perf_counter() - began
        progress.update(task, completed=rows)
    return seconds


def loaded_rows(settings: Settings) -> int:
    """Return how many rows people see."""
    clickhouse = ClickHouse(settings, reader=True)
    query = f"SELECT count() FROM {identifier(PAGE_VIEWS_PER_MINUTE.name)}"
    return int(clickhouse.query(query).rows[0][0])


def clean_up(settings: Settings, topic: str) -> None:
    """Remove what the benchmark left on the stack."""
    admin = AdminClient(settings.kafka_client)
    admin.delete_topics([topic])[topic].result(30)
    ClickHouse(settings).drop_database()


if __name__ == "__main__":
    main()
