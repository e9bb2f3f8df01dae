"""Pathway: raw records, a Python function that decodes a batch of them, its own group-by."""

from __future__ import annotations

import os
import uuid
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from bench.peers.avro import batch_reader, leading, tuples
from bench.peers.fraud import REMEMBERED, judge
from bench.peers.protocol import Cell, Contender, Task

_COMMIT_MS = 1_000
# Two processes are no faster, and at times don't get all events of the group that they share.
_THREADS = 2
_BACKLOG = 50_000
CONTENDERS = {
    "pathway": Contender(
        "Pathway",
        "no closed windows, exactly-once (persistence off), dead letters or sink",
        f"{_THREADS} threads, a commit every {_COMMIT_MS:,} ms, at most {_BACKLOG:,} events in "
        "progress, batches decoded by pyruhvro",
        answers=("W1", "W2", "W3", "W4", "W5", "W6"),
        cannot={"W7": "not written: W3 and W4 show what the parts cost"},
        notes={"W6": "a stateful reducer for each user, whose alerts are made into rows"},
        environment="pathway",
    )
}
_KINDS = {"string": str, "long": int, "int": int, "double": float}
_PAUSE_MS = 30 * 60_000
_MINUTE_MS = 60_000


def main(task: Task) -> None:
    """Run until the rows count every event; a stream has no end of its own."""
    # Read when the package is imported.
    os.environ["PATHWAY_THREADS"] = str(_THREADS)
    import pathway as pw

    rows = {"W4": _sessions, "W5": _payments, "W6": _thefts}.get(task.question, _windows)(task)
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

    names = ("page_id", "event_time", "duration_ms", *(["user_id"] if task.uniques else []))
    events = _events(task, 0, names)
    events = events.select(
        *pw.this.without("event_time", "duration_ms"),
        start=pw.this.event_time - pw.this.event_time % task.slide_ms,
        duration_ms=pw.coalesce(pw.this.duration_ms, 0),
        timed=pw.cast(int, pw.this.duration_ms.is_not_none()),
    )
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
            start=pw.apply_with_type(
                lambda s: tuple(s - b for b in before), tuple[int, ...], pw.this.start
            ),
        ).flatten(pw.this.start)
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

    events = _events(task, 0, ("user_id", "event_time"))
    # A pause of exactly half an hour ends no visit.
    window = pw.temporal.session(max_gap=_PAUSE_MS + 1)
    visits = events.windowby(events.event_time, window=window, instance=events.user_id)
    return visits.reduce(
        user_id=pw.this._pw_instance,
        session_start=pw.reducers.min(pw.this.event_time),
        pages=pw.reducers.count(),
        duration_ms=pw.reducers.max(pw.this.event_time) - pw.reducers.min(pw.this.event_time),
    )


def _payments(task: Task) -> Any:
    import pathway as pw

    orders = _events(task, 0, ("order_id", "status", "event_time"))
    payments = _events(task, 1, ("order_id", "payment_id", "paid_cents", "event_time"))
    placed = orders.filter(orders.status == "placed")
    near = pw.temporal.interval(-_MINUTE_MS, _MINUTE_MS)
    both = placed.interval_join(
        payments, placed.event_time, payments.event_time, near, placed.order_id == payments.order_id
    )
    return both.select(
        payment_id=payments.payment_id,
        order_id=placed.order_id,
        ordered_at=placed.event_time,
        paid_at=payments.event_time,
        paid_cents=payments.paid_cents,
    )


def _thefts(task: Task) -> Any:
    import pathway as pw

    @pw.reducers.stateful_many
    def judged(state: Any, rows: list[Any]) -> Any:
        history, found = state or ((), ())
        known = deque(history, REMEMBERED)
        # A commit's rows come in any order; a user's times only grow.
        for (event, *now), _ in sorted(rows, key=lambda row: row[0][1]):
            if reasons := judge(known, now):
                found += ((event, *now[:2], reasons),)
            known.append(tuple(now))
        return tuple(known), found

    fields = ("event_id", "event_time", "amount_cents", "latitude", "longitude")
    events = _events(task, 0, ("user_id", *fields))
    users = events.groupby(events.user_id).reduce(
        events.user_id, state=judged(*(events[name] for name in fields))
    )
    alerts = users.select(
        pw.this.user_id,
        alert=pw.apply_with_type(
            lambda state: state[1], tuple[tuple[Any, ...], ...], pw.this.state
        ),
    ).flatten(pw.this.alert)
    kinds = {"transaction_id": str, "event_time": int, "amount_cents": int, "reasons": str}
    cells = {
        name: pw.apply_with_type(lambda alert, n=place: alert[n], kind, pw.this.alert)
        for place, (name, kind) in enumerate(kinds.items())
    }
    return alerts.select(pw.this.user_id, **cells)


def _events(task: Task, place: int, names: tuple[str, ...]) -> Any:
    """Return the fields `names` of one topic's events."""
    import pathway as pw

    source = task.sources[place]
    read = batch_reader(source.schema, names)

    def decode(records: list[bytes]) -> list[tuple[Any, ...]]:
        return list(tuples(read(records)))

    decoder = pw.udf(
        decode,
        return_type=tuple.__class_getitem__(tuple(_kinds(source.schema, names))),
        max_batch_size=10_000,
        deterministic=True,
    )
    records = pw.io.kafka.read(
        {
            "bootstrap.servers": task.bootstrap,
            "group.id": f"bench-{uuid.uuid4().hex[:8]}",
            "auto.offset.reset": "earliest",
        },
        topic=source.topic,
        format="raw",
        autocommit_duration_ms=_COMMIT_MS,
        autogenerate_key=True,
        max_backlog_size=_BACKLOG,
    )
    decoded = records.select(event=decoder(pw.this.data))
    return decoded.select(**{name: pw.this.event[i] for i, name in enumerate(names)})


def _kinds(schema: Mapping[str, Any], names: Iterable[str]) -> Iterable[Any]:
    fields = {field["name"]: field["type"] for field in leading(schema, names)["fields"]}
    for name in names:
        kind = fields[name]
        yield _KINDS[kind[1]] | None if isinstance(kind, list) else _KINDS[kind]


if __name__ == "__main__":
    main(Task.given())
