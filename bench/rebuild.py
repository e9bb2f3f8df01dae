"""How fast three views are rebuilt beside the live ones, what the live job feels, how they switch.

python -m bench.rebuild --events 2000000
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Annotated

import typer

from bench import wrong_errors
from bench.steady import STEADY_FROM, STEADY_TO
from bench.throughput import borrowed_namespace
from bench.workload import Workload, fill, fill_live
from deploy.console import CommandError, print_json, print_table, progress_bar, run_alone
from deploy.settings import PROJECT_ROOT, Settings
from jobs.cluster import Cluster
from jobs.plan import JobPlan, plan
from jobs.status import read_offsets
from jobs.submit import cancel, flink_name, submit
from replay.build import BuildProgress, await_loaded, build
from replay.checking import check
from replay.control import Control, here
from replay.differences import Expectation
from replay.facts import gather
from replay.plan import plan_replay
from replay.records import ReplayRecord
from replay.steps import Work
from replay.switch import promote
from schemas.registry import Registry, publish_schema
from schemas.streams import Stream
from schemas.topics import end_offsets, ensure_events_topic
from sinks.clickhouse import ClickHouse, ClickHouseFailed

_JOB = wrong_errors.JOB.name
_DEADLINE_SECONDS = 900.0
_MINUTE_MS = 60_000
_READERS = 4


@dataclass(frozen=True)
class Measured:
    """One run. Rates are in events per second.

    `rebuild_steady` leaves out the job's start and its end, `rebuild_whole` counts from its
    submission. The live job's lag is what its checkpoints had not covered, so an idle machine
    shows up to two checkpoint intervals of events too. `switch_ms` is how long after the first
    query that saw the new version one began that saw the old; `mixed_reads` saw one of each.
    """

    events: int
    live_events_per_second: float
    rebuild_steady: float
    rebuild_whole: float
    live_lag_before: int
    live_lag_greatest: int
    live_lag_greatest_seconds: float
    rows_compared_unexplained: int
    verify_seconds: float
    reads: int
    failed_reads: int
    mixed_reads: int
    switch_ms: float
    longest_pause_ms: float


@dataclass
class Reads:
    """What readers saw of two views: (begun, ended, errors in one, errors in the other)."""

    answers: list[tuple[float, float, int, int]] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    def mixed(self) -> int:
        """Return how many queries saw one view before the switch and the other after it."""
        return sum(one != other for _, _, one, other in self.answers)

    def switch_ms(self) -> float:
        """Return how long old answers were still given after the first new one."""
        old = self.answers[0][2]
        first = min((begun for begun, _, seen, _ in self.answers if seen != old), default=None)
        if first is None:
            raise CommandError("no reader saw the new version; the promotion did not switch.")
        last = max(begun for begun, _, seen, _ in self.answers if seen == old)
        return max(0.0, last - first) * 1000

    def longest_pause_ms(self) -> float:
        """Return the longest time in which no query ended."""
        ends = sorted(ended for _, ended, _, _ in self.answers)
        return max(after - before for before, after in pairwise(ends)) * 1000


@dataclass
class Rebuild:
    """Follows the progress of a build."""

    points: list[tuple[float, int]] = field(default_factory=list)
    greatest_lag: int = 0

    def steady(self, events: int) -> float:
        """Return the rate over the middle of the rebuild."""
        low, high = STEADY_FROM * events, STEADY_TO * events
        # Offsets come with checkpoints: only points at which they moved tell a rate.
        moved = [b for a, b in pairwise(self.points) if b[1] > a[1]]
        inside = [point for point in moved if low <= point[1] <= high] or moved
        (then, first), (now, last) = inside[0], inside[-1]
        return (last - first) / (now - then) if now > then else 0.0


def measure(settings: Settings, events: int, live_rate: float) -> Measured:
    """Fill a topic of its own, run the live job over it, rebuild beside it, switch, clean up."""
    workload = Workload(events=events)
    with borrowed_namespace(settings) as there:
        stream = wrong_errors.JOB.within(there.namespace).stream
        _fill(there, stream, workload)
        with _loader(there), _live_job(there) as live:
            _await_read(there, live, events)
            await_loaded(there, live, lambda progress: None)
            with _live_events(there, stream, _after(workload, live_rate)):
                return _rebuild_and_switch(there, live, workload, live_rate)


def _after(workload: Workload, rate: float) -> Workload:
    """Return a workload that goes on where `workload` ends, at `rate` for hours."""
    end = workload.start_ms + round(workload.events * 1000 / workload.per_second)
    return Workload(events=round(rate * 4 * 3600), per_second=rate, seed=2, start_ms=end)


def _rebuild_and_switch(
    settings: Settings, live: JobPlan, workload: Workload, live_rate: float
) -> Measured:
    with Control(settings.postgres, settings.namespace, here()) as control:
        work = Work(settings, control)
        time.sleep(2 * settings.checkpoint_seconds)
        before = _lag(settings, live)
        replay, rebuild, seconds = _rebuild(work)
        began = time.monotonic()
        reports = check(work, replay)
        verified = time.monotonic() - began
        reads = _switch(work, replay, workload)
    return Measured(
        events=replay.plan.events,
        live_events_per_second=live_rate,
        rebuild_steady=round(rebuild.steady(replay.plan.events)),
        rebuild_whole=round(replay.plan.events / seconds),
        live_lag_before=before,
        live_lag_greatest=rebuild.greatest_lag,
        live_lag_greatest_seconds=round(rebuild.greatest_lag / live_rate, 1),
        rows_compared_unexplained=sum(report.unexplained for report in reports),
        verify_seconds=round(verified, 1),
        reads=len(reads.answers),
        failed_reads=sum(reads.failures.values()),
        mixed_reads=reads.mixed(),
        switch_ms=round(reads.switch_ms(), 1),
        longest_pause_ms=round(reads.longest_pause_ms(), 1),
    )


def _rebuild(work: Work) -> tuple[ReplayRecord, Rebuild, float]:
    """Build the next version of the views; return it, what was seen, and seconds of reading."""
    views = tuple(view.name for view in wrong_errors.JOB.views)
    facts = gather(work.settings, work.control, _JOB, views)
    planned = plan_replay(facts, Expectation(columns=("errors",)), from_earliest=False)
    replay, seen, began = work.control.begin(planned), Rebuild(), time.monotonic()
    with progress_bar(unit="events read") as progress:
        bar = progress.add_task("Rebuilding", total=planned.events)

        def follow(now: BuildProgress) -> None:
            if now.phase == "read":
                seen.points.append((time.monotonic(), now.done))
                seen.greatest_lag = max(seen.greatest_lag, now.live_lag or 0)
                progress.update(bar, completed=now.done)

        built = build(work, replay, follow)
    return built, seen, seen.points[-1][0] - began


def _switch(work: Work, replay: ReplayRecord, workload: Workload) -> Reads:
    """Promote while readers ask two views at once for windows that change no more."""
    end = _after(workload, 1).start_ms // _MINUTE_MS * _MINUTE_MS
    before = datetime.fromtimestamp(end / 1000, UTC)
    per_page, site = (
        f"(SELECT sum(errors) FROM {view} WHERE window_end <= '{before:%Y-%m-%d %H:%M:%S}')"
        for view in ("page_views_per_minute", "site_traffic_per_minute")
    )
    with _readers(work.settings, f"SELECT {per_page}, {site}") as reads:
        promote(work, replay)
        seen = len(reads.answers)
        _until(lambda: len(reads.answers) >= seen + 100, 60, "readers go on after the switch")
    return reads


@contextmanager
def _readers(settings: Settings, sql: str) -> Iterator[Reads]:
    """Ask `sql` from several threads as fast as answers come, while the block runs."""
    reads, stop = Reads(), threading.Event()

    def read() -> None:
        clickhouse = ClickHouse(settings, reader=True, timeout=30)
        while not stop.is_set():
            begun = time.monotonic()
            try:
                one, other = clickhouse.query(sql).rows[0]
            except ClickHouseFailed as error:
                reads.failures[str(error)] += 1
                continue
            reads.answers.append((begun, time.monotonic(), one, other))
        clickhouse.close()

    threads = [threading.Thread(target=read, daemon=True) for _ in range(_READERS)]
    for thread in threads:
        thread.start()
    try:
        yield reads
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _fill(settings: Settings, stream: Stream, workload: Workload) -> None:
    with Registry(**settings.registry_access) as registry, progress_bar(unit="events") as progress:
        publish_schema(registry, stream)
        ensure_events_topic(settings.kafka_client, stream)
        bar = progress.add_task("Filling the topic", total=workload.events)
        fill(
            settings.kafka_client,
            registry,
            stream,
            workload,
            lambda sent: progress.update(bar, completed=sent),
        )


@contextmanager
def _loader(settings: Settings) -> Iterator[None]:
    """Run a loader of the namespace as a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sinks.loader"],
        env=os.environ | settings.environment(),
        cwd=PROJECT_ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def _live_job(settings: Settings) -> Iterator[JobPlan]:
    """Run the job with the wrong rule at version 1; at the end no job of the namespace is left."""
    script = PROJECT_ROOT / "bench" / "wrong_errors.py"
    submit(settings, _JOB, restore="none", script=script)
    try:
        yield plan(wrong_errors.JOB.within(settings.namespace), 1)
    finally:
        _cancel_all(settings)


def _cancel_all(settings: Settings) -> None:
    cluster = Cluster(*settings.flink_clusters)
    for version in (1, 2):
        name = flink_name(settings, _JOB, version)
        if cluster.live_job(name):
            cancel(settings, name)


@contextmanager
def _live_events(settings: Settings, stream: Stream, workload: Workload) -> Iterator[None]:
    """Write `workload` at its pace while the block runs."""
    stop = threading.Event()

    def report(sent: int) -> None:
        if stop.is_set():
            raise _Enough

    def write() -> None:
        with Registry(**settings.registry_access) as registry:
            try:
                fill_live(settings.kafka_client, registry, stream, workload, report)
            except _Enough:
                return

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    try:
        yield
    finally:
        stop.set()
        writer.join()


class _Enough(Exception):
    """Nobody needs more events."""


def _await_read(settings: Settings, live: JobPlan, events: int) -> None:
    with progress_bar(unit="events read") as progress:
        bar = progress.add_task("Running the live job", total=events)

        def read() -> bool:
            left = _lag(settings, live)
            progress.update(bar, completed=events - left)
            return left == 0

        _until(read, _DEADLINE_SECONDS, "the live job reads the topic")


def _lag(settings: Settings, job_plan: JobPlan) -> int:
    topic = job_plan.job.stream.topic
    read = read_offsets(settings, f"kappa-{job_plan.name}", topic)
    ends = end_offsets(settings.kafka_client, topic)
    return sum(max(0, end - read.get(part, 0)) for part, end in ends.items())


def _until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise CommandError(f"not within {seconds:.0f} s: {what}; see kappa status.")
        time.sleep(0.5)


def main(
    events: Annotated[
        int, typer.Option(min=600_000, help="Events before the rebuild.")
    ] = 2_000_000,
    live_rate: Annotated[
        float, typer.Option(min=1, help="Events a second that go on meanwhile.")
    ] = 1_000,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Measure a rebuild of the three page-view views on the running embedded stack (`kappa up`).

    Example: python -m bench.rebuild --events 2000000
    """
    # Ended from outside it must not leave jobs and a loader behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    found = measure(Settings(), events, live_rate)
    if as_json:
        print_json(asdict(found))
        return
    rows = [(name.replace("_", " "), value) for name, value in asdict(found).items()]
    print_table("Rebuild of three views beside the live ones", ("", "measured"), rows)


if __name__ == "__main__":
    run_alone(main)
