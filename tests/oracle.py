"""Say what the page-view job must do with given records. Plain Python, no code of the job. No I/O.

The oracle is written from the contract and not from the job: it decodes each record by itself with
fastavro, judges its quality, applies the lateness rule record by record and aggregates lists of
events with the means of the language. It is slow and small on purpose.
"""

from __future__ import annotations

import copy
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import fastavro

SECOND = 1_000
MINUTE = 60 * SECOND
DAY = 24 * 60 * MINUTE

# The page-view stream's promises, written out anew.
DISORDER = 10 * SECOND
PANE = MINUTE
ALLOWED_LATENESS = 5 * MINUTE
MAX_EVENT_BYTES = 65_536

PER_MINUTE = "page_views_per_minute"
SLIDING = "page_views_sliding"
SITE = "site_traffic_per_minute"


@dataclass(frozen=True)
class Record:
    """One Kafka record; `offset` is -1 before it is written."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None

    @property
    def place(self) -> tuple[int, int]:
        """Partition and offset."""
        return self.partition, self.offset


@dataclass(frozen=True)
class PageView:
    """The fields of a good event that the views depend on."""

    timestamp_ms: int
    user_id: str
    page_id: str
    duration_ms: int | None
    status: int


@dataclass(frozen=True)
class Row:
    """One row of a view; `page_id` is None where the view has no such column."""

    page_id: str | None
    window_start: int
    window_end: int
    views: int
    unique_users: int
    avg_duration_ms: float | None
    errors: int

    @property
    def key(self) -> tuple[int, str | None]:
        """What identifies the row in its view."""
        return self.window_start, self.page_id


Rows = dict[tuple[int, str | None], Row]


class Dead(Exception):
    """The record is a dead letter; the argument is the reason code."""


@dataclass
class Verdict:
    """What became of each record, by partition and offset, and the rows of the three views.

    `late` holds start and end of the missed pane, `dead` the reason code, `watermarks` the last
    watermark of each partition that has records.
    """

    aggregated: dict[tuple[int, int], PageView] = field(default_factory=dict)
    late: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    dead: dict[tuple[int, int], str] = field(default_factory=dict)
    watermarks: dict[int, int] = field(default_factory=dict)
    views: dict[str, Rows] = field(default_factory=dict)


def judge(records: Iterable[Record], schemas: Mapping[int, Mapping[str, Any]]) -> Verdict:
    """Return the fate of each record and the rows that the good ones make.

    `schemas` has the writer schema of each schema id that the registry knows.
    """
    verdict = Verdict()
    parsed = {number: fastavro.parse_schema(_plain(schema)) for number, schema in schemas.items()}
    newest: dict[int, int] = {}
    for record in sorted(records, key=lambda r: r.place):
        newest[record.partition] = max(
            newest.get(record.partition, record.timestamp_ms), record.timestamp_ms
        )
        watermark = newest[record.partition] - DISORDER
        verdict.watermarks[record.partition] = watermark
        try:
            event = read(record, parsed)
        except Dead as reason:
            verdict.dead[record.place] = str(reason)
            continue
        pane_start = event.timestamp_ms // PANE * PANE
        if pane_start + PANE - 1 + ALLOWED_LATENESS <= watermark:
            verdict.late[record.place] = (pane_start, pane_start + PANE)
        else:
            verdict.aggregated[record.place] = event
    verdict.views = all_views(verdict.aggregated.values())
    return verdict


def all_views(events: Iterable[PageView]) -> dict[str, Rows]:
    """Return the rows of every window that holds at least one of `events`, by view."""
    events = list(events)
    return {
        PER_MINUTE: rows_of(events, size=MINUTE, by_page=True),
        SLIDING: rows_of(events, size=5 * MINUTE, by_page=True),
        SITE: rows_of(events, size=MINUTE, by_page=False),
    }


def rows_of(events: Iterable[PageView], *, size: int, by_page: bool) -> Rows:
    """Return one row for each window of `size` ms, one starting each minute, and each page."""
    groups: dict[tuple[int, str | None], list[PageView]] = defaultdict(list)
    for event in events:
        newest_start = event.timestamp_ms // MINUTE * MINUTE
        for start in range(newest_start - size + MINUTE, newest_start + MINUTE, MINUTE):
            groups[start, event.page_id if by_page else None].append(event)
    return {key: _row(key, members, size) for key, members in groups.items()}


def _row(key: tuple[int, str | None], events: list[PageView], size: int) -> Row:
    start, page_id = key
    durations = [event.duration_ms for event in events if event.duration_ms is not None]
    return Row(
        page_id=page_id,
        window_start=start,
        window_end=start + size,
        views=len(events),
        unique_users=len({event.user_id for event in events}),
        avg_duration_ms=sum(durations) / len(durations) if durations else None,
        errors=len([event for event in events if event.status >= 500]),
    )


def closed(rows: Rows, watermark: int) -> Rows:
    """Return the rows whose window ends at or before `watermark` (epoch ms)."""
    return {key: row for key, row in rows.items() if row.window_end <= watermark}


def read(record: Record, parsed: Mapping[int, Any]) -> PageView:
    """Return the event in `record`, or raise `Dead` with the reason code."""
    value = record.value
    if not value:
        raise Dead("empty")
    if value[0] != 0:
        raise Dead("bad_magic")
    if len(value) < 5:
        raise Dead("truncated")
    if len(value) > MAX_EVENT_BYTES:
        raise Dead("oversize")
    schema = parsed.get(int.from_bytes(value[1:5], "big"))
    if schema is None:
        raise Dead("unknown_schema_id")
    fields = _fields(value[5:], schema)
    _check_quality(fields, record.timestamp_ms)
    return PageView(
        timestamp_ms=record.timestamp_ms,
        user_id=fields["user_id"],
        page_id=fields["page_id"],
        duration_ms=fields.get("duration_ms"),
        status=fields.get("status", 200),
    )


def _fields(body: bytes, schema: Any) -> dict[str, Any]:
    stream = io.BytesIO(body)
    try:
        fields = fastavro.schemaless_reader(stream, schema, None)
    except UnicodeDecodeError:
        raise Dead("bad_text") from None
    except Exception:
        raise Dead("undecodable") from None
    if stream.tell() != len(body):
        raise Dead("trailing_bytes")
    assert isinstance(fields, dict)
    return fields


# Lengths are bytes of UTF-8, bounds are inclusive; a null passes.
_RANGES = {
    "duration_ms": (0, DAY),
    "status": (100, 599),
    "bytes_sent": (0, 10**12),
}
_LENGTHS = {
    "event_id": (1, 64),
    "user_id": (1, 256),
    "page_id": (1, 2048),
    "referrer": (0, 8192),
    "user_agent": (0, 4096),
}


def _check_quality(fields: dict[str, Any], timestamp_ms: int) -> None:
    for name in ("event_id", "event_time", "user_id", "page_id"):
        if fields.get(name) is None:
            raise Dead("missing")
    for name, (least, most) in _RANGES.items():
        number = fields.get(name)
        if number is not None and not least <= number <= most:
            raise Dead("out_of_range")
    for name, (shortest, longest) in _LENGTHS.items():
        text = fields.get(name)
        if text is not None and not shortest <= len(text.encode()) <= longest:
            raise Dead("bad_length")
    if fields["event_time"] != timestamp_ms:
        raise Dead("wrong_time")


def _plain(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return `schema` without logical types: the oracle compares plain numbers."""
    without = copy.deepcopy(dict(schema))
    for each in without["fields"]:
        if isinstance(each["type"], dict):
            each["type"].pop("logicalType", None)
    return without
