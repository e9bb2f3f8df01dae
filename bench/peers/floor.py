"""The floor: a bare consumer, an Arrow decode and an Arrow group-by, in one process."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyruhvro
from confluent_kafka import Consumer, TopicPartition

from bench.peers.protocol import Cell, Contender, Task
from schemas.framing import HEADER_BYTES

_NO_STATE = "it keeps no state from one event to the next"
_BATCH = 50_000
CONTENDERS = {
    "floor": Contender(
        "floor: consumer, Arrow decode and group-by",
        "no event time, lateness, exactly-once or dead letters; keeps no state",
        f"one process, batches of {_BATCH:,} messages",
        answers=("W1", "W2", "W3", "W4"),
        cannot={
            "W5": _NO_STATE,
            "W6": _NO_STATE,
            "W7": "not written: it is there for single windows",
        },
        notes={"W4": "keeps every visit's time in memory and sorts once, at the end"},
    )
}
_PAUSE_MS = 30 * 60_000
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
    source, read, partials = task.source, 0, []
    consumer.assign([TopicPartition(source.topic, int(p), 0) for p in source.ends])
    schema, take = json.dumps(source.schema), _aggregate if task.size_ms else _visits
    task.report(0)
    while read < task.events:
        values = [message.value() for message in consumer.consume(_BATCH, timeout=1.0)]
        if values:
            partials.append(take(task, _decoded(values, schema)))
            read += len(values)
            task.report(read)
    consumer.close()
    merged = pa.concat_tables(partials)
    rows = _merged(task, merged) if task.size_ms else _sessions(merged)
    task.complete()
    task.write_rows(rows)


def _decoded(values: list[Any], schema: str) -> pa.RecordBatch:
    return pyruhvro.deserialize_array([value[HEADER_BYTES:] for value in values], schema)


def _aggregate(task: Task, events: pa.RecordBatch) -> pa.Table:
    times = events.column("event_time").cast(pa.int64())
    window = pc.multiply(pc.divide(times, task.slide_ms), task.slide_ms)
    names = ["page_id", "duration_ms", *(["user_id"] if task.uniques else [])]
    table = pa.table([window, *map(events.column, names)], ["window", *names])
    keys = ["window", "page_id", *(["user_id"] if task.uniques else [])]
    grouped = table.group_by(keys).aggregate([([], "count_all"), ("duration_ms", "sum")])
    return grouped.rename_columns([_NAMES.get(name, name) for name in grouped.schema.names])


def _merged(task: Task, partials: pa.Table) -> list[tuple[Cell, ...]]:
    sums = [("views", "sum"), ("duration_ms", "sum")]
    if task.uniques:
        sums.append(("user_id", "count_distinct"))
    place = partials.schema.get_field_index("window")
    # A part is in as many windows as start between it and a window's size before it.
    parts = pa.concat_tables(
        partials.set_column(place, "window", pc.subtract(partials["window"], start))
        for start in range(0, task.size_ms, task.slide_ms)
    )
    rows = parts.group_by(["window", "page_id"]).aggregate(sums)
    names = ["window", "page_id", *(f"{name}_{how}" for name, how in sums)]
    return list(zip(*(rows.column(name).to_pylist() for name in names), strict=True))


def _visits(task: Task, events: pa.RecordBatch) -> pa.Table:
    times = events.column("event_time").cast(pa.int64())
    return pa.table({"user": events.column("user_id"), "time": times})


def _sessions(visits: pa.Table) -> list[tuple[Cell, ...]]:
    visits = visits.sort_by([("user", "ascending"), ("time", "ascending")]).combine_chunks()
    users = visits["user"].combine_chunks().dictionary_encode().indices.to_numpy()
    times = visits["time"].to_numpy()
    ends = np.flatnonzero((np.diff(users) != 0) | (np.diff(times) > _PAUSE_MS)) + 1
    first = np.concatenate([[0], ends])
    last = np.concatenate([ends, [len(times)]]) - 1
    names = visits["user"].take(pa.array(first)).to_pylist()
    columns = (times[first], last - first + 1, times[last] - times[first])
    return list(zip(names, *(column.tolist() for column in columns), strict=True))


if __name__ == "__main__":
    main(Task.given())
