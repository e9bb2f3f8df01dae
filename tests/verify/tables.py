"""Two versions of small views in ClickHouse, and the late and dead events of their jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from deploy.settings import Settings
from jobs.views import Tumbling, View, WindowView
from replay.differences import Cut, Difference, Expectation, Verdict
from replay.report import VerifyReport, ViewReport
from replay.verify import verify
from schemas.streams import PAGE_VIEWS
from sinks.clickhouse import ClickHouse
from sinks.dead_letters import (
    DEAD_LETTERS,
    LATE_EVENTS,
    RawTable,
    create_raw_table,
    create_raw_view,
)
from sinks.tables import create_table, table_spec
from udfs.measures import Count, Mean

NOON = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)

PAGES = WindowView(
    name="pages",
    stream=PAGE_VIEWS,
    dimensions=("page_id",),
    window=Tumbling(MINUTE),
    measures={
        "views": Count(),
        "errors": Count("status", ">=", 500),
        "avg_ms": Mean("duration_ms"),
    },
    description="Pages a minute.",
)
SITE = replace(PAGES, name="site", dimensions=())


def row(page: str, minute: int, views: int, errors: int = 0, avg_ms: float | None = 5.0) -> Row:
    """Return a row of PAGES for a minute after noon."""
    start = NOON + minute * MINUTE
    return {
        "page_id": page,
        "window_start": start,
        "window_end": start + MINUTE,
        "views": views,
        "errors": errors,
        "avg_ms": avg_ms,
    }


Row = dict[str, Any]


@dataclass
class Versions:
    """A database of a test's own, and comparisons of its versions 1 and 2."""

    settings: Settings
    clickhouse: ClickHouse = field(init=False)

    def __post_init__(self) -> None:
        self.clickhouse = ClickHouse(self.settings)
        self.clickhouse.create_database()

    def close(self) -> None:
        self.clickhouse.drop_database()
        self.clickhouse.close()

    def create(self, view: View, version: int) -> None:
        self.clickhouse.command(create_table(table_spec(view.name, view.avro_schema), version))

    def fill(self, view: View, version: int, rows: Sequence[Row], revision: int = 0) -> None:
        """Add `rows` to the table of `view`, created where it is missing."""
        self.create(view, version)
        if not rows:
            return
        table = pa.Table.from_pylist([{**one, **_origin(revision)} for one in rows])
        times = {"window_start", "window_end", "session_start", "session_end", "_emitted_at"}
        times |= {"began", "ended"}
        fields = [
            pa.field(f.name, pa.timestamp("ms", "UTC") if f.name in times else f.type)
            for f in table.schema
        ]
        self.clickhouse.insert(view.table(version), table.cast(pa.schema(fields)))

    def both(self, old: Sequence[Row], new: Sequence[Row], view: View = PAGES) -> None:
        self.fill(view, 1, old)
        self.fill(view, 2, new)

    def skip(
        self,
        version: int,
        offset: int,
        at: datetime,
        *,
        reason: str = "",
        value: bytes = b"",
        partition: int = 0,
    ) -> None:
        """Add an event that the job at `version` skipped: dead with a `reason`, late without."""
        raw: RawTable = DEAD_LETTERS if reason else LATE_EVENTS
        self.clickhouse.command(create_raw_table(raw))
        self.clickhouse.command(create_raw_view(raw))
        place = {"topic": "events.page_views", "partition": partition, "offset": offset}
        common = {"stream": "page_views", "version": version, **place, "timestamp": at}
        late = {"window_start": at.replace(second=0), "window_end": at.replace(second=0) + MINUTE}
        dead = {"reason": reason, "detail": "It is bad.", "schema_id": None}
        body = {"key": b"u", "value": value}
        self._insert_raw(raw, {**common, **(dead if reason else late), **body, **_origin(offset)})

    def _insert_raw(self, raw: RawTable, values: Row) -> None:
        arrow = {header.column.name: header.arrow for header in raw.headers}
        arrow |= {"version": pa.uint32(), "key": pa.binary(), "value": pa.binary()}
        arrow |= {"_emitted_at": pa.timestamp("ms")}
        columns = {name: pa.array([value], arrow.get(name)) for name, value in values.items()}
        self.clickhouse.insert(raw.table, pa.table(columns))

    def verify(
        self, *views: View, columns: Sequence[str] = (), conditions: Sequence[str] = (), **more: Any
    ) -> VerifyReport:
        """Compare versions 1 and 2 of `views`, of PAGES without any."""
        options: dict[str, Any] = {"cut": Cut(), "now": NOON, **more}
        return verify(
            self.settings,
            views=views or (PAGES,),
            old_version=1,
            new_version=2,
            expected=Expectation(tuple(columns), tuple(conditions)),
            **options,
        )

    def compare(self, **options: Any) -> ViewReport:
        """Return the report of PAGES alone."""
        (view,) = self.verify(**options).views
        return view


def _origin(revision: int) -> Row:
    return {"_revision": revision, "_partition": 0, "_emitted_at": NOON}


def told(report: ViewReport) -> list[tuple[str, int, str, tuple[str, ...]]]:
    """Return page, minute, class and differing columns of every sample, in order."""
    return [_told(one) for one in sorted(report.samples, key=_place)]


def _place(one: Difference) -> tuple[datetime, str]:
    return one.row.key["window_start"], one.row.key["page_id"]


def _told(one: Difference) -> tuple[str, int, str, tuple[str, ...]]:
    minute = (one.row.key["window_start"] - NOON) // MINUTE
    return one.row.key["page_id"], minute, one.verdict.value, one.row.pattern.columns


def counts(report: ViewReport) -> dict[str, int]:
    """Return how many keys of each class differ, without the classes that have none."""
    return {
        verdict.value: report.counts[verdict] for verdict in Verdict if verdict in report.counts
    }
