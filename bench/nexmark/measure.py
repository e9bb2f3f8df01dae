"""Nexmark's queries over Kafka: events a second, processor time, and are the answers right.

python -m bench.nexmark.measure --events 2000000
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import pandas as pd
import pyarrow as pa
import typer

from bench.generators.nexmark import OF_EACH, SHARES, Auction, batches
from bench.machine import Machine
from bench.nexmark.oracle import ANSWERS, World
from bench.nexmark.queries import QUERIES
from bench.rows import await_rows, newest
from bench.series import OUTPUT, Figure
from bench.showing import kept, show
from bench.throughput import OPTIONS, Launch, Measured, borrowed_namespace, fill_stream, run_over
from deploy.console import ERR, CommandError, print_table, run_alone
from deploy.settings import PROJECT_ROOT, Settings
from jobs.views import Job
from schemas.streams import Stream

_SCRIPT = PROJECT_ROOT / "bench" / "nexmark" / "queries.py"
_PER_SECOND = 10_000.0
"""Events that a query reads in a second of event time."""
_CLOSERS = 64
_CLOSERS_AFTER_MS, _ANSWERS_UNTIL_MS = 60_000, 30_000
NOT_RUN = {
    "q12": "windows of the clock: rebuilt from its topic it would give other rows than it gave"
}


def kinds(job: Job) -> tuple[str, ...]:
    """Return the kinds of events that a query reads."""
    return tuple(stream.name.removeprefix("nexmark_") for stream in job.streams)


def auction_for(read: Sequence[str], events: int) -> Auction:
    """Return an auction of which a query that reads those kinds reads about `events`."""
    share = sum(end - first for first, end in (SHARES[kind] for kind in read)) / OF_EACH
    return Auction(round(events / share), _PER_SECOND / share)


def with_closers(auction: Auction, kind: str, stream: Stream) -> Iterator[pa.RecordBatch]:
    """Yield the events of `kind`, and then a few in each partition that close all windows."""
    for batch in batches(auction, kind):
        yield batch
    last = batch.slice(0, 1).take(pa.array([0] * _CLOSERS))
    times = pa.array([auction.end_ms + _CLOSERS_AFTER_MS] * _CLOSERS)
    columns = dict(zip(last.schema.names, last.columns, strict=True))
    keys = pa.array([f"closer-{number}" for number in range(_CLOSERS)])
    yield pa.RecordBatch.from_pydict(columns | {"event_time": times, stream.key_field: keys})


def world_of(auction: Auction, read: Sequence[str]) -> World:
    """Return the events of those kinds as tables."""
    return {
        kind: pa.Table.from_batches(batches(auction, kind)).to_pandas(split_blocks=True)
        for kind in read
    }


def measure(
    settings: Settings, read: Sequence[str], names: Sequence[str], events: int, *, warm_up: bool
) -> Iterator[Figure]:
    """Fill the topics of those kinds and run the queries of those names over them.

    With `warm_up` the first runs twice, and the first time doesn't count.
    """
    auction = auction_for(read, events)
    with borrowed_namespace(settings) as there:
        for stream in QUERIES[names[0]].streams:
            kind = stream.name.removeprefix("nexmark_")
            placed = replace(stream, namespace=there.namespace)
            fill_stream(there, placed, with_closers(auction, kind, stream), auction.count(kind))
        world = world_of(auction, read)
        if warm_up:
            ERR.print("Warming up …")
            _run(there, names[0], auction, world, 1)
        for name in names:
            ERR.print(f"{name} …")
            measured = _run(there, name, auction, world, 2)
            ERR.print(f"    {measured.steady:,} events/s; right: {measured.right}")
            yield Figure("Nexmark", name, Machine.here(), measured)


def _run(settings: Settings, name: str, auction: Auction, world: World, version: int) -> Measured:
    job = QUERIES[name]
    (view,) = job.within(settings.namespace).views
    expected = ANSWERS[name](world)
    time = next(c for c in ("window_start", "session_start", "event_ms") if c in expected)

    def answers() -> pd.DataFrame:
        found = newest(settings, view, version)
        return found[found[time] < auction.end_ms + _ANSWERS_UNTIL_MS]

    launch = Launch(job, _SCRIPT, (view.name,), OPTIONS | {"query": name}, version)
    events = sum(auction.count(kind) + _CLOSERS for kind in kinds(job))
    return run_over(settings, launch, events, lambda: await_rows(answers, expected))


def _measured(names: Sequence[str], events: int) -> Iterator[Figure]:
    """Yield the figures of those queries, where those that read the same stand together."""
    for number, read in enumerate(dict.fromkeys(kinds(QUERIES[name]) for name in names)):
        together = [name for name in names if kinds(QUERIES[name]) == read]
        yield from measure(Settings(), read, together, events, warm_up=number == 0)


def main(
    events: Annotated[int, typer.Option(min=100_000, help="That a query reads.")] = 2_000_000,
    query: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(QUERIES)}.")] = None,
    output: Annotated[Path, typer.Option(help="Folder of the JSON and the chart.")] = OUTPUT,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Measure on the running embedded stack (`kappa up` first).

    Example: python -m bench.nexmark.measure --query q5 --query q7
    """
    names = tuple(query or QUERIES)
    if unknown := sorted({*names} - QUERIES.keys()):
        raise CommandError(f"There is no {', '.join(unknown)}; see --help.")
    figures = kept(_measured(names, events), output, "nexmark")
    show(figures, output, "nexmark", as_json=as_json)
    if not as_json:
        print_table("Not run", ("query", "because"), list(NOT_RUN.items()))


if __name__ == "__main__":
    run_alone(main)
