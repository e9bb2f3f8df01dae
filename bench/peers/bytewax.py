"""Bytewax: each poll is decoded and summed up in Arrow, then go its event-time windows."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from bench.peers.avro import batch_reader, tuples
from bench.peers.fraud import REMEMBERED, judge
from bench.peers.protocol import Cell, Contender, Source, Task

# Each its own process: threads would share Python's lock.
_WORKERS = 2
_BATCH = 10_000
CONTENDERS = {
    "bytewax": Contender(
        "Bytewax",
        "no exactly-once (recovery off), dead letters, corrections, sink; lateness delays windows",
        f"{_WORKERS} processes of a worker each, polls of {_BATCH:,} messages decoded by pyruhvro",
        answers=("W1", "W2", "W3", "W4", "W5", "W6"),
        cannot={"W7": "not written: W3 and W4 show what the parts cost"},
        notes={
            "W5": "a stateful step for each order, whose state never ends",
            "W6": "a stateful step for each user",
        },
        environment="bytewax",
    )
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_PAUSE = timedelta(minutes=30)
_MINUTE_MS = 60_000

Partial = list[Any]
"""[views, duration or None, set of visitors or None, newest event time in ms]"""
Rows = list[tuple[Cell, ...]]


def main(task: Task) -> None:
    """Run the workers and wait for them."""
    addresses = ";".join(f"127.0.0.1:{port}" for port in _free_ports(_WORKERS))
    command = [sys.executable, "-m", "bench.peers.bytewax", sys.argv[1], addresses]
    workers = [subprocess.Popen([*command, str(number)]) for number in range(_WORKERS)]
    if any(worker.wait() for worker in workers):
        raise RuntimeError("a worker of Bytewax failed")


def work(task: Task, addresses: list[str], number: int) -> None:
    """Be one worker, and write the rows of the keys that fall to it."""
    from bytewax import operators as op
    from bytewax._bytewax import cli_main
    from bytewax.dataflow import Dataflow

    rows: Rows = []
    flow = Dataflow("question")
    batches = [_batches(task, source, flow) for source in task.sources]
    question: Callable[..., Any] = _QUESTIONS.get(task.question, _windows)
    found = question(task, number, *batches)
    op.output("rows", op.map("keep", found, rows.append), _nowhere())
    cli_main(flow, process_id=number, addresses=addresses)
    task.complete()
    task.write_rows(rows, number)


def _batches(task: Task, source: Source, flow: Any) -> Any:
    from bytewax import operators as op
    from bytewax.connectors.kafka import KafkaSource

    config = {"fetch.message.max.bytes": "4000000", "queued.min.messages": "200000"}
    kafka = KafkaSource(
        [task.bootstrap], [source.topic], tail=False, add_config=config, batch_size=_BATCH
    )
    return op.input(f"kafka_{source.stream}", flow, kafka)


def _windows(task: Task, number: int, batches: Any) -> Any:
    from bytewax import operators as op
    from bytewax.operators import windowing

    held_back = task.held_back_ms * _MILLISECOND
    clock = windowing.EventClock(lambda partial: _EPOCH + partial[3] * _MILLISECOND, held_back)
    size, slide = task.size_ms * _MILLISECOND, task.slide_ms * _MILLISECOND
    windower = windowing.SlidingWindower(size, slide, _EPOCH)
    partials = op.flat_map_batch("aggregate", batches, _aggregator(task, number))
    windows = windowing.fold_window("window", partials, clock, windower, _nothing, _fold, _fold)

    def row(item: Any) -> tuple[Cell, ...]:
        page, (window, (views, duration, users, _)) = item
        cells = (views, duration, *((len(users),) if task.uniques else ()))
        return window * task.slide_ms, page, *cells

    return op.map("row", windows.down, row)


def _sessions(task: Task, number: int, batches: Any) -> Any:
    from bytewax import operators as op
    from bytewax.operators import windowing

    def visit(user: str, at: int) -> tuple[str, tuple[int, int, int]]:
        return user, (at, at, 1)

    def merge(one: Any, other: Any) -> tuple[int, int, int]:
        return min(one[0], other[0]), max(one[1], other[1]), one[2] + other[2]

    clock = windowing.EventClock(
        lambda visit: _EPOCH + visit[0] * _MILLISECOND, task.held_back_ms * _MILLISECOND
    )
    visits = op.flat_map_batch(
        "visits", batches, _decoder(task, number, 0, ("user_id", "event_time"), visit)
    )
    found = windowing.reduce_window(
        "sessions", visits, clock, windowing.SessionWindower(_PAUSE), merge
    )

    def row(item: Any) -> tuple[Cell, ...]:
        user, (_, (first, last, pages)) = item
        return user, first, pages, last - first

    return op.map("row", found.down, row)


def _payments(task: Task, number: int, orders: Any, payments: Any) -> Any:
    from bytewax import operators as op

    def order(order: str, status: str, at: int) -> tuple[str, Any]:
        return order, (at if status == "placed" else None, None)

    def payment(order: str, *paid: Cell) -> tuple[str, Any]:
        return order, (None, paid)

    # An order that ships is none to be paid; it still has a key of its own.
    fields = ("order_id", "status", "event_time")
    placings = op.flat_map_batch("orders", orders, _decoder(task, number, 0, fields, order))
    fields = ("order_id", "payment_id", "event_time", "paid_cents")
    payings = op.flat_map_batch("payments", payments, _decoder(task, number, 1, fields, payment))
    both = op.merge("both", placings, payings)

    def match(state: Any, event: Any) -> tuple[Any, list[tuple[Cell, ...]]]:
        placed, paid = known = state or ([], [])
        at, payment = event
        if payment is not None:
            paid.append(payment)
            pairs = [(one, payment) for one in placed]
        elif at is not None:
            placed.append(at)
            pairs = [(at, one) for one in paid]
        else:
            pairs = []
        return known, [
            (payment, at, paid_at, cents)
            for at, (payment, paid_at, cents) in pairs
            if abs(paid_at - at) <= _MINUTE_MS
        ]

    matched = op.stateful_map("match", both, match)

    def rows(item: tuple[str, list[Any]]) -> list[tuple[Cell, ...]]:
        order, found = item
        return [(payment, order, *cells) for payment, *cells in found]

    return op.flat_map("pairs", matched, rows)


def _thefts(task: Task, number: int, batches: Any) -> Any:
    from bytewax import operators as op

    def payment(user: str, event: str, *now: Any) -> tuple[str, Any]:
        return user, (event, now)

    def judged(history: Any, payment: Any) -> tuple[Any, tuple[Cell, ...] | None]:
        history = deque(maxlen=REMEMBERED) if history is None else history
        event, now = payment
        reasons = judge(history, now)
        history.append(now)
        return history, (event, *now[:2], reasons) if reasons else None

    fields = ("user_id", "event_id", "event_time", "amount_cents", "latitude", "longitude")
    events = op.flat_map_batch("payments", batches, _decoder(task, number, 0, fields, payment))

    def row(item: Any) -> tuple[Cell, ...] | None:
        user, found = item
        return found and (found[0], user, *found[1:])

    return op.filter_map("thefts", op.stateful_map("judge", events, judged), row)


_QUESTIONS: dict[str, Callable[..., Any]] = {"W4": _sessions, "W5": _payments, "W6": _thefts}


def _decoder(
    task: Task, number: int, place: int, names: tuple[str, ...], keyed: Callable[..., Any]
) -> Callable[[list[Any]], list[Any]]:
    """Return what decodes a batch of messages of one topic into keyed events."""
    decode, worker, read = batch_reader(task.sources[place].schema, names), number, 0
    worker += _WORKERS * place
    task.report(0, worker)

    def listed(messages: list[Any]) -> list[Any]:
        nonlocal read
        found = [keyed(*row) for row in tuples(decode(message.value for message in messages))]
        read += len(messages)
        task.report(read, worker)
        return found

    return listed


def _aggregator(task: Task, number: int) -> Callable[[list[Any]], list[tuple[str, Partial]]]:
    """Return what sums up a batch of messages as (page, partial) pairs, one per window."""
    import pyarrow as pa
    import pyarrow.compute as pc

    names = ("event_time", "page_id", "duration_ms", *(["user_id"] if task.uniques else []))
    decode, read = batch_reader(task.source.schema, names), 0
    sums = [("page_id", "count"), ("duration_ms", "sum"), ("event_time", "max")]
    sums += [("user_id", "distinct")] if task.uniques else []
    task.report(0, number)

    def aggregate(messages: list[Any]) -> list[tuple[str, Partial]]:
        nonlocal read
        events = pa.Table.from_batches([decode(message.value for message in messages)])
        events = events.append_column("window", pc.divide(events["event_time"], task.slide_ms))
        grouped = events.group_by(["window", "page_id"]).aggregate(sums)
        columns = [grouped[f"{name}_{how}"].to_pylist() for name, how in sums]
        views, durations, newest, *users = columns
        visitors = map(set, users[0]) if users else [None] * len(views)
        partials = map(list, zip(views, durations, visitors, newest, strict=True))
        read += len(messages)
        task.report(read, number)
        return list(zip(grouped["page_id"].to_pylist(), partials, strict=True))

    return aggregate


def _nothing() -> Partial:
    return [0, None, None, 0]


def _fold(into: Partial, partial: Partial) -> Partial:
    durations = [one for one in (into[1], partial[1]) if one is not None]
    if into[2] is not None and partial[2] is not None:
        into[2] |= partial[2]
    return [
        into[0] + partial[0],
        sum(durations) if durations else None,
        partial[2] if into[2] is None else into[2],
        max(into[3], partial[3]),
    ]


def _nowhere() -> Any:
    from bytewax.outputs import DynamicSink, StatelessSinkPartition

    class Partition(StatelessSinkPartition[None]):
        def write_batch(self, items: list[None]) -> None:
            pass

    class Nowhere(DynamicSink[None]):
        def build(self, step_id: str, worker_index: int, worker_count: int) -> Partition:
            return Partition()

    return Nowhere()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


if __name__ == "__main__":
    if len(sys.argv) == 2:
        main(Task.given())
    else:
        work(Task.given(), sys.argv[2].split(";"), int(sys.argv[3]))
