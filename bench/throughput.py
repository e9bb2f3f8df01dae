"""How many events a second a job takes from Kafka to its view topic, and are its rows right.

python -m bench.throughput page_views_per_minute --events 4000000
"""

from __future__ import annotations

import threading
import time
import uuid
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import httpx
import psutil
import typer

from bench import five_minutes, ten_seconds
from bench.answers import expected_rows, newest_rows
from bench.steady import rates
from bench.usage import Usage
from bench.workload import Workload, fill
from deploy.console import CommandError, print_json, print_table, progress_bar, run_alone
from deploy.flink import TASKMANAGER_METRICS_PORT
from deploy.settings import PROJECT_ROOT, Settings
from deploy.stack import Stack
from jobs.page_views import JOB as PAGE_VIEWS_JOB
from jobs.submit import cancel, submit
from jobs.views import Job, WindowView
from schemas.registry import Registry, publish_schema
from schemas.topics import ensure_events_topic

_DEADLINE_SECONDS = 600.0


@dataclass(frozen=True)
class Case:
    """A view to measure, the job that writes it, and the module Flink runs."""

    job: Job
    view: WindowView
    script: Path

    def view_in(self, namespace: str) -> WindowView:
        """Return the view as it is called in `namespace`."""
        return replace(self.view, stream=self.job.within(namespace).stream)


CASES = {
    view.name: Case(job, view, PROJECT_ROOT / script)
    for job, script in (
        (PAGE_VIEWS_JOB, "jobs/page_views.py"),
        (ten_seconds.JOB, "bench/ten_seconds.py"),
        (five_minutes.JOB, "bench/five_minutes.py"),
    )
    for view in job.views
    if isinstance(view, WindowView)
}


@dataclass(frozen=True)
class Measured:
    """One run. Rates are in events per second; CPU is that of Flink with its Python workers."""

    view: str
    events: int
    steady: float
    whole: float
    start_up_seconds: float
    cpu_seconds_per_million: float
    peak_gigabytes: float
    rows: int
    right: bool


@dataclass
class Meter:
    """Samples how far the source of a job has read a topic, and what that took."""

    settings: Settings
    topic: str
    usage: Usage
    read: list[tuple[float, float]] = field(default_factory=list)
    cpu: list[tuple[float, float]] = field(default_factory=list)

    def sample(self) -> float:
        """Take a sample and return how many events the source has read."""
        read = source_position(self.settings, self.topic)
        if read:
            self.read.append((time.monotonic(), read))
        self.cpu.append((time.monotonic(), self.usage.cpu_seconds()))
        return read


def source_position(settings: Settings, topic: str) -> float:
    """Return how many events of `topic` the embedded TaskManager's sources have read."""
    url = f"http://127.0.0.1:{settings.port(TASKMANAGER_METRICS_PORT)}/metrics"
    text = httpx.get(url, timeout=5).text
    # Prometheus labels have no dots: Flink's reporter writes underscores.
    label = f'topic="{topic.replace(".", "_")}"'
    values = (
        float(line.rsplit(" ", 1)[1]) + 1
        for line in text.splitlines()
        if "KafkaSourceReader_topic_partition_currentOffset{" in line and label in line
    )
    return sum(value for value in values if value > 0)


def measure(settings: Settings, case: Case, workload: Workload, **options: float) -> Measured:
    """Fill a topic of its own, run the job over it, check its rows, clean up."""
    there = settings.model_copy(update={"namespace": f"b{uuid.uuid4().hex[:6]}"})
    job = case.job.within(there.namespace)
    fill_topic(there, job, workload)
    process = next(p for p in Stack(settings).status() if p.name == "taskmanager")
    usage = Usage(psutil.Process(process.pid))
    meter = Meter(settings, job.stream.topic, usage)
    stop, began = threading.Event(), time.monotonic()
    threading.Thread(target=usage.watch_memory, args=(stop,), daemon=True).start()
    submitted = submit(
        there,
        job_name=case.job.name,
        views=(case.view.name,),
        restore="none",
        options=dict(options),
        script=case.script,
    )
    try:
        _follow(meter, workload.events)
        rows, right = _check(there, case.view_in(there.namespace), workload)
    finally:
        stop.set()
        cancel(there, submitted.name)
    steady: dict[str, Any] = rates(meter.read, meter.cpu, began)
    if not steady:
        raise CommandError("The run was too short to tell a rate; ask for more events.")
    return Measured(
        view=case.view.name,
        events=workload.events,
        steady=steady["steady"],
        whole=round(workload.events / (meter.read[-1][0] - began)),
        start_up_seconds=steady["start_up_seconds"],
        cpu_seconds_per_million=steady["cpu_seconds_per_million"],
        peak_gigabytes=round(usage.peak_bytes / 1e9, 2),
        rows=rows,
        right=right,
    )


def fill_topic(settings: Settings, job: Job, workload: Workload) -> None:
    """Create the topic of the job's stream and write `workload` to it."""
    with Registry(**settings.registry_access) as registry, progress_bar(unit="events") as progress:
        publish_schema(registry, job.stream)
        ensure_events_topic(settings.kafka_client, job.stream)
        bar = progress.add_task("Filling the topic", total=workload.events)
        fill(
            settings.kafka_client,
            registry,
            job.stream,
            workload,
            lambda sent: progress.update(bar, completed=sent),
        )


def _follow(meter: Meter, events: int) -> None:
    """Sample until everything is read."""
    deadline = time.monotonic() + _DEADLINE_SECONDS
    with progress_bar(unit="events read") as progress:
        bar = progress.add_task("Running the job", total=events)
        while (read := meter.sample()) < events:
            progress.update(bar, completed=read)
            if time.monotonic() > deadline:
                raise CommandError(f"Only {read:,.0f} of {events:,} events were read in time.")
            # Asking for metrics costs the TaskManager a few milliseconds.
            time.sleep(0.5)
        progress.update(bar, completed=events)


def _check(settings: Settings, view: WindowView, workload: Workload) -> tuple[int, bool]:
    """Wait for the rows of all windows and compare them with a group-by in pandas."""
    expected = expected_rows(view, workload)
    deadline = time.monotonic() + 120
    while True:
        found = newest_rows(settings, view)
        if found == expected or time.monotonic() > deadline:
            return len(found), found == expected
        time.sleep(1)


def main(
    view: Annotated[str, typer.Argument(help=f"One of {', '.join(CASES)}.")],
    events: Annotated[int, typer.Option(min=1000)] = 4_000_000,
    per_second: Annotated[float, typer.Option(help="Events per second of event time.")] = 5_000,
    users: Annotated[int, typer.Option()] = 1_000_000,
    pages: Annotated[int, typer.Option()] = 1_000,
    checkpoint_seconds: Annotated[float, typer.Option()] = 5.0,
    batch_events: Annotated[int, typer.Option()] = 100_000,
    bundle_ms: Annotated[int, typer.Option()] = 200,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Measure one view on the running embedded stack (`kappa up` first).

    Example: python -m bench.throughput page_views_per_minute --events 4000000
    """
    workload = Workload(events=events, pages=pages, users=users, per_second=per_second)
    found = measure(
        Settings(),
        CASES[view],
        workload,
        checkpoint_seconds=checkpoint_seconds,
        batch_events=batch_events,
        bundle_ms=bundle_ms,
    )
    if as_json:
        print_json(asdict(found))
        return
    rows = [(name.replace("_", " "), value) for name, value in asdict(found).items()]
    print_table("Throughput, Kafka to view topic", ("", "measured"), rows)


if __name__ == "__main__":
    run_alone(main)
