"""The floor: a bare consumer, an Arrow decode and an Arrow group-by, in one process."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyruhvro
from confluent_kafka import Consumer, TopicPartition

from bench.peers.protocol import Contender, Row, Task
from schemas.framing import HEADER_BYTES

CONTENDERS = {
    "floor": Contender(
        "floor: consumer, Arrow decode and group-by",
        "no event time, lateness, exactly-once or dead letters; keeps no state",
    )
}
_BATCH = 50_000
_NAMES = {"count_all": "views", "duration_ms_sum": "duration_ms"}


def main(task: Task) -> None:
    """Aggregate batch by batch, then merge what the batches gave."""
    consumer = Consumer(
        {
            "bootstrap.servers": task.bootstrap,
            "group.id": "bench-floor",
            "enable.auto.commit": False,
            "queued.min.messages": 500_000,
            "fetch.message.max.bytes": 4_000_000,
        }
    )
    consumer.assign([TopicPartition(task.topic, int(p), 0) for p in task.ends])
    schema, read, partials = json.dumps(task.schema), 0, []
    task.report(0)
    while read < task.events:
        values = [message.value() for message in consumer.consume(_BATCH, timeout=1.0)]
        if values:
            partials.append(_aggregate(task, _decoded(values, schema)))
            read += len(values)
            task.report(read)
    consumer.close()
    task.write_rows(_merged(task, pa.concat_tables(partials)))


def _decoded(values: list[Any], schema: str) -> pa.RecordBatch:
    return pyruhvro.deserialize_array([value[HEADER_BYTES:] for value in values], schema)


def _aggregate(task: Task, events: pa.RecordBatch) -> pa.Table:
    times = events.column("event_time").cast(pa.int64())
    window = pc.multiply(pc.divide(times, task.size_ms), task.size_ms)
    names = ["page_id", "duration_ms", *(["user_id"] if task.uniques else [])]
    table = pa.table([window, *map(events.column, names)], ["window", *names])
    keys = ["window", "page_id", *(["user_id"] if task.uniques else [])]
    grouped = table.group_by(keys).aggregate([([], "count_all"), ("duration_ms", "sum")])
    return grouped.rename_columns([_NAMES.get(name, name) for name in grouped.schema.names])


def _merged(task: Task, partials: pa.Table) -> list[Row]:
    sums = [("views", "sum"), ("duration_ms", "sum")]
    if task.uniques:
        sums.append(("user_id", "count_distinct"))
    rows = partials.group_by(["window", "page_id"]).aggregate(sums)
    names = ["window", "page_id", *(f"{name}_{how}" for name, how in sums)]
    return list(zip(*(rows.column(name).to_pylist() for name in names), strict=True))


if __name__ == "__main__":
    main(Task.given())
