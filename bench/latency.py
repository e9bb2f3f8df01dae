"""How long an event takes from when it is due to being counted where people can read it.

That is in a row of a view's topic, as readers of committed records see it, and in one that people
query.

python -m bench.latency --per-second 1000 --per-second 10000 --seconds 120
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import fastavro
import numpy as np
import typer
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from bench.drawing import Bar, draw_panels
from bench.machine import Machine, keep_json
from bench.series import OUTPUT
from bench.throughput import borrowed_namespace
from bench.workload import Workload, fill_live
from deploy.console import CommandError, print_json, print_table, run_alone
from deploy.settings import PROJECT_ROOT, Settings
from jobs.catalogue import job_named
from jobs.page_views import SITE_TRAFFIC_PER_MINUTE
from jobs.submit import cancel, submit
from jobs.views import WindowView
from schemas.framing import split
from schemas.registry import Registry, publish_schema
from schemas.topics import end_offsets, ensure_events_topic
from sinks.clickhouse import ClickHouse, ClickHouseFailed

_POLL_SECONDS = 0.05
_WARM_UP_SECONDS = 10.0
_PER_SECOND = (1_000.0, 10_000.0, 50_000.0)
_KEPT_UP = 0.99
_VISIBLE = f"SELECT sum(views) FROM {SITE_TRAFFIC_PER_MINUTE.name}"
POINTS = ("view topic", "ClickHouse")

Seconds = np.ndarray[tuple[int], np.dtype[np.float64]]
Marks = list[tuple[float, int]]
"""(monotonic seconds, events so far), ascending."""


@dataclass(frozen=True)
class Sent:
    """Events sent at an even pace: the clock when the first was due, and the pace reached."""

    began: float
    per_second: float
    events: int
    achieved: float


@dataclass(frozen=True)
class Latency:
    """Seconds from due to counted at a point of `POINTS`, over all events of a run.

    `per_second` were asked for and `achieved` sent. A point follows checkpoints, so that a p99
    needs many of `checkpoint_seconds`.
    """

    per_second: float
    achieved: float
    checkpoint_seconds: float
    point: str
    events: int
    p50: float
    p99: float
    greatest: float

    @classmethod
    def of(cls, sent: Sent, checkpoint_seconds: float, point: str, found: Seconds) -> Latency:
        """Return what `latencies` come to at `point`."""
        p50, p99, most = np.percentile(found, (50, 99, 100)).round(2).tolist()
        pace = (sent.per_second, sent.achieved)
        return cls(*pace, checkpoint_seconds, point, len(found), p50, p99, most)

    @property
    def pace(self) -> str:
        """The pace reached, and whether it fell behind what was asked for."""
        is_behind = self.achieved < _KEPT_UP * self.per_second
        return f"{self.achieved:,.0f}{' (behind)' if is_behind else ''}"


@dataclass
class Watch:
    """A thread that notes how many events `count` tells of, until it is told to stop."""

    count: Callable[[], int]
    marks: Marks = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Look again and again."""
        while not self.stop.is_set():
            found = self.count()
            self.marks.append((time.monotonic(), found))
            self.stop.wait(_POLL_SECONDS)

    def await_count(self, events: int, seconds: float) -> None:
        """Wait until all `events` are counted."""
        deadline = time.monotonic() + seconds
        while (found := self.marks[-1][1] if self.marks else 0) < events:
            if time.monotonic() > deadline:
                raise CommandError(f"Only {found:,} of {events:,} events were counted in time.")
            time.sleep(_POLL_SECONDS)


def latencies(sent: Sent, seen: Marks, already: int = 0) -> Seconds:
    """Return, per event after the first `already`, the seconds from being due to being seen.

    That is to the first mark that showed so many. Counted from the sending, the wait of one that
    was sent late, because something stood still, would be left out.
    """
    numbers = np.arange(sent.events)
    due = sent.began + numbers / sent.per_second
    return _at(seen, already + 1 + numbers) - due


def _at(marks: Marks, numbers: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Seconds:
    times = np.array([at for at, _ in marks])
    # A look that failed saw nothing.
    counts = np.maximum.accumulate([count for _, count in marks])
    return times[np.searchsorted(counts, numbers)]


def measure(settings: Settings, rates: Sequence[float], seconds: float) -> Iterator[Latency]:
    """Run job and loader in a namespace of their own and send events at each pace in turn."""
    with running_job(settings) as (there, registry), watching(there) as watches:
        already = 0
        for per_second in rates:
            # The first events pay for the start of everything and are left out.
            for lasts in (_WARM_UP_SECONDS, seconds):
                before, events = already, round(per_second * lasts)
                sent = send(there, registry, per_second, events, seed=before + 1)
                already += events
                for watch in watches:
                    watch.await_count(already, 120.0)
            for point, watch in zip(POINTS, watches, strict=True):
                found = latencies(sent, watch.marks, before)
                yield Latency.of(sent, there.checkpoint_seconds, point, found)


@contextmanager
def running_job(settings: Settings) -> Iterator[tuple[Settings, Registry]]:
    """Give the settings of a new namespace in which the job and a loader run."""
    with borrowed_namespace(settings) as there, Registry(**there.registry_access) as registry:
        job = job_named("page_views").within(there.namespace)
        publish_schema(registry, job.stream)
        ensure_events_topic(there.kafka_client, job.stream)
        views = tuple(view.name for view in job.views if isinstance(view, WindowView))
        submitted = submit(there, "page_views", views=views, restore="none")
        loader = subprocess.Popen(
            [sys.executable, "-m", "sinks.loader"],
            cwd=PROJECT_ROOT,
            env=os.environ | there.environment() | {"KAPPA_PORT_BASE": str(there.port_base)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield there, registry
        finally:
            loader.terminate()
            loader.wait(30)
            cancel(there, submitted.name)


@contextmanager
def watching(settings: Settings) -> Iterator[tuple[Watch, Watch]]:
    """Watch both points, in the order of `POINTS`, while the context lasts."""
    watches = Watch(TopicCount(settings).read), Watch(ClickHouseCount(settings).read)
    threads = [threading.Thread(target=watch.run, daemon=True) for watch in watches]
    for thread in threads:
        thread.start()
    try:
        yield watches
    finally:
        for watch, thread in zip(watches, threads, strict=True):
            watch.stop.set()
            thread.join(30)


class TopicCount:
    """Counts what the rows of the view's topic say that a transaction has committed."""

    def __init__(self, settings: Settings) -> None:
        job = job_named("page_views").within(settings.namespace)
        view = next(view for view in job.views if view.name == SITE_TRAFFIC_PER_MINUTE.name)
        self._schema = fastavro.parse_schema(view.avro_schema)
        self._consumer = Consumer(
            {
                **settings.kafka_client,
                "group.id": "bench",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
            }
        )
        topic = view.topic(1)
        ends = end_offsets(settings.kafka_client, topic)
        self._consumer.assign(
            [TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in ends]
        )
        self._views: dict[Any, int] = {}

    def read(self) -> int:
        """Take in what is new and return how many events all rows count."""
        for message in self._consumer.consume(10_000, timeout=_POLL_SECONDS):
            if message.error() is None and (value := message.value()) is not None:
                _, body = split(value)
                row: Any = fastavro.schemaless_reader(io.BytesIO(body), self._schema, None)
                self._views[row["window_start"]] = row["views"]
        return sum(self._views.values())


class ClickHouseCount:
    """Counts what a query finds."""

    def __init__(self, settings: Settings) -> None:
        self._clickhouse = ClickHouse(settings, reader=True)

    def read(self) -> int:
        """Return how many events all rows count."""
        try:
            (count,) = self._clickhouse.query(_VISIBLE).rows[0]
        except ClickHouseFailed:
            # The loader has not made the table yet.
            return 0
        return int(count or 0)


def send(settings: Settings, registry: Registry, per_second: float, events: int, seed: int) -> Sent:
    """Send page views of now at an even pace."""
    stream = job_named("page_views").within(settings.namespace).stream
    start_ms = round(time.time() * 1000) - 8_000
    workload = Workload(events=events, per_second=per_second, seed=seed, start_ms=start_ms)
    moments: list[float] = []
    filled = fill_live(
        settings.kafka_client,
        registry,
        stream,
        workload,
        lambda count: moments.append(time.monotonic()),
    )
    return Sent(filled.began, per_second, events, _pace(filled.began, moments[-1], events))


def _pace(began: float, last: float, events: int) -> float:
    """Return how many events a second those were of which the first was due when it began."""
    return round((events - 1) / max(last - began, 1e-9), 1)


def report(title: str, latencies: Sequence[Latency]) -> None:
    """Print a table."""
    columns = ("events/s", "reached", "until it is in", "events", "p50, s", "p99, s", "greatest, s")
    rows = [
        (one.per_second, one.pace, one.point, one.events, one.p50, one.p99, one.greatest)
        for one in latencies
    ]
    every = f"checkpoints every {latencies[0].checkpoint_seconds:g} s"
    print_table(f"{title}; {every}", columns, rows)


def draw(latencies: Sequence[Latency], path: Path) -> None:
    """Write a chart to `path` with a panel for each rate, in seconds."""
    panels: dict[str, list[Bar]] = {}
    for one in reversed(latencies):
        bars = panels.setdefault(
            f"{one.per_second:,.0f} events a second, {one.pace} reached: seconds until counted", []
        )
        for name, value in (("p99", one.p99), ("p50", one.p50)):
            bars.append(Bar(f"{one.point}, {name}", value))
    draw_panels(dict(reversed(panels.items())), path, ".1f")


def main(
    per_second: Annotated[
        list[float] | None,
        typer.Option(help="Events per second; repeat. 1,000, 10,000 and 50,000 by default."),
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="For each rate.")] = 120,
    output: Annotated[Path, typer.Option(help="Folder of the JSON and the chart.")] = OUTPUT,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Measure on the running embedded stack (`kappa up` first).

    Example: python -m bench.latency --per-second 1000
    """
    machine = Machine.here()
    found = list(measure(Settings(), per_second or _PER_SECOND, seconds))
    figures = [asdict(one) for one in found]
    document = keep_json(output / "latency.json", machine, figures=figures)
    draw(found, output / "latency.svg")
    if as_json:
        print_json(document)
        return
    report("From due to counted", found)


if __name__ == "__main__":
    run_alone(main)
