"""The floor: a bare consumer, an Arrow decode and an Arrow group-by, in one process."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import Consumer, TopicPartition

from bench.peers.avro import batch_reader
from bench.peers.protocol import Cell, Contender, Task

_NO_STATE = "it keeps no state from one event to the next"
# A second process, with half of the partitions, made it slower: the broker needs a core too.
_BATCH = 50_000
CONTENDERS = {
    "floor": Contender(
        "floor: consumer, Arrow decode and group-by",
        "no event time, lateness, exactly-once, dead letters or sink; keeps no state",
        f"one process, batches of {_BATCH:,} messages decoded by pyruhvro as far as needed",
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
    measured = ("page_id", "duration_ms") if task.size_ms else ()
    users = ("user_id",) if task.uniques or not task.size_ms else ()
    decode = batch_reader(source.schema, ("event_time", *measured, *users))
    task.report(0)
    while read < task.events:
        values = [message.value() for message in consumer.consume(_BATCH, timeout=1.0)]
        if values:
            events = pa.table(decode(values))
            partials.append(_aggregate(task, events) if task.size_ms else events)
            read += len(values)
            # Visits are found at the end, all at once: what was read before says nothing of them.
            if task.size_ms:
                task.report(read)
    consumer.close()
    merged = pa.concat_tables(partials)
    rows = _merged(task, merged) if task.size_ms else _sessions(merged)
    task.report(read)
    task.complete()
    task.write_rows(rows)


def _aggregate(task: Task, events: pa.Table) -> pa.Table:
    window = pc.multiply(pc.divide(events["event_time"], task.slide_ms), task.slide_ms)
    table = events.append_column("window", window)
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


def _sessions(visits: pa.Table) -> list[tuple[Cell, ...]]:
    visits = visits.sort_by(
        [("user_id", "ascending"), ("event_time", "ascending")]
    ).combine_chunks()
    users = visits["user_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    times = visits["event_time"].to_numpy()
    ends = np.flatnonzero((np.diff(users) != 0) | (np.diff(times) > _PAUSE_MS)) + 1
    first = np.concatenate([[0], ends])
    last = np.concatenate([ends, [len(times)]]) - 1
    names = visits["user_id"].take(pa.array(first)).to_pylist()
    columns = (times[first], last - first + 1, times[last] - times[first])
    return list(zip(names, *(column.tolist() for column in columns), strict=True))


if __name__ == "__main__":
    main(Task.given())
