"""Pathway: raw records, a Python function that decodes a batch of them, its own group-by."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Any

from bench.peers.protocol import Cell, Contender, Task

_COMMIT_MS = 1_000
CONTENDERS = {
    "pathway": Contender(
        "Pathway",
        "no closed windows, exactly-once (persistence off) or dead letters",
        f"a commit every {_COMMIT_MS:,} ms",
        answers=("W1", "W2", "W3", "W4", "W5"),
        cannot={
            "W6": "its stateful reducers give one row for each user, not for each payment",
            "W7": "not written: W3 and W4 show what the parts cost; all together is long",
        },
        environment="pathway",
    )
}
_PAUSE_MS = 30 * 60_000
_MINUTE_MS = 60_000


def main(task: Task) -> None:
    """Run until the rows count every event; a stream has no end of its own."""
    import pathway as pw

    rows = {"W4": _sessions, "W5": _payments}.get(task.question, _windows)(task)
    keys = len(task.table.keys)
    weight = task.table.columns.index(task.table.weight) if task.table.weight else None
    newest: dict[tuple[Cell, ...], tuple[Cell, ...]] = {}
    weighed = 0

    def take(key: Any, row: dict[str, Any], time: int, is_addition: bool) -> None:
        nonlocal weighed
        cells = tuple(row[name] for name in task.table.columns)
        if str(cells[0]).startswith("closing"):
            return
        one = 1 if weight is None else cells[weight]
        weighed += one if is_addition else -one
        if is_addition:
            newest[cells[:keys]] = cells[keys:]
        elif newest.get(cells[:keys]) == cells[keys:]:
            del newest[cells[:keys]]

    def commit(time: int) -> None:
        task.report(round(weighed / task.table.total * task.events))
        if weighed == task.table.total:
            task.complete()
            task.write_rows(key + cells for key, cells in newest.items())
            # Nothing else ends a stream from within.
            os._exit(0)

    pw.io.subscribe(rows, on_change=take, on_time_end=commit)
    task.report(0)
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)


def _windows(task: Task) -> Any:
    import pathway as pw

    names = ("start", "page_id", "user_id", "duration_ms", "timed")
    kinds = (int, str, str, int, int)

    def fields(event: dict[str, Any], at: int) -> tuple[Any, ...]:
        duration, start = event["duration_ms"], at - at % task.slide_ms
        timed = duration is not None
        return (start, event["page_id"], event["user_id"], duration or 0, int(timed))

    events = _events(task, 0, names, kinds, fields)
    measures = {"views": pw.reducers.count()}
    if task.uniques:
        # First per visitor, so that a page's visitors are the rows that are left.
        events = events.groupby(events.start, events.page_id, events.user_id).reduce(
            events.start, events.page_id, views=pw.reducers.count(), **_sums(events)
        )
        measures = {"views": pw.reducers.sum(events.views), "unique_users": pw.reducers.count()}
    rows = _by_window(events, measures)
    if task.size_ms > task.slide_ms:
        # A part is in as many windows as start between it and a window's size before it.
        before = tuple(range(0, task.size_ms, task.slide_ms))
        parts = rows.select(
            *pw.this.without("start"),
            start=pw.apply_with_type(lambda s: tuple(s - b for b in before), tuple, pw.this.start),
        ).flatten(pw.this.start)
        parts = parts.select(*pw.this.without("start"), start=pw.cast(int, pw.this.start))
        rows = _by_window(parts, {"views": pw.reducers.sum(parts.views)})
    return rows.select(
        *pw.this.without("start", "duration_ms"),
        window_start=pw.this.start,
        duration_ms=pw.if_else(pw.this.timed > 0, pw.this.duration_ms, None),
    )


def _by_window(table: Any, measures: dict[str, Any]) -> Any:
    return table.groupby(table.start, table.page_id).reduce(
        table.start, table.page_id, **measures, **_sums(table)
    )


def _sums(table: Any) -> dict[str, Any]:
    import pathway as pw

    return {name: pw.reducers.sum(table[name]) for name in ("duration_ms", "timed")}


def _sessions(task: Task) -> Any:
    import pathway as pw

    events = _events(task, 0, ("user_id", "at"), (str, int), lambda e, at: (e["user_id"], at))
    # A pause of exactly half an hour ends no visit.
    window = pw.temporal.session(max_gap=_PAUSE_MS + 1)
    visits = events.windowby(events.at, window=window, instance=events.user_id)
    return visits.reduce(
        user_id=pw.this._pw_instance,
        session_start=pw.reducers.min(pw.this.at),
        pages=pw.reducers.count(),
        duration_ms=pw.reducers.max(pw.this.at) - pw.reducers.min(pw.this.at),
    )


def _payments(task: Task) -> Any:
    import pathway as pw

    orders = _events(
        task,
        0,
        ("order_id", "status", "at"),
        (str, str, int),
        lambda e, at: (e["order_id"], e["status"], at),
    )
    payments = _events(
        task,
        1,
        ("order_id", "payment_id", "paid_cents", "at"),
        (str, str, int, int),
        lambda e, at: (e["order_id"], e["payment_id"], e["paid_cents"], at),
    )
    placed = orders.filter(orders.status == "placed")
    near = pw.temporal.interval(-_MINUTE_MS, _MINUTE_MS)
    both = placed.interval_join(
        payments, placed.at, payments.at, near, placed.order_id == payments.order_id
    )
    return both.select(
        payment_id=payments.payment_id,
        order_id=placed.order_id,
        ordered_at=placed.at,
        paid_at=payments.at,
        paid_cents=payments.paid_cents,
    )


def _events(
    task: Task,
    place: int,
    names: tuple[str, ...],
    kinds: tuple[type, ...],
    fields: Callable[[dict[str, Any], int], tuple[Any, ...]],
) -> Any:
    """Return the events of one topic, with what `fields` makes of each and of its time."""
    import fastavro
    import pathway as pw

    schema = fastavro.parse_schema(task.sources[place].schema)

    def decode(records: list[bytes]) -> list[tuple[Any, ...]]:
        found = []
        for record in records:
            body = io.BytesIO(record)
            body.seek(5)
            event: Any = fastavro.schemaless_reader(body, schema, None)
            found.append(fields(event, round(event["event_time"].timestamp() * 1000)))
        return found

    decoder = pw.udf(
        decode,
        return_type=tuple.__class_getitem__(kinds),
        max_batch_size=10_000,
        deterministic=True,
    )
    records = pw.io.kafka.read(
        {
            "bootstrap.servers": task.bootstrap,
            "group.id": f"bench-pathway-{place}",
            "auto.offset.reset": "earliest",
        },
        topic=task.sources[place].topic,
        format="raw",
        autocommit_duration_ms=_COMMIT_MS,
        autogenerate_key=True,
    )
    decoded = records.select(event=decoder(pw.this.data))
    return decoded.select(**{name: pw.this.event[i] for i, name in enumerate(names)})


if __name__ == "__main__":
    main(Task.given())
