"""All jobs at once on one stack: generated events, in order or not, and the rows they make.

A domain is a module of this folder with
- `JOB`: the name of the job,
- `events()`: the generated events by stream name, each stream's by event time,
- `closing(stream, time_ms)`: an event of `stream` at a later time, which moves the watermark and
  makes no row that the domain compares,
- `expected(events)`: the rows of each view, by view name, as tuples in the order of `COLUMNS`,
- `COLUMNS`: by view name the compared columns, and `WHERE`, where given, which rows they are
  compared for, as SQL,
- `BY_ARRIVAL`, where true: `expected` is given each stream's events as they arrive,
- `DIMENSIONS`, where given: streams that others look things up in. They are sent whole, before the
  job starts, and nothing follows; the streams' own idle timeouts hold.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import fastavro

from bench.generators import Event, disordered
from jobs.catalogue import job_named
from jobs.submit import submit
from schemas.registry import Registry, publish_schema
from schemas.streams import Stream
from schemas.topics import ensure_events_topic
from tests.harness import Environment, produce, rows
from tests.oracle import Record

LATER_MS = 3 * 24 * 3600 * 1000
"""How far after the last event the closing ones stand: past every window, gap and time-out."""


class Sender:
    """Sends a domain's streams: parts of the events, at last the closing ones.

    `in_order` sends each stream by event time, otherwise they come in disorder.
    """

    def __init__(self, env: Environment, domain: ModuleType, *, in_order: bool = False) -> None:
        self.env, self._domain, self._in_order = env, domain, in_order
        self._dimensions: frozenset[str] = getattr(domain, "DIMENSIONS", frozenset())
        job = job_named(domain.JOB).within(env.settings.namespace)
        self.job_name = job.name
        self.streams = {stream.name: stream for stream in job.streams}
        self.events: dict[str, list[Event]] = domain.events()
        self._frames: dict[str, tuple[bytes, Any]] = {}

        self.arrived = {name: self._arrived(stream) for name, stream in self.streams.items()}
        self.late: dict[str, list[Record]] = {name: [] for name in self.streams}
        self.broken: dict[str, list[Record]] = {name: [] for name in self.streams}

    def expected(self) -> Mapping[str, list[tuple[Any, ...]]]:
        """Return the oracle's rows of each view."""
        by_arrival = getattr(self._domain, "BY_ARRIVAL", False)
        found: Mapping[str, list[tuple[Any, ...]]] = self._domain.expected(
            self.arrived if by_arrival else self.events
        )
        return found

    def prepare(self) -> None:
        """Register the schemas, create the topics, and send all of dimensions.

        They are there before the job is, as it takes its time to start: a partition without events
        counts as idle, and what comes to it then may be late.
        """
        with Registry(self.env.settings.registry) as registry:
            for name, stream in self.streams.items():
                number = publish_schema(registry, stream)
                schema = cast(Any, fastavro.parse_schema(stream.schema))
                self._frames[name] = b"\0" + number.to_bytes(4, "big"), schema
                ensure_events_topic(self.env.settings.kafka_client, stream)
        for name in self._dimensions:
            self._send(name, 0, len(self.arrived[name]))

    def submit(self, script: Path | None = None) -> str:
        """Submit the job, or what `script` has in its place, and return its id.

        It has `KAPPA_TEST_PARALLELISM` (1) tasks an operator. Where there are no dimensions, no
        stream counts as idle while other jobs start, before its first event.
        """
        options = {"parallelism": int(os.environ.get("KAPPA_TEST_PARALLELISM", "1"))}
        if not self._dimensions:
            options["idle_timeout_seconds"] = 3600
        return submit(self.env.settings, self._domain.JOB, options=options, script=script).job_id

    def send(self, part: int, parts: int) -> None:
        """Send the `part`-th of `parts` parts of each stream that is no dimension."""
        for name, arrived in self.arrived.items():
            if name not in self._dimensions:
                self._send(name, *(len(arrived) * n // parts for n in (part, part + 1)))

    def _send(self, name: str, begin: int, end: int) -> None:
        stream = self.streams[name]
        records = [self._record(stream, event) for event in self.arrived[name][begin:end]]
        self._produce(stream, records)

    def send_late(self) -> None:
        """Send each stream's first event as another one, beyond what is allowed to be late.

        Oracles know nothing of it: no view may count it, and it tells of no fraud.
        """
        for name, stream in self.streams.items():
            record = self._record(stream, self.events[name][0] | {"event_id": "too-late"})
            self._produce(stream, [record])
            self.late[name].append(record)

    def send_broken(self) -> None:
        """Send each stream's first event as it arrives once more, without its last byte."""
        for name, stream in self.streams.items():
            whole = self._record(stream, self.arrived[name][0])
            assert whole.value is not None
            record = replace(whole, value=whole.value[:-1])
            self._produce(stream, [record])
            self.broken[name].append(record)

    def send_one(self, name: str, event: Event) -> None:
        """Send one event more of stream `name`."""
        self._produce(self.streams[name], [self._record(self.streams[name], event)])

    def close(self) -> None:
        """Send an event to every partition, but none of dimensions, that closes all windows."""
        newest = max(e["event_time"] for found in self.events.values() for e in found)
        for name, stream in self.streams.items():
            if name in self._dimensions:
                continue
            event = self._domain.closing(name, newest + LATER_MS)
            record = self._record(stream, event)
            parts = range(stream.partitions)
            self._produce(stream, [_at(record, partition) for partition in parts])

    def _arrived(self, stream: Stream) -> list[Event]:
        if self._in_order:
            return self.events[stream.name]
        disorder = stream.disorder.total_seconds() * 1000
        return disordered(self.events[stream.name], int(disorder) - 1, seed=len(stream.name))

    def _record(self, stream: Stream, event: Event) -> Record:
        frame, schema = self._frames[stream.name]
        body = io.BytesIO()
        fastavro.schemaless_writer(body, schema, event)
        key = str(event[stream.key_field]).encode()
        # Any spread will do that keeps a key's events together.
        partition = sum(key) % stream.partitions
        return Record(partition, -1, event["event_time"], key, frame + body.getvalue())

    def _produce(self, stream: Stream, records: list[Record]) -> None:
        produce(self.env, records, topic=stream.topic)


def _at(record: Record, partition: int) -> Record:
    return Record(partition, -1, record.timestamp_ms, record.key, record.value)


def view_rows(
    env: Environment, domain: ModuleType, view: str, version: int | None = None
) -> list[tuple[Any, ...]]:
    """Return what people see in `view`, or what `version` has, as `expected` gives it, in order."""
    columns = ", ".join(domain.COLUMNS[view])
    where: Mapping[str, str] = getattr(domain, "WHERE", {})
    condition = f" WHERE {where[view]}" if view in where else ""
    table = view if version is None else f"{view}_v{version} FINAL"
    return ordered(rows(env, f"SELECT {columns} FROM {env.settings.database}.{table}{condition}"))


def ordered(found: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return rows in one order, whatever their types: times as epoch ms, floats rounded."""
    return sorted(((*map(_plain, row),) for row in found), key=repr)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if hasattr(value, "timestamp"):
        from datetime import UTC

        moment = value if value.tzinfo else value.replace(tzinfo=UTC)
        return round(moment.timestamp() * 1000)
    return value
