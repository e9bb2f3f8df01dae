"""Quix Streams: fastavro, re-keyed by page through Kafka, its own windows and states."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from typing import Any

from bench.peers.avro import HEADER_BYTES, leading
from bench.peers.fraud import REMEMBERED, judge
from bench.peers.protocol import Cell, Contender, Task

# Each its own process: threads would share Python's lock.
_WORKERS = 2
CONTENDERS = {
    "quix": Contender(
        "Quix Streams",
        "no rows that are final, dead letters or sink; late events are only logged; at-least-once",
        f"{_WORKERS} processes, 100,000 messages queued, lz4; fastavro up to the last field in use",
        answers=("W1", "W2", "W3", "W4", "W5", "W6"),
        cannot={"W7": "not written: W3 and W4 show what the parts cost"},
        notes={
            "W2": "a state for each page, which never ends: an entry for each window's sums and "
            "for each of its visitors",
            "W5": "loses a pair whose later event it reads first",
            "W6": "a list of the last payments in a state for each user",
        },
        environment="quix",
    )
}
_REPORT_EVENTS = 2_000
_IDLE_SECONDS = 10.0
_PAUSE_MS = 30 * 60_000
_MINUTE_MS = 60_000
_WINDOW_FIELDS = ("page_id", "duration_ms")
_FIELDS = {
    ("W2", "page_views"): ("event_time", "page_id", "user_id", "duration_ms"),
    ("W4", "page_views"): ("event_time", "user_id"),
    ("W5", "orders"): ("event_time", "order_id", "status"),
    ("W5", "payments"): ("event_time", "payment_id", "order_id", "paid_cents"),
    ("W6", "transactions"): (
        "event_id",
        "event_time",
        "user_id",
        "amount_cents",
        "latitude",
        "longitude",
    ),
}


class Newest(dict[tuple[Cell, ...], tuple[Cell, ...]]):
    """The newest row of each key, and when one last came."""

    changed = 0.0

    def __setitem__(self, key: tuple[Cell, ...], cells: tuple[Cell, ...]) -> None:
        self.changed = time.monotonic()
        super().__setitem__(key, cells)


def main() -> None:
    """Run the workers, which end when nothing comes any more."""
    group = f"bench-quix-{uuid.uuid4().hex[:8]}"
    command = [sys.executable, "-m", "bench.peers.quix", sys.argv[1], group]
    workers = [subprocess.Popen([*command, str(number)]) for number in range(_WORKERS)]
    if any(worker.wait() for worker in workers):
        raise RuntimeError("a worker of Quix Streams failed")


def work(task: Task, group: str, number: int) -> None:
    """Be one worker, and write the rows of the keys that fall to it."""
    from quixstreams import Application

    application = Application(
        broker_address=task.bootstrap,
        consumer_group=group,
        auto_offset_reset="earliest",
        state_dir=f"{task.folder}/state-{number}",
        loglevel=logging.WARNING,
        consumer_extra_config={"queued.min.messages": 100_000},
        producer_extra_config={"linger.ms": 50, "compression.type": "lz4"},
    )
    events = [
        application.dataframe(
            application.topic(source.topic, key_deserializer="str", value_deserializer="bytes")
        ).apply(_decoder(task, number, place))
        for place, source in enumerate(task.sources)
    ]
    newest = Newest()
    question: Callable[..., None] = _QUESTIONS.get(task.question, _windows)
    question(task, newest, *events)
    application.run(timeout=_IDLE_SECONDS)
    if newest:
        # Only that nothing came any more told it that this was the last.
        task.complete(newest.changed)
    task.write_rows((key + cells for key, cells in newest.items()), number)


def _windows(task: Task, newest: Newest, events: Any) -> None:
    from quixstreams.dataframe.windows import Count, Sum

    def keep(row: Any, key: Any, timestamp: int, headers: Any) -> None:
        duration = row["duration_ms"] if row["timed"] else None
        newest[row["start"], key] = (row["views"], duration)

    pages, grace = events.group_by("page_id"), task.held_back_ms
    if task.size_ms == task.slide_ms:
        windows = pages.tumbling_window(task.size_ms, grace_ms=grace)
    else:
        windows = pages.hopping_window(task.size_ms, task.slide_ms, grace_ms=grace)
    measures = {"duration_ms": Sum("duration_ms"), "timed": Count("duration_ms")}
    windows.agg(views=Count(), **measures).current().update(keep, metadata=True)


def _uniques(task: Task, newest: Newest, events: Any) -> None:
    def counted(event: dict[str, Any], state: Any) -> list[int]:
        start = event["event_time"] // task.slide_ms * task.slide_ms
        views, duration_ms, timed, visitors = state.get(start, (0, 0, 0, 0))
        visitor = f"{start} {event['user_id']}"
        if not state.exists(visitor):
            state.set(visitor, 1)
            visitors += 1
        if (duration := event["duration_ms"]) is not None:
            duration_ms, timed = duration_ms + duration, timed + 1
        sums = [views + 1, duration_ms, timed, visitors]
        state.set(start, sums)
        return [start, *sums]

    def keep(sums: list[int], key: Any, timestamp: int, headers: Any) -> None:
        start, views, duration_ms, timed, visitors = sums
        newest[start, key] = (views, duration_ms if timed else None, visitors)

    events.group_by("page_id").apply(counted, stateful=True).update(keep, metadata=True)


def _sessions(task: Task, newest: Newest, events: Any) -> None:
    from quixstreams.dataframe.windows import Count

    def keep(row: Any, user: Any, timestamp: int, headers: Any) -> None:
        # One that has grown at its beginning, or joined two, takes the place of what it was.
        ours = starts.setdefault(user, set())
        for start in [one for one in ours if row["start"] <= one <= row["end"]]:
            ours.discard(start)
            newest.pop((user, start), None)
        ours.add(row["start"])
        newest[user, row["start"]] = (row["pages"], row["end"] - row["start"])

    starts: dict[str, set[int]] = {}
    windows = events.session_window(_PAUSE_MS, grace_ms=task.held_back_ms)
    windows.agg(pages=Count()).current().update(keep, metadata=True)


def _payments(task: Task, newest: Newest, orders: Any, payments: Any) -> None:
    def keep(both: dict[str, Any]) -> None:
        cells = (both["order_id"], both["ordered_at"], both["event_time"], both["paid_cents"])
        newest[both["payment_id"],] = cells

    placed = orders[orders["status"] == "placed"]
    joined = placed.join_interval(
        payments,
        on_merge=lambda order, payment: payment | {"ordered_at": order["event_time"]},
        # Grace counts from an event, not from the end of its interval.
        grace_ms=_MINUTE_MS + task.held_back_ms,
        backward_ms=_MINUTE_MS,
        forward_ms=_MINUTE_MS,
    )
    joined.update(keep)


def _thefts(task: Task, newest: Newest, events: Any) -> None:
    def judged(event: dict[str, Any], state: Any) -> dict[str, Any]:
        history = state.get("history", [])
        now = [event["event_time"], event["amount_cents"], event["latitude"], event["longitude"]]
        state.set("history", [*history, now][-REMEMBERED:])
        return event | {"reasons": judge(history, now)}

    def keep(event: dict[str, Any]) -> None:
        if event["reasons"]:
            cells = tuple(event[name] for name in task.table.cells)
            newest[event["event_id"],] = cells

    events.apply(judged, stateful=True).update(keep)


_QUESTIONS = {"W2": _uniques, "W4": _sessions, "W5": _payments, "W6": _thefts}


def _decoder(task: Task, number: int, place: int) -> Any:
    """Return what decodes a value of a topic to its fields; a window's time is the record's."""
    import fastavro

    source = task.sources[place]
    names = _FIELDS.get((task.question, source.stream), _WINDOW_FIELDS)
    schema: Any = fastavro.parse_schema(leading(source.schema, names))
    read = 0

    def decode(value: bytes) -> dict[str, Any]:
        nonlocal read
        body = io.BytesIO(value)
        body.seek(HEADER_BYTES)
        event: Any = fastavro.schemaless_reader(body, schema, None)
        if read % _REPORT_EVENTS == 0:
            task.report(read, 10 * place + number)
        read += 1
        return {name: event[name] for name in names}

    return decode


if __name__ == "__main__":
    if len(sys.argv) == 2:
        Task.given()
        main()
    else:
        work(Task.given(), sys.argv[2], int(sys.argv[3]))
