"""Gather what a plan is decided on: from Kafka, the registry, Flink, ClickHouse and the journal."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping

from deploy.settings import Settings
from jobs.catalogue import VIEWS, job_named, job_of, view_named
from jobs.cluster import Cluster
from jobs.plan import JobPlan, accounting_view, plan
from jobs.views import Job, View
from replay.archive_files import Archive
from replay.control import Control
from replay.doubled import doubled
from replay.names import MissingTable, table_columns
from replay.offsets import Offsets
from replay.plan import Facts
from replay.records import JournalEntry
from replay.restored import covered
from schemas.evolution import obstacles
from schemas.reading import event_ends
from schemas.registry import Registry, RegistryError
from schemas.streams import Stream
from schemas.topics import begin_offsets, topic_names
from sinks.clickhouse import ClickHouse
from sinks.cluster import LOCAL
from sinks.queries import public_versions
from sinks.tables import TableColumn, table_spec
from sinks.topics import UnknownTopicName, ViewTopic, parse_topic

BUILT_STEP = "built"
_TELLING_EVENTS = 100_000


class DifferentJobs(ValueError):
    """Views that no one job writes."""


def chosen_job(
    settings: Settings, wished: Collection[str], of_job: str = ""
) -> tuple[str, tuple[str, ...]]:
    """Return the job that writes the views `wished`, and those of its views to rebuild.

    Without any they are the live ones, of all jobs or of `of_job`. Raises `UnknownView`,
    `UnknownJob` or `DifferentJobs`.
    """
    asked = job_named(of_job) if of_job else None
    views = wished or live_views(settings)
    if asked:
        own = {view.name for view in asked.views}
        if strangers := set(wished) - own:
            raise DifferentJobs(f"job {of_job} does not write {', '.join(sorted(strangers))}.")
        views = [name for name in views if name in own]
    if not views:
        raise DifferentJobs("nothing is live to be rebuilt; `kappa submit` builds a first version.")
    jobs = {job_of(view_named(name)).name for name in views}
    if len(jobs) != 1:
        raise DifferentJobs(
            f"these views come from the jobs {', '.join(sorted(jobs))}; name those of one job, or "
            "the job with --job."
        )
    job = job_named(jobs.pop())
    return job.name, tuple(view.name for view in job.views if view.name in views)


def live_views(settings: Settings) -> tuple[str, ...]:
    """Return the declared views that people can read now."""
    clickhouse = ClickHouse(settings)
    try:
        return tuple(view for view in public_versions(clickhouse) if view in VIEWS)
    finally:
        clickhouse.close()


def gather(
    settings: Settings,
    control: Control,
    job_name: str,
    views: tuple[str, ...],
    *,
    from_archive: bool = False,
) -> Facts:
    """Return the facts for a replay of `views` of a job, with its streams' accounting."""
    job = job_named(job_name).within(settings.namespace)
    first = plan(job, 1, views)
    names = tuple(view.name for view in first.views)
    clickhouse = ClickHouse(settings)
    try:
        shown = {v: n for v, n in public_versions(clickhouse).items() if v in names}
        table_bytes, disk_free = _bytes(clickhouse, first, shown)
        columns = {
            view.name: _columns(clickhouse, view, shown.get(view.name))
            for view in job.views
            if view.name in names
        }
        with Registry(**settings.registry_access, retry_for=5.0) as registry:
            twice = doubled(control, settings.kafka_client, registry, clickhouse, job.streams)
    finally:
        clickhouse.close()
    schemas = [_schemas(settings, stream) for stream in job.streams]
    measured = control.last_done(BUILT_STEP, job_name)
    kafka = settings.kafka_client
    topics = topic_names(kafka)
    begin = {stream.name: begin_offsets(kafka, stream.topic) for stream in job.streams}
    archive = settings.archive if from_archive else ""
    return Facts(
        job=job_name,
        topics={stream.name: stream.topic for stream in job.streams},
        views=names,
        shown=shown,
        versions_used=control.versions_used(names) | _versions_in(topics, settings, job),
        columns=columns,
        begin=begin,
        end={stream.name: event_ends(kafka, stream.topic) for stream in job.streams},
        schema_ids=tuple(number for ids, _ in schemas for number in ids),
        unreadable=tuple(why for _, reasons in schemas for why in reasons),
        slots_needed=settings.parallelism,
        slots_free=Cluster(*settings.flink_clusters).slots_free(),
        table_bytes=table_bytes,
        bytes_free=_bytes_free(settings, disk_free),
        measured_rate=_rate(measured),
        archive=archive,
        archived=_archived(archive, job, begin),
        queries=tuple(view.name for view in first.queries),
        new_streams=_new_streams(job, shown, topics),
        doubled=twice,
    )


def _new_streams(job: Job, shown: Mapping[str, int], topics: Collection[str]) -> tuple[str, ...]:
    """Return the streams that no version shown reads; each version accounts for all its own."""
    versions = set(shown.values())
    return tuple(
        stream.name
        for stream in job.streams
        if versions and not any(accounting_view(stream).topic(n) in topics for n in versions)
    )


def _archived(archive: str, job: Job, begin: Offsets) -> dict[int, int]:
    if not archive or len(job.streams) > 1:
        return {}
    return covered(Archive(archive, job.stream.topic), begin[job.stream.name])


def _rate(built: JournalEntry | None) -> float | None:
    """Return the rate of the last rebuild, unless most of that was the job's start."""
    if built is None or built.detail.get("events", 0) < _TELLING_EVENTS:
        return None
    return float(built.detail["rate"])


def _versions_in(topics: Collection[str], settings: Settings, job: Job) -> frozenset[int]:
    names = {view.name for view in plan(job, 1).views}
    streams = {stream.name for stream in job.streams}
    found = []
    for topic in topics:
        try:
            found.append(parse_topic(topic, settings.topic_prefix))
        except UnknownTopicName:
            continue
    return frozenset(
        one.version
        for one in found
        if (one.view in names if isinstance(one, ViewTopic) else one.stream in streams)
    )


def _schemas(settings: Settings, stream: Stream) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the ids of the stream's schemas, and why any of them can't be read."""
    ids, unreadable = [], []
    with Registry(**settings.registry_access, retry_for=5.0) as registry:
        for number in registry.versions(stream.subject):
            try:
                found = registry.version(stream.subject, number)
            except (RegistryError, ValueError) as error:
                unreadable.append(f"{stream.subject} version {number} can't be read: {error}")
                continue
            if found is None:
                continue
            ids.append(found.id)
            unreadable += [
                f"{stream.subject} version {number} can't be read with the present schema: {why}"
                for why in obstacles(writer=found.schema, reader=stream.schema)
            ]
    return tuple(ids), tuple(unreadable)


def _columns(
    clickhouse: ClickHouse, view: View, version: int | None
) -> tuple[tuple[TableColumn, ...], tuple[TableColumn, ...]]:
    """Return the columns of the view's table at `version`, none without one, and of the next."""
    after = table_spec(view.name, view.avro_schema).columns
    try:
        return () if version is None else table_columns(clickhouse, view.name, version), after
    except MissingTable:
        # A table that was dropped is a reason to build one, and none against it.
        return (), after


def _bytes(clickhouse: ClickHouse, job_plan: JobPlan, shown: dict[str, int]) -> tuple[int, int]:
    tables = [view.table(shown[view.name]) for view in job_plan.views if view.name in shown]
    # On a cluster the local parts have the rows: those of the server whose disks are looked at.
    tables += [f"{table}{LOCAL}" for table in tables]
    size = clickhouse.query(
        "SELECT sum(bytes_on_disk) FROM system.parts"
        " WHERE active AND database = %(database)s AND table IN %(tables)s",
        {"database": clickhouse.database, "tables": tables or [""]},
    )
    free = clickhouse.query("SELECT min(unreserved_space) FROM system.disks")
    return int(size.rows[0][0] or 0), int(free.rows[0][0])


def _bytes_free(settings: Settings, disk_free: int) -> int:
    """Return what is free on ClickHouse's disk, or on the home's if topics and state are there."""
    if not settings.embedded:
        return disk_free
    home = settings.home if settings.home.exists() else settings.home.parent
    return min(disk_free, shutil.disk_usage(home).free)
