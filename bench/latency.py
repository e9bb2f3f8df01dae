"""How long an event takes from being produced to being counted in a row that people can query.

python -m bench.latency --per-second 1000 --seconds 30
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Annotated

import numpy as np
import typer

from bench.workload import Workload, fill_live
from deploy.console import CommandError, print_json, print_table, run_alone
from deploy.settings import PROJECT_ROOT, Settings
from jobs.catalogue import job_named
from jobs.submit import cancel, submit
from jobs.views import WindowView
from schemas.registry import Registry, publish_schema
from schemas.topics import ensure_events_topic
from sinks.clickhouse import ClickHouse, ClickHouseFailed

_POLL_SECONDS = 0.05
_VISIBLE = "SELECT sum(views) FROM site_traffic_per_minute"

Marks = list[tuple[float, int]]
"""(monotonic seconds, events so far), ascending."""


@dataclass(frozen=True)
class Latency:
    """Seconds from produced to visible, over all events of a run."""

    per_second: float
    events: int
    p50: float
    p99: float
    greatest: float


def latencies(sent: Marks, seen: Marks) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return, per event, the seconds from the mark that sent it to the mark that showed it."""
    numbers = np.arange(1, sent[-1][1] + 1)
    sent_at = _at(sent, numbers)
    return _at(seen, numbers) - sent_at


def _at(
    marks: Marks, numbers: np.ndarray[tuple[int], np.dtype[np.int64]]
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    times = np.array([at for at, _ in marks])
    counts = np.array([count for _, count in marks])
    return times[np.searchsorted(counts, numbers)]


def measure(settings: Settings, per_second: float, seconds: float) -> Latency:
    """Run job and loader in a namespace of their own and send events at their own pace."""
    with own_namespace(settings) as (there, registry):
        # The first events pay for the start of everything and are left out.
        _run(there, registry, per_second, 10 * per_second, already=0)
        events = round(per_second * seconds)
        found = _run(there, registry, per_second, events, already=round(10 * per_second))
    p50, p99 = np.percentile(found, (50, 99))
    return Latency(per_second, events, round(p50, 2), round(p99, 2), round(found.max(), 2))


@contextmanager
def own_namespace(settings: Settings) -> Iterator[tuple[Settings, Registry]]:
    """Give the settings of a new namespace in which the job and a loader run."""
    there = settings.model_copy(update={"namespace": f"l{uuid.uuid4().hex[:6]}"})
    job = job_named("page_views").within(there.namespace)
    with Registry(**there.registry_access) as registry:
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


def _run(
    settings: Settings, registry: Registry, per_second: float, events: float, already: int
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    stream = job_named("page_views").within(settings.namespace).stream
    workload = Workload(
        events=round(events),
        per_second=per_second,
        seed=already + 1,
        start_ms=round(time.time() * 1000) - 8_000,
    )
    sent: Marks = []
    seen: Marks = []
    done = threading.Event()
    watcher = threading.Thread(
        target=_watch, args=(settings, seen, already, workload.events, done), daemon=True
    )
    watcher.start()
    fill_live(
        settings.kafka_client,
        registry,
        stream,
        workload,
        lambda count: sent.append((time.monotonic(), count)),
    )
    if not done.wait(120):
        last = seen[-1][1] if seen else 0
        raise CommandError(f"Only {last:,} of {workload.events:,} events became visible.")
    return latencies(sent, seen)


def _watch(
    settings: Settings, seen: Marks, already: int, events: int, done: threading.Event
) -> None:
    clickhouse = ClickHouse(settings, reader=True)
    while not done.is_set():
        try:
            (count,) = clickhouse.query(_VISIBLE).rows[0]
        except ClickHouseFailed:
            count = 0
        seen.append((time.monotonic(), max(0, int(count or 0) - already)))
        if seen[-1][1] >= events:
            done.set()
        time.sleep(_POLL_SECONDS)


def main(
    per_second: Annotated[float, typer.Option(min=1, help="Events per second.")] = 1000,
    seconds: Annotated[float, typer.Option(min=1)] = 30,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Measure on the running embedded stack (`kappa up` first).

    Example: python -m bench.latency --per-second 1000
    """
    found = measure(Settings(), per_second, seconds)
    if as_json:
        print_json(asdict(found))
        return
    columns = ("events/s", "events", "p50, s", "p99, s", "greatest, s")
    print_table("Produced to visible in ClickHouse", columns, [tuple(asdict(found).values())])


if __name__ == "__main__":
    run_alone(main)
