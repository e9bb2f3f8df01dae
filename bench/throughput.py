"""How many events a second a job takes from Kafka to its view topic, and are its rows right.

python -m bench.throughput page_views_per_minute --events 4000000
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import httpx
import psutil
import pyarrow as pa
import typer
from prometheus_client.parser import text_string_to_metric_families

from bench import five_minutes, ten_seconds
from bench.answers import expected_rows, newest_rows
from bench.steady import rates
from bench.usage import Usage
from bench.workload import Workload, batches, fill_batches
from deploy.console import CommandError, print_json, print_table, progress_bar, run_alone
from deploy.flink import TASKMANAGER_METRICS_PORT
from deploy.settings import PROJECT_ROOT, Settings
from deploy.stack import Stack
from jobs.cluster import Cluster
from jobs.page_views import JOB as PAGE_VIEWS_JOB
from jobs.submit import cancel, submit
from jobs.views import Job, WindowView
from schemas.registry import Registry, publish_schema
from schemas.streams import Stream
from schemas.topics import delete_topics, ensure_events_topic, topic_names
from sinks.clickhouse import ClickHouse

CHECKPOINT_SECONDS, BATCH_EVENTS, BUNDLE_MS = 5.0, 100_000, 200
OPTIONS = {
    "checkpoint_seconds": CHECKPOINT_SECONDS,
    "batch_events": BATCH_EVENTS,
    "bundle_ms": BUNDLE_MS,
}
"""Of the jobs that are measured."""
_DEADLINE_SECONDS = 600.0
_POSITION = "flink_taskmanager_job_task_operator_KafkaSourceReader_topic_partition_currentOffset"


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
    result_seconds: float
    """From the launch to the last row, and the check of them all."""
    cpu_seconds_per_million: float
    state_megabytes: float
    """Of the newest checkpoint when the last row was there."""
    rows: int
    right: bool


@dataclass
class Meter:
    """Samples how far the sources of a job have read its topics, and what that took."""

    settings: Settings
    topics: Sequence[str]
    usage: Usage
    job_id: str = ""
    read: list[tuple[float, float]] = field(default_factory=list)
    cpu: list[tuple[float, float]] = field(default_factory=list)

    def sample(self) -> float:
        """Take a sample and return how many events the sources have read."""
        read = source_position(self.settings, self.topics, self.job_id)
        if read:
            self.read.append((time.monotonic(), read))
        self.cpu.append((time.monotonic(), self.usage.cpu_seconds()))
        return read


def source_position(settings: Settings, topics: Sequence[str], job_id: str = "") -> float:
    """Return how many events of `topics` the embedded TaskManager's sources have all read.

    With a `job_id` only those of that job: the sources of one just cancelled may show for a while.
    It is 0 where the TaskManager was too busy to say.
    """
    url = f"http://127.0.0.1:{settings.port(TASKMANAGER_METRICS_PORT)}/metrics"
    try:
        # All metrics of a job of many operators, twice a second, took a fifth of the JVM's time.
        metrics = httpx.get(url, params={"name[]": _POSITION}, timeout=5).text
    except httpx.TimeoutException:
        return 0.0
    return position(metrics, topics, job_id)


def position(metrics: str, topics: Sequence[str], job_id: str = "") -> float:
    """Return what `source_position` does, from the metrics as Prometheus is given them.

    A topic that several sources of a job read is read as far as the last of them is.
    """
    # Prometheus labels have no dots: Flink's reporter writes underscores.
    read: dict[str, dict[str, float]] = {topic.replace(".", "_"): {} for topic in topics}
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            labels, next_offset = sample.labels, sample.value + 1
            sources = read.get(labels.get("topic", ""))
            if sample.name == _POSITION and sources is not None and job_id in labels["job_id"]:
                source = labels["operator_id"]
                sources[source] = sources.get(source, 0.0) + max(0.0, next_offset)
    return sum(min(sources.values(), default=0.0) for sources in read.values())


@dataclass(frozen=True)
class Launch:
    """A job as it is run: over streams that are filled already, writing rows of `version`."""

    job: Job
    script: Path
    views: tuple[str, ...] = ()
    """All of the job's where empty."""
    options: Mapping[str, str | float] = field(default_factory=dict)
    version: int = 1


@contextmanager
def borrowed_namespace(settings: Settings) -> Iterator[Settings]:
    """Give the settings of a namespace that nobody uses yet; nothing of it is left afterwards."""
    there = settings.model_copy(update={"namespace": f"b{uuid.uuid4().hex[:6]}"})
    try:
        yield there
    finally:
        prefix = f"{there.namespace}."
        names = topic_names(there.kafka_client)
        delete_topics(there.kafka_client, [name for name in names if name.startswith(prefix)])
        ClickHouse(there).drop_database()


def measure(settings: Settings, case: Case, workload: Workload, **options: float) -> Measured:
    """Fill a topic of its own, run the job over it, check its rows, clean up."""
    with borrowed_namespace(settings) as there:
        fill_topic(there, case.job.within(there.namespace), workload)
        launch = Launch(case.job, case.script, (case.view.name,), options)
        view = case.view_in(there.namespace)
        return run_over(there, launch, workload.events, lambda: _check(there, view, workload))


def run_over(
    settings: Settings, launch: Launch, events: int, check: Callable[[], tuple[int, bool]]
) -> Measured:
    """Run a job over the `events` in its topics until it has read them and `check` returns.

    `check` waits for the rows and returns how many there are and whether they are right.
    """
    process = next(p for p in Stack(settings).status() if p.name == "taskmanager")
    topics = [stream.topic for stream in launch.job.within(settings.namespace).streams]
    meter = Meter(settings, topics, Usage(psutil.Process(process.pid)))
    began = time.monotonic()
    submitted = submit(
        settings,
        job_name=launch.job.name,
        version=launch.version,
        views=launch.views,
        restore="none",
        options=launch.options,
        script=launch.script,
    )
    meter.job_id = submitted.job_id
    try:
        _follow(meter, events)
        rows, right = check()
        ended = time.monotonic()
        state = _state_megabytes(settings, submitted.job_id)
    finally:
        cancel(settings, submitted.name)
    steady: dict[str, Any] = rates(meter.read, meter.cpu, began)
    if not steady:
        raise CommandError("The run was too short to tell a rate; ask for more events.")
    return Measured(
        view=" ".join(launch.views) or launch.job.name,
        events=events,
        steady=steady["steady"],
        whole=round(events / (meter.read[-1][0] - began)),
        start_up_seconds=steady["start_up_seconds"],
        result_seconds=round(ended - began, 1),
        cpu_seconds_per_million=steady["cpu_seconds_per_million"],
        state_megabytes=state,
        rows=rows,
        right=right,
    )


def _state_megabytes(settings: Settings, job_id: str) -> float:
    """Return the size of the job's newest checkpoint."""
    newest = Cluster(*settings.flink_clusters).get(f"/jobs/{job_id}/checkpoints")["latest"]
    size: int = ((newest or {}).get("completed") or {}).get("state_size", 0)
    return round(size / 1e6, 1)


def fill_topic(settings: Settings, job: Job, workload: Workload) -> None:
    """Create the topic of the job's stream and write `workload` to it."""
    fill_stream(settings, job.stream, batches(workload), workload.events)


def fill_stream(
    settings: Settings, stream: Stream, events: Iterable[pa.RecordBatch], count: int
) -> None:
    """Create the topic of `stream` and write about `count` events to it."""
    with Registry(**settings.registry_access) as registry, progress_bar(unit="events") as progress:
        publish_schema(registry, stream)
        ensure_events_topic(settings.kafka_client, stream)
        bar = progress.add_task(f"Filling {stream.topic}", total=count)
        fill_batches(
            settings.kafka_client,
            registry,
            stream,
            events,
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
    checkpoint_seconds: Annotated[float, typer.Option()] = CHECKPOINT_SECONDS,
    batch_events: Annotated[int, typer.Option()] = BATCH_EVENTS,
    bundle_ms: Annotated[int, typer.Option()] = BUNDLE_MS,
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
