"""How each job is, and where every event went: aggregated, late, dead, missed or in flight."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from deploy.console import OUT, print_table
from deploy.settings import Settings
from jobs.catalogue import JOBS
from jobs.cluster import Cluster, ClusterError, ClusterUnavailable
from jobs.desired import desired_jobs
from jobs.plan import Input, JobPlan, plan
from jobs.state import StateUnavailable, loss_of
from jobs.versions import lowest_version
from schemas.reading import event_ends
from schemas.streams import Stream
from schemas.topics import KafkaUnavailable, UnknownTopic, topic_names
from sinks.clickhouse import ClickHouse, ClickHouseFailed
from sinks.lag import LagReader
from sinks.loader import group_of
from sinks.queries import IS_MISSED
from udfs.kafka_time import NewestBefore
from udfs.lateness import milliseconds


@dataclass(frozen=True)
class PartitionStatus:
    """One partition of the events topic; offsets are those of the next event.

    `watermark` is the newest event time read less the stream's disorder; None before the first.
    """

    partition: int
    end: int
    read: int
    lag: int
    watermark: datetime | None
    holds_watermark: bool


@dataclass(frozen=True)
class JobStatus:
    """One job. Counts are of events; None where the part that knows does not answer.

    `events` = `aggregated` + `late` + `dead` + `missed` + `in_flight`; those in flight are not read
    yet, or what became of them is still on its way into ClickHouse. Those missed came from a
    partition that had been silent, when windows of theirs were written and forgotten. `read` is
    what the last checkpoint covers. Events are told by their offsets: where transactions left
    markers between them, these count as in flight for ever, and a problem says so.
    """

    name: str
    stream: str
    state: str
    job_id: str | None
    failure: str
    checkpoint_age_seconds: float | None
    checkpoints_failed: int | None
    events: int | None
    read: int | None
    aggregated: int | None
    late: int | None
    dead: int | None
    missed: int | None
    in_flight: int | None
    job_lag: int | None
    loader_lag: int | None
    watermark: datetime | None
    partitions: tuple[PartitionStatus, ...]
    problems: tuple[str, ...]


def report(settings: Settings) -> list[dict[str, Any]]:
    """Return the status of every job that should run or whose stream has events, as JSON."""
    return [asdict(status) for status in statuses(settings)]


def statuses(settings: Settings) -> list[JobStatus]:
    """Return the status of each job that should run or has a topic, one for each of its streams.

    They come in the catalogue's order. While Kafka is down, those are told of that should run.
    """
    wanted = [d for d in desired_jobs(settings) if d.namespace == settings.namespace]
    try:
        topics = topic_names(settings.kafka_client)
    except KafkaUnavailable:
        # The status itself says so.
        topics = frozenset()
    found = []
    for declared in JOBS.values():
        job = declared.within(settings.namespace)
        versions = {d.version for d in wanted if d.job == declared.name}
        # A topic that is read once more tells of the job that it is there for.
        if any(stream.topic in topics for stream in job.streams if not stream.reads):
            versions.add(lowest_version(job, topics))
        plans = (plan(job, version) for version in sorted(versions))
        found += [_status(settings, one, source) for one in plans for source in one.inputs]
    return found


def _status(settings: Settings, job_plan: JobPlan, source: Input) -> JobStatus:
    problems: list[str] = []
    flink = _flink(settings, job_plan.name, problems)
    # Ends are read after the counts, so that what is placed is never more than what there is.
    counts = _counts(settings, job_plan.version, source, problems)
    partitions = _partitions(settings, job_plan, source.stream, problems)
    loader_lag = _loader_lag(settings, job_plan, source.stream, problems)
    events = sum(p.end for p in partitions) if partitions else None
    known = [count for count in counts.values() if count is not None]
    placed = sum(known) if len(known) == len(counts) else None
    in_flight = None if events is None or placed is None else events - placed
    job_lag = sum(p.lag for p in partitions) if partitions else None
    if in_flight and job_lag == loader_lag == 0:
        problems.append(
            f"all is read and loaded, and {in_flight:,} offsets gave no event: each transaction of "
            "a producer leaves such, as its marker."
        )
    if counts["missed"]:
        problems.append(
            f"{counts['missed']:,} events came from a partition that had been silent, and views "
            "whose windows were written and forgotten by then do not have them; a rebuild does."
        )
    return JobStatus(
        name=job_plan.name,
        stream=source.stream.topic,
        events=events,
        read=sum(p.read for p in partitions) if partitions else None,
        in_flight=in_flight,
        job_lag=job_lag,
        loader_lag=loader_lag,
        watermark=min((p.watermark for p in partitions if p.watermark), default=None),
        partitions=partitions,
        problems=tuple(problems),
        **flink,
        **counts,  # type: ignore[arg-type]
    )


def _flink(settings: Settings, name: str, problems: list[str]) -> dict[str, Any]:
    unknown: dict[str, Any] = {
        "state": "not running",
        "job_id": None,
        "failure": "",
        "checkpoint_age_seconds": None,
        "checkpoints_failed": None,
    }
    cluster = Cluster(*settings.flink_clusters, timeout=5)
    try:
        jobs, silent = cluster.look()
        if not silent and (loss := loss_of(cluster, name)):
            problems.append(f"{loss.told_of(name)}; its views lack them until they are rebuilt.")
        job = next((j for j in jobs if j.name == name), None)
        if job is None:
            problems += [str(error) for error in silent]
            return {**unknown, "state": "unknown"} if silent else unknown
        checkpoints = cluster.checkpoints(job.id)
        failure = cluster.failure(job.id)
    except (ClusterUnavailable, ClusterError, StateUnavailable) as error:
        problems.append(str(error))
        return {**unknown, "state": "unknown"}
    if checkpoints.failure:
        problems.append(
            f"its newest checkpoint failed: {checkpoints.failure.rstrip('.')}; its rows wait for "
            "one that completes, and `kappa logs jobmanager` tells why."
        )
    completed = checkpoints.completed_ms
    age = None if completed is None else time.time() - completed / 1000
    return {
        "state": job.state,
        "job_id": job.id,
        "failure": failure if job.state != "RUNNING" else "",
        "checkpoint_age_seconds": None if age is None else round(age, 1),
        "checkpoints_failed": checkpoints.failed,
    }


def _partitions(
    settings: Settings, job_plan: JobPlan, stream: Stream, problems: list[str]
) -> tuple[PartitionStatus, ...]:
    try:
        ends = event_ends(settings.kafka_client, stream.topic)
        read = read_offsets(settings, job_plan.group, stream.topic)
        marks = watermarks(settings, stream, read)
    except UnknownTopic:
        return ()
    except KafkaUnavailable as error:
        problems.append(str(error))
        return ()
    behind = [p for p in marks if read.get(p, 0) or ends[p]]
    holder = min(behind, key=lambda p: marks[p], default=None)
    return tuple(
        PartitionStatus(
            partition,
            end,
            read.get(partition, 0),
            max(0, end - read.get(partition, 0)),
            _instant(marks.get(partition)),
            partition == holder,
        )
        for partition, end in sorted(ends.items())
    )


def read_offsets(settings: Settings, group: str, topic: str) -> dict[int, int]:
    """Return the offset up to which the job of `group` has checkpointed, by partition."""
    committed = LagReader(settings.kafka_client).committed(group)
    return {part: offset for (of, part), offset in committed.items() if of == topic}


def job_offsets(reader: LagReader, job_plan: JobPlan) -> dict[str, dict[int, int]]:
    """Return by stream and partition the offset up to which the job has checkpointed.

    A stream that is read for views of its arrivals too counts as read where both readers have.
    """
    committed = {group: reader.committed(group) for group in job_plan.groups}
    return {
        source.stream.name: {
            part: min(committed[g].get((topic, part), 0) for g in job_plan.groups_of(source))
            for topic, part in committed[job_plan.group]
            if topic == source.topic
        }
        for source in job_plan.inputs
    }


def watermarks(settings: Settings, stream: Stream, read: Mapping[int, int]) -> dict[int, int]:
    """Return the watermark, epoch ms, of each partition that has events before offset `read`."""
    disorder, _, _ = milliseconds(stream)
    newest = NewestBefore(settings.kafka_client, stream.topic)
    found = {partition: newest(partition, offset) for partition, offset in read.items()}
    return {p: moment - disorder for p, moment in found.items() if moment is not None}


def _counts(
    settings: Settings, version: int, source: Input, problems: list[str]
) -> dict[str, int | None]:
    clickhouse = ClickHouse(settings, reader=True, timeout=10)
    accounting = source.accounting.table(version)
    where = {"stream": source.stream.name, "version": version}
    given = f"SELECT sum(events) FROM {accounting} FINAL WHERE"
    apart = "SELECT count() FROM {} WHERE stream = %(stream)s AND version = %(version)s"
    queries = {
        "aggregated": (accounting, f"{given} NOT {IS_MISSED}"),
        "missed": (accounting, f"{given} {IS_MISSED}"),
        "late": ("late_events", apart.format("late_events")),
        "dead": ("dead_letters", apart.format("dead_letters")),
    }
    counts: dict[str, int | None] = {}
    try:
        tables = clickhouse.table_ids()
        for name, (table, query) in queries.items():
            exists = table in tables
            counts[name] = int(clickhouse.query(query, where).rows[0][0]) if exists else 0
    except ClickHouseFailed as error:
        problems.append(str(error))
        return dict.fromkeys(queries)
    finally:
        clickhouse.close()
    return counts


def _loader_lag(
    settings: Settings, job_plan: JobPlan, stream: Stream, problems: list[str]
) -> int | None:
    topics = {
        *job_plan.topics.values(),
        stream.dead_letter_topic(job_plan.version),
        stream.late_topic(job_plan.version),
    }
    try:
        lags = LagReader(settings.kafka_client).loader(group_of(settings), settings.topic_prefix)
    except KafkaUnavailable as error:
        problems.append(str(error))
        return None
    return sum(p.lag for p in lags if p.topic in topics)


def _instant(milliseconds_: int | None) -> datetime | None:
    return None if milliseconds_ is None else datetime.fromtimestamp(milliseconds_ / 1000, UTC)


_SHOWN = {
    "state": "state",
    "checkpoint_age_seconds": "last checkpoint, s ago",
    "events": "events in the topic",
    "aggregated": "  aggregated",
    "late": "  late",
    "dead": "  dead",
    "missed": "  missed, their windows being over",
    "in_flight": "  in flight",
    "read": "covered by the last checkpoint",
    "job_lag": "lag of the job, events",
    "loader_lag": "lag of the loader, records",
    "watermark": "watermark",
}


def print_status(jobs: list[dict[str, Any]]) -> None:
    """Print what `report` returned as tables, and each problem as a line."""
    for job in jobs:
        rows = [(label, job[name]) for name, label in _SHOWN.items()]
        print_table(f"Job {job['name']}, stream {job['stream']}", ("", "now"), rows)
        places = [
            (
                str(p["partition"]),
                p["end"],
                p["read"],
                p["lag"],
                p["watermark"],
                "holds it back" if p["holds_watermark"] else "",
            )
            for p in job["partitions"]
        ]
        if places:
            columns = ("partition", "end", "read", "lag", "watermark", "")
            print_table(f"Partitions of {job['stream']}", columns, places)
        for text in (*job["problems"], *filter(None, [job["failure"]])):
            OUT.print(f"{job['name']}: {text}", style="yellow", markup=False, highlight=False)
