"""Read the events that exactly one of two versions left out of its views, or could not read."""

from __future__ import annotations

import io
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import fastavro

from deploy.settings import Settings
from jobs.plan import accounting_view, whole_ms, windowed_view
from jobs.views import SessionView, TotalsView, View, WindowView
from replay.comparison import dropped_query, missed_query, one_version_only, skipped_query
from replay.differences import DROPPED, MISSED, Cut, DroppedEvents, SkippedEvent
from replay.late_rows import REPAIRED_EVENTS, repaired_query
from schemas.framing import BadFrame, split
from schemas.registry import Registry, RegistryError, RegistryUnavailable
from schemas.streams import Stream
from sinks.clickhouse import Answer, ClickHouse
from sinks.dead_letters import DEAD_LETTERS, LATE_EVENTS
from udfs.avro_rows import checked
from udfs.lateness import milliseconds

MAX_EVENTS = 20_000
MAX_PANES = 500_000
_REGISTRY_SECONDS = 5.0


@dataclass(frozen=True)
class Found:
    """Skipped events of a span of time; `incomplete` says why some are missing, or nothing."""

    events: tuple[SkippedEvent, ...] = ()
    rows_read: int = 0
    incomplete: str = ""


class SkippedReader:
    """Finds late and dead events of one version only, up to the offsets of the cut.

    And those that the new version could not read any more, and those that came too late for the
    windows of one: the accountings tell of which minutes they were.
    """

    def __init__(self, settings: Settings, clickhouse: ClickHouse, cut: Cut) -> None:
        self._clickhouse = clickhouse
        self._cut = cut
        self._schemas: dict[int, Any] = {}
        self._registry: Registry | None = Registry(
            **settings.registry_access, timeout=2 * _REGISTRY_SECONDS, retry_for=_REGISTRY_SECONDS
        )

    def close(self) -> None:
        """Give back the connections."""
        if self._registry is not None:
            self._registry.close()

    def between(
        self,
        stream: Stream,
        view: str,
        versions: Collection[int],
        first: datetime,
        end: datetime,
        fields: Collection[str],
    ) -> Found:
        """Return the events that one of `versions` skipped, each with its `fields` where readable.

        An event that can't be read fits every key of its window. One that a repair folded into
        `view` was not skipped in that version.
        """
        present = self._clickhouse.table_ids()
        repaired = repaired_query(view) if REPAIRED_EVENTS in present else ""
        queries = [
            skipped_query(table.name, verdict, stream.name, versions, first, end, repaired)
            for table, verdict in ((LATE_EVENTS, "late"), (DEAD_LETTERS, "dead"))
            if table.name in present
        ]
        if not queries:
            return Found()
        answer = self._clickhouse.query(one_version_only(queries, MAX_EVENTS + 1))
        rows = [row for row in answer.rows[:MAX_EVENTS] if self._read(stream, row)]
        events = tuple(self._event(row, fields) for row in rows)
        return Found(events, answer.rows_read, self._incomplete(len(answer.rows)))

    def dropped(
        self, stream: Stream, versions: tuple[int, int], first: datetime, end: datetime
    ) -> Found:
        """Return the events that only the old of `versions` could read, a run for each pane."""
        begin = {part: at for part, at in self._cut.begin.get(stream.name, {}).items() if at}
        old, new = versions
        accounting = accounting_view(stream).table(old)
        if not begin or accounting not in self._clickhouse.table_ids():
            return Found()
        answer = self._clickhouse.query(
            dropped_query(accounting, begin, first - stream.pane, end, MAX_PANES + 1)
        )
        runs = tuple(
            DroppedEvents(
                DROPPED, new, stream.topic, part, offset, pane, last_offset=last, events=events
            )
            for part, pane, offset, last, events in answer.rows[:MAX_PANES]
        )
        return _found(runs, answer, DROPPED)

    def missed(
        self,
        stream: Stream,
        view: View,
        versions: Collection[int],
        first: datetime,
        end: datetime,
    ) -> Found:
        """Return the events that came too late for `view` in one of `versions`, in runs."""
        present = self._clickhouse.table_ids()
        accountings = {version: accounting_view(stream).table(version) for version in versions}
        known = {version: table for version, table in accountings.items() if table in present}
        if not known:
            return Found()
        answer = self._clickhouse.query(
            missed_query(known, first - stream.pane, end, MAX_PANES + 1)
        )
        runs = tuple(
            DroppedEvents(
                MISSED, version, stream.topic, part, offset, pane, last_offset=last, events=events
            )
            for version, part, pane, offset, last, events, at, time in answer.rows[:MAX_PANES]
            if may_miss(view, stream, at, time)
        )
        return _found(runs, answer, MISSED)

    def _incomplete(self, events: int) -> str:
        if events > MAX_EVENTS:
            return (
                f"more than {MAX_EVENTS:,} events are late or dead in one version only, and the "
                "others were not looked at; declare what the change makes differ."
            )
        if self._registry is None:
            return (
                "the schema registry does not answer, so late and dead events explain every key "
                "of their window; verify again when it does."
            )
        return ""

    def _read(self, stream: Stream, row: tuple[Any, ...]) -> bool:
        """Tell whether both versions have judged the event; else it may yet be in both."""
        _, _, _, partition, offset, *_ = row
        read = self._cut.offsets.get(stream.name, {})
        return not self._cut.offsets or offset < read.get(partition, 0)

    def _event(self, row: tuple[Any, ...], fields: Collection[str]) -> SkippedEvent:
        verdict, version, topic, partition, offset, timestamp, reason, body = row
        own = self._fields(bytes.fromhex(body or ""), fields)
        return SkippedEvent(
            verdict, version, topic, partition, offset, timestamp, reason or "", own
        )

    def _fields(self, value: bytes, names: Collection[str]) -> dict[str, Any] | None:
        try:
            schema_id, body = split(value)
            schema = self._schema(schema_id)
            if schema is None:
                return None
            record: Any = fastavro.schemaless_reader(io.BytesIO(body), schema, None)
        except BadFrame:
            return None
        except Exception:
            # Its bytes may be anything, and the reader raises as many kinds of error.
            return None
        return {name: record[name] for name in names if name in record}

    def _schema(self, schema_id: int) -> Any:
        if schema_id in self._schemas:
            return self._schemas[schema_id]
        if self._registry is None:
            return None
        try:
            found = checked(self._registry.schema_by_id(schema_id)).parsed
            self._schemas[schema_id] = found
            return found
        except RegistryUnavailable:
            # It was given its time once; the next event would wait as long.
            self._registry.close()
            self._registry = None
            return None
        except RegistryError:
            return None


def _found(runs: tuple[DroppedEvents, ...], answer: Answer, verdict: str) -> Found:
    """Return `runs`, the readable part of `answer`, and whether that is not all."""
    why = f"events of more than {MAX_PANES:,} minutes were {verdict}; declare what differs."
    return Found(runs, answer.rows_read, why if len(answer.rows) > MAX_PANES else "")


def may_miss(view: View, stream: Stream, pane: int, passed: int) -> bool:
    """Tell whether `view` may lack events of `pane` that came when time had `passed` so far.

    Both are epoch milliseconds. A view has them in those of its own windows that are not over.
    """
    _, lateness, _ = milliseconds(stream)
    match view:
        case TotalsView():
            return False
        case WindowView():
            own = windowed_view(view)
            return own.starts_with(pane)[0] + own.size - 1 + lateness <= passed
        case SessionView():
            return pane + whole_ms(view.gap) + lateness <= passed
    return True
