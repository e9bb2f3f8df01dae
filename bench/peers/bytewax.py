"""Bytewax: fastavro, partial sums per batch in Python, then its event-time windows."""

from __future__ import annotations

import io
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

from bench.peers.protocol import Contender, Row, Task

CONTENDERS = {
    "bytewax": Contender(
        "Bytewax",
        "no exactly-once (recovery off), dead letters or corrections; lateness delays windows",
        environment="bytewax",
    )
}
# Each its own process: threads would share Python's lock.
_WORKERS = 2
_BATCH = 10_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

Partial = list[Any]
"""[views, duration or None, set of visitors or None, newest event time in ms]"""


def main(task: Task) -> None:
    """Run the workers and wait for them."""
    addresses = ";".join(f"127.0.0.1:{port}" for port in _free_ports(_WORKERS))
    command = [sys.executable, "-m", "bench.peers.bytewax", sys.argv[1], addresses]
    workers = [subprocess.Popen([*command, str(number)]) for number in range(_WORKERS)]
    if any(worker.wait() for worker in workers):
        raise RuntimeError("a worker of Bytewax failed")


def work(task: Task, addresses: list[str], number: int) -> None:
    """Be one worker, and write the rows of the pages that fall to it."""
    from bytewax._bytewax import cli_main

    rows: list[Row] = []
    cli_main(_flow(task, number, rows), process_id=number, addresses=addresses)
    task.write_rows(rows, number)


def _flow(task: Task, number: int, rows: list[Row]) -> Any:
    from bytewax import operators as op
    from bytewax.connectors.kafka import KafkaSource
    from bytewax.dataflow import Dataflow
    from bytewax.operators.windowing import EventClock, TumblingWindower, fold_window

    config = {"fetch.message.max.bytes": "4000000", "queued.min.messages": "200000"}
    source = KafkaSource(
        [task.bootstrap], [task.topic], tail=False, add_config=config, batch_size=_BATCH
    )
    clock = EventClock(
        lambda partial: _EPOCH + partial[3] * _MILLISECOND,
        (task.disorder_ms + task.lateness_ms) * _MILLISECOND,
    )
    size = task.size_ms * _MILLISECOND
    flow = Dataflow("question")
    batches = op.input("kafka", flow, source)
    partials = op.flat_map_batch("aggregate", batches, _aggregator(task, number))
    windows = fold_window(
        "window", partials, clock, TumblingWindower(size, _EPOCH), _nothing, _fold, _fold
    )

    def keep(item: Any) -> None:
        page, (window, (views, duration, users, _)) = item
        cells = (views, duration, *((len(users),) if task.uniques else ()))
        rows.append((window * task.size_ms, page, *cells))

    op.output("rows", op.map("keep", windows.down, keep), _nowhere())
    return flow


def _aggregator(task: Task, number: int) -> Any:
    """Return what folds a batch of messages into (page, partial) pairs, one per window."""
    import fastavro

    schema = fastavro.parse_schema(task.schema)
    read = 0
    task.report(0, number)

    def aggregate(messages: list[Any]) -> list[tuple[str, Partial]]:
        nonlocal read
        partials: dict[tuple[int, str], Partial] = {}
        for message in messages:
            body = io.BytesIO(message.value)
            body.seek(5)
            event: Any = fastavro.schemaless_reader(body, schema, None)
            at = (event["event_time"] - _EPOCH) // _MILLISECOND
            key = (at // task.size_ms, event["page_id"])
            if (partial := partials.get(key)) is None:
                partial = partials[key] = [0, None, set() if task.uniques else None, 0]
            partial[0] += 1
            if (duration := event["duration_ms"]) is not None:
                partial[1] = duration + (partial[1] or 0)
            if task.uniques:
                partial[2].add(event["user_id"])
            partial[3] = max(partial[3], at)
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
