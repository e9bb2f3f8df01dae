"""Bytewax: fastavro, partial sums per batch in Python, then its event-time windows."""

from __future__ import annotations

import io
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from bench.peers.fraud import REMEMBERED, judge
from bench.peers.protocol import Cell, Contender, Source, Task

# Each its own process: threads would share Python's lock.
_WORKERS = 2
_BATCH = 10_000
CONTENDERS = {
    "bytewax": Contender(
        "Bytewax",
        "no exactly-once (recovery off), dead letters or corrections; lateness delays windows",
        f"{_WORKERS} processes of a worker each, polls of {_BATCH:,} messages",
        answers=("W1", "W2", "W3", "W4", "W5", "W6"),
        cannot={"W7": "not written: W3 and W4 show what the parts cost; all together is long"},
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
Event = dict[str, Any]
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

    def visit(event: Event) -> tuple[str, tuple[int, int, int]]:
        return event["user_id"], (event["at"], event["at"], 1)

    def merge(one: Any, other: Any) -> tuple[int, int, int]:
        return min(one[0], other[0]), max(one[1], other[1]), one[2] + other[2]

    clock = windowing.EventClock(
        lambda visit: _EPOCH + visit[0] * _MILLISECOND, task.held_back_ms * _MILLISECOND
    )
    visits = op.flat_map_batch("visits", batches, _decoder(task, number, 0, visit))
    found = windowing.reduce_window(
        "sessions", visits, clock, windowing.SessionWindower(_PAUSE), merge
    )

    def row(item: Any) -> tuple[Cell, ...]:
        user, (_, (first, last, pages)) = item
        return user, first, pages, last - first

    return op.map("row", found.down, row)


def _payments(task: Task, number: int, orders: Any, payments: Any) -> Any:
    from bytewax import operators as op

    def order(event: Event) -> tuple[str, Event]:
        return event["order_id"], event

    # An order that ships is none to be paid; it still has a key of its own.
    both = op.merge(
        "both",
        op.flat_map_batch("orders", orders, _decoder(task, number, 0, order)),
        op.flat_map_batch("payments", payments, _decoder(task, number, 1, order)),
    )

    def match(state: Any, event: Event) -> tuple[Any, list[tuple[Cell, ...]]]:
        known: tuple[list[Event], list[Event]] = state or ([], [])
        placed, paid = known
        if "payment_id" in event:
            paid.append(event)
            pairs = [(one, event) for one in placed]
        elif event["status"] == "placed":
            placed.append(event)
            pairs = [(event, one) for one in paid]
        else:
            pairs = []
        return (placed, paid), [
            (p["payment_id"], p["order_id"], o["at"], p["at"], p["paid_cents"])
            for o, p in pairs
            if abs(p["at"] - o["at"]) <= _MINUTE_MS
        ]

    return op.flat_map(
        "pairs", op.key_rm("row", op.stateful_map("match", both, match)), lambda r: r
    )


def _thefts(task: Task, number: int, batches: Any) -> Any:
    from bytewax import operators as op

    def payment(event: Event) -> tuple[str, Event]:
        return event["user_id"], event

    def judged(history: Any, event: Event) -> tuple[Any, tuple[Cell, ...] | None]:
        history = deque(maxlen=REMEMBERED) if history is None else history
        now = (event["at"], event["amount_cents"], event["latitude"], event["longitude"])
        reasons = judge(history, now)
        history.append(now)
        row = (event["event_id"], event["user_id"], event["at"], event["amount_cents"], reasons)
        return history, row if reasons else None

    events = op.flat_map_batch("payments", batches, _decoder(task, number, 0, payment))
    found = op.key_rm("row", op.stateful_map("judge", events, judged))
    return op.filter("thefts", found, lambda row: row is not None)


_QUESTIONS: dict[str, Callable[..., Any]] = {"W4": _sessions, "W5": _payments, "W6": _thefts}


def _events(schema: Any, messages: list[Any]) -> Iterable[Event]:
    import fastavro

    for message in messages:
        body = io.BytesIO(message.value)
        body.seek(5)
        event: Any = fastavro.schemaless_reader(body, schema, None)
        event["at"] = (event["event_time"] - _EPOCH) // _MILLISECOND
        yield event


def _decoder(
    task: Task, number: int, place: int, keyed: Callable[[Event], Any]
) -> Callable[[list[Any]], list[Any]]:
    """Return what decodes a batch of messages of one topic into keyed events."""
    import fastavro

    schema = fastavro.parse_schema(task.sources[place].schema)
    worker, read = number + _WORKERS * place, 0
    task.report(0, worker)

    def decode(messages: list[Any]) -> list[Any]:
        nonlocal read
        found = [keyed(event) for event in _events(schema, messages)]
        read += len(messages)
        task.report(read, worker)
        return found

    return decode


def _aggregator(task: Task, number: int) -> Callable[[list[Any]], list[tuple[str, Partial]]]:
    """Return what folds a batch of messages into (page, partial) pairs, one per window."""
    import fastavro

    schema = fastavro.parse_schema(task.source.schema)
    read = 0
    task.report(0, number)

    def aggregate(messages: list[Any]) -> list[tuple[str, Partial]]:
        nonlocal read
        partials: dict[tuple[int, str], Partial] = {}
        for event in _events(schema, messages):
            key = (event["at"] // task.slide_ms, event["page_id"])
            if (partial := partials.get(key)) is None:
                partial = partials[key] = [0, None, set() if task.uniques else None, 0]
            partial[0] += 1
            if (duration := event["duration_ms"]) is not None:
                partial[1] = duration + (partial[1] or 0)
            if task.uniques:
                partial[2].add(event["user_id"])
            partial[3] = max(partial[3], event["at"])
        read += len(messages)
        task.report(read, number)
        return [(page, partial) for (_, page), partial in partials.items()]

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
