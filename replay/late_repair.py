"""Fold late events into the windows that they missed: look, compute, write, record.

A repair that is killed leaves either nothing or whole rows; the same command ends it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from deploy.settings import Settings
from jobs.catalogue import job_of, view_named
from jobs.cluster import Cluster
from jobs.plan import JobPlan, pane_stores, plan, used_fields
from jobs.status import read_offsets, watermarks
from jobs.views import Job, WindowView
from replay.build import await_checkpoints, await_loaded
from replay.late import (
    Event,
    Key,
    Place,
    Recomputed,
    Sorted,
    Values,
    only,
    rows_by_key,
    sort_out,
    spans,
    strangers,
)
from replay.late_journal import RepairJournal
from replay.late_kafka import RowRecord, events_in, late_events, ranges_of, write_rows
from replay.late_rows import CurrentRow, current_rows, note_repaired
from replay.steps import Work
from schemas.registry import Registry, UnknownSchemaId
from schemas.topics import end_offsets, topic_names
from sinks.clickhouse import ClickHouse
from sinks.queries import public_versions
from udfs.decode import Decoder, needed_fields
from udfs.panes import PaneStore
from udfs.rows import RowEncoder, iso, window_columns

_NEVER = -(2**63)


class NotRepairable(Exception):
    """A view whose windows can't be computed anew; the message says why and what to do."""


@dataclass(frozen=True)
class Target:
    """The view to repair, at the version that people see, and the job that writes it."""

    view: WindowView
    version: int
    job_plan: JobPlan

    @property
    def store(self) -> PaneStore:
        """The panes of this view alone."""
        (store,) = pane_stores(self.view.stream, (self.view,))
        return store

    @property
    def topic(self) -> str:
        """The view's topic."""
        return self.view.topic(self.version)


@dataclass(frozen=True)
class RowChange:
    """A row as it stands, None for none, and as it is to be."""

    key: Key
    before: Values | None
    after: Values


@dataclass(frozen=True)
class RepairPlan:
    """What a repair does. `read` are the offsets up to which events were looked at.

    `settled` is the least watermark (epoch ms), None where a partition has none yet. `rows` is
    an Arrow table of those `changes` that are not in the topic yet.
    """

    target: Target
    read: Mapping[int, int]
    settled: int | None
    late: Sorted
    refused: Mapping[Place, str]
    changes: tuple[RowChange, ...]
    rows: pa.Table
    partitions: Mapping[Key, int]

    @property
    def events(self) -> tuple[Event, ...]:
        """The late events that the repair folds in."""
        return tuple(event for event in self.late.ready if event.place not in self.refused)


def target_of(settings: Settings, view_name: str) -> Target:
    """Return what `kappa replay late` repairs for a view, or raise `NotRepairable`."""
    declared = view_named(view_name)
    if not isinstance(declared, WindowView):
        raise NotRepairable(
            f"{view_name} is no windowed aggregate; only those can be repaired, this one is "
            "rebuilt with `kappa replay run`."
        )
    job = job_of(declared).within(settings.namespace)
    with closing(ClickHouse(settings)) as clickhouse:
        version = public_versions(clickhouse).get(view_name)
    if version is None:
        raise NotRepairable(
            f"{view_name} has no rows yet; `kappa submit {job_of(declared).name}` starts its job."
        )
    view = declared.over({stream.name: stream for stream in job.streams})
    job_plan = plan(job, version, _written(settings, job, version))
    if Cluster(*settings.flink_clusters).live_job(job_plan.name) is None:
        raise NotRepairable(
            f"no job {job_plan.name} runs, so nobody can tell which windows it would still "
            f"write; start it with `kappa submit {job_of(declared).name}`."
        )
    return Target(view, version, job_plan)


def _written(settings: Settings, job: Job, version: int) -> tuple[str, ...]:
    """Return the views that the job writes at `version`; a replay may have chosen some."""
    topics = topic_names(settings.kafka_client)
    return tuple(view.name for view in job.views if view.topic(version) in topics)


def plan_repair(work: Work, target: Target, now: datetime) -> RepairPlan:
    """Return what a repair of `target` would do; nothing is changed."""
    settings, stream = work.settings, target.view.stream
    # Offsets come with checkpoints: then they cover what stood in the late topic by now.
    await_checkpoints(settings, target.job_plan)
    read = read_offsets(settings, f"kappa-{target.job_plan.name}", stream.topic)
    settled = _settled(settings, target, read)
    # What the job owes for these offsets must stand in the tables before anything is compared.
    await_loaded(settings, target.job_plan, lambda progress: None)
    late = sort_out(
        target.store,
        late_events(settings.kafka_client, stream.late_topic(target.version), read),
        RepairJournal(work.control, target.view.name, target.version).repaired(),
        _NEVER if settled is None else settled,
        _kept_from(target.view, now),
    )
    recomputed = _recompute(settings, target, late, read)
    return _compared(settings, target, read, settled, recomputed)


def _settled(settings: Settings, target: Target, read: Mapping[int, int]) -> int | None:
    """Return the least watermark of all partitions with events; None where one has none yet."""
    stream = target.view.stream
    marks = watermarks(settings, stream, read)
    with_events = {p for p, end in end_offsets(settings.kafka_client, stream.topic).items() if end}
    return min(marks.values()) if marks and with_events <= marks.keys() else None


def _kept_from(view: WindowView, now: datetime) -> int | None:
    if view.retention is None:
        return None
    return round((now - view.retention).timestamp() * 1000)


def _recompute(
    settings: Settings, target: Target, late: Sorted, read: Mapping[int, int]
) -> Recomputed:
    stream, kafka = target.view.stream, settings.kafka_client
    with Registry(**settings.registry_access, retry_for=30.0) as registry:

        def schema_of(schema_id: int) -> dict[str, Any] | None:
            try:
                return registry.schema_by_id(schema_id)
            except UnknownSchemaId:
                return None

        fields = used_fields((target.view,))
        decoder = Decoder(stream, schema_of, needed_fields(stream, fields))
        recomputed = Recomputed(stream, target.store, decoder, late)
        chosen = spans(stream, target.store, recomputed.panes)
        for events in events_in(kafka, stream.topic, ranges_of(kafka, stream.topic, chosen, read)):
            recomputed.take(events)
    return recomputed


def _compared(
    settings: Settings,
    target: Target,
    read: Mapping[int, int],
    settled: int | None,
    recomputed: Recomputed,
) -> RepairPlan:
    """Hold the rows computed anew against those that stand; refuse where they don't fit."""
    store, after_rows = target.store, recomputed.after()
    after = rows_by_key(store, after_rows)
    before = rows_by_key(store, recomputed.before())
    stand = _standing(settings, target, after)
    current = {key: row.values for key, row in stand.items()}
    if odd := strangers(current, before, after):
        raise NotRepairable(_misfit(target, odd, current, before))
    changed = {key for key, values in after.items() if current.get(key) != values}
    return RepairPlan(
        target=target,
        read=read,
        settled=settled,
        late=recomputed.late,
        refused=recomputed.refused,
        changes=tuple(RowChange(key, current.get(key), after[key]) for key in sorted(changed)),
        rows=only(after_rows, store, changed),
        partitions={key: row.partition for key, row in stand.items()},
    )


def _standing(
    settings: Settings, target: Target, after: Mapping[Key, Values]
) -> dict[Key, CurrentRow]:
    with closing(ClickHouse(settings)) as clickhouse:
        return current_rows(clickhouse, target.view, target.version, after)


def _misfit(
    target: Target, keys: list[Key], current: Mapping[Key, Values], before: Mapping[Key, Values]
) -> str:
    key, name = keys[0], target.view.name
    return (
        f"{len(keys):,} rows of {name} version {target.version} are not what its events give by "
        f"the code of now: {shown_key(key)} is {current.get(key)} and the events without late "
        f"ones give {before.get(key)}. Its rules have changed since, or it was written by another "
        f"hand: rebuild it with `kappa replay run {name}`."
    )


def shown_key(key: Key) -> str:
    """Return a row's key as people read it."""
    start, *dimensions = key
    (shown,) = iso(pa.chunked_array([[start]], pa.timestamp("ms"))).to_pylist()
    return " ".join((shown, *map(json.dumps, dimensions)))


def repair(work: Work, planned: RepairPlan) -> int | None:
    """Write the rows of a plan and record its events; return the repair's number, if any.

    Also without anything to write, events of an interrupted repair are recorded.
    """
    target = planned.target
    journal = RepairJournal(work.control, target.view.name, target.version)
    number = _written_and_recorded(work, journal, planned) if planned.events else None
    with closing(ClickHouse(work.settings)) as clickhouse:
        note_repaired(clickhouse, target.view, target.version, journal.repaired())
    return number


def _written_and_recorded(work: Work, journal: RepairJournal, planned: RepairPlan) -> int:
    places = [event.place for event in planned.events]
    detail = {
        "rows": len(planned.changes),
        "events": places,
        "read": planned.read,
        "settled": planned.settled,
    }
    number = journal.begin(detail)
    try:
        if planned.changes:
            _write(work.settings, planned)
    except Exception as error:
        journal.failed(number, str(error))
        raise
    journal.written(number)
    journal.done(number, places)
    return number


def _write(settings: Settings, planned: RepairPlan) -> None:
    target = planned.target
    view, (windowed,) = target.view, target.store.views
    with Registry(**settings.registry_access, retry_for=30.0) as registry:
        schema_id = registry.register(view.subject(target.version), view.avro_schema)
    encoder = RowEncoder(target.topic, json.dumps(view.avro_schema), schema_id, view.key)
    keys = rows_by_key(target.store, planned.rows)
    encoded = encoder.encode(window_columns(windowed, planned.rows))
    records = [
        RowRecord(target.topic, planned.partitions.get(key), record_key, value)
        for key, record_key, value in zip(keys, *encoded, strict=True)
    ]
    name = f"kappa-repair-{target.topic}"
    write_rows(settings.kafka_client, name, records)
