"""Pathway: raw records, a Python function that decodes a batch of them, its own group-by."""

from __future__ import annotations

import io
import os
from typing import Any

from bench.peers.protocol import Contender, Task

CONTENDERS = {
    "pathway": Contender(
        "Pathway",
        "no closed windows, exactly-once (persistence off) or dead letters",
        environment="pathway",
    )
}
_COMMIT_MS = 1_000


def main(task: Task) -> None:
    """Run until the rows count every event; a stream has no end of its own."""
    import pathway as pw

    events = _events(task)
    measures = {"views": pw.reducers.count()}
    if task.uniques:
        # First per visitor, so that a page's visitors are the rows that are left.
        events = events.groupby(events.start, events.page_id, events.user_id).reduce(
            events.start, events.page_id, views=pw.reducers.count(), **_sums(events)
        )
        measures = {"views": pw.reducers.sum(events.views), "unique_users": pw.reducers.count()}
    rows = events.groupby(events.start, events.page_id).reduce(
        events.start, events.page_id, **measures, **_sums(events)
    )
    newest: dict[tuple[int, str], dict[str, Any]] = {}
    read = 0

    def take(key: Any, row: dict[str, Any], time: int, is_addition: bool) -> None:
        nonlocal read
        read += row["views"] if is_addition else -row["views"]
        if is_addition:
            newest[row["start"], row["page_id"]] = row

    def commit(time: int) -> None:
        task.report(read)
        if read == task.events:
            _write(task, newest)
            # Nothing else ends a stream from within.
            os._exit(0)

    pw.io.subscribe(rows, on_change=take, on_time_end=commit)
    task.report(0)
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)


def _sums(table: Any) -> dict[str, Any]:
    import pathway as pw

    return {name: pw.reducers.sum(table[name]) for name in ("duration_ms", "timed")}


def _events(task: Task) -> Any:
    import fastavro
    import pathway as pw

    schema = fastavro.parse_schema(task.schema)

    def decode(records: list[bytes]) -> list[tuple[int, str, str, int, int]]:
        found = []
        for record in records:
            body = io.BytesIO(record)
            body.seek(5)
            event: Any = fastavro.schemaless_reader(body, schema, None)
            at = round(event["event_time"].timestamp() * 1000)
            duration = event["duration_ms"]
            start = at - at % task.size_ms
            timed = duration is not None
            found.append((start, event["page_id"], event["user_id"], duration or 0, int(timed)))
        return found

    decoder = pw.udf(
        decode,
        return_type=tuple[int, str, str, int, int],
        max_batch_size=10_000,
        deterministic=True,
    )
    records = pw.io.kafka.read(
        {
            "bootstrap.servers": task.bootstrap,
            "group.id": "bench-pathway",
            "auto.offset.reset": "earliest",
        },
        topic=task.topic,
        format="raw",
        autocommit_duration_ms=_COMMIT_MS,
        autogenerate_key=True,
    )
    decoded = records.select(event=decoder(pw.this.data))
    names = ("start", "page_id", "user_id", "duration_ms", "timed")
    return decoded.select(**{name: pw.this.event[i] for i, name in enumerate(names)})


def _write(task: Task, newest: dict[tuple[int, str], dict[str, Any]]) -> None:
    task.write_rows(
        (
            start,
            page,
            row["views"],
            row["duration_ms"] if row["timed"] else None,
            *((row["unique_users"],) if task.uniques else ()),
        )
        for (start, page), row in newest.items()
    )


if __name__ == "__main__":
    main(Task.given())
