"""Dead letters and late events as tables: what they are made of, and their rows. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from sinks.rows import BadRecord, Record, place_of, with_origin
from sinks.sql import identifier, literal
from sinks.tables import DURABLE, INTERNAL_COLUMNS, REVISION, TableColumn, column_list
from sinks.topics import DeadLetterTopic, LateTopic

REASONS = (
    "empty",
    "bad_magic",
    "truncated",
    "oversize",
    "unknown_schema_id",
    "undecodable",
    "trailing_bytes",
    "bad_text",
    "missing",
    "wrong_time",
    "out_of_range",
    "bad_length",
    "unknown_value",
)
"""What jobs (`udfs.decode`) say is wrong with an event."""

_TIME = "DateTime64(3, 'UTC')"
_KEY = ("stream", "version", "topic", "partition", "offset")
# What ClickHouse's DateTime64 holds; a record may claim any time.
_FIRST_MS, _LAST_MS = -2208988800000, 10413791999999


@dataclass(frozen=True)
class RawColumn:
    """A column that a record's header of the same name fills."""

    column: TableColumn
    arrow: Any
    read: Callable[[str], Any]


def _time_ms(text: str) -> int:
    return min(max(int(text), _FIRST_MS), _LAST_MS)


def _whole(bits: int) -> Callable[[str], int]:
    """Return what reads a number that a column without sign of so many bits holds."""

    def read(text: str) -> int:
        number = int(text)
        if not 0 <= number < 2**bits:
            raise ValueError(f"{number} does not fit into {bits} bits")
        return number

    return read


def _schema_id(text: str) -> int | None:
    return _whole(32)(text) if text else None


def _text(name: str, doc: str, type_name: str = "LowCardinality(String)") -> RawColumn:
    return RawColumn(TableColumn(name, type_name, doc), pa.string(), str)


def _instant(name: str, doc: str) -> RawColumn:
    return RawColumn(TableColumn(name, _TIME, doc), pa.timestamp("ms"), _time_ms)


_COORDINATES = (
    _text("topic", "Topic of the event."),
    RawColumn(TableColumn("partition", "UInt32", "Its partition."), pa.uint32(), _whole(32)),
    RawColumn(TableColumn("offset", "UInt64", "Its offset."), pa.uint64(), _whole(64)),
    _instant("timestamp", "The time of its record."),
)
_ORIGIN = (
    TableColumn("stream", "LowCardinality(String)", "Stream of the event."),
    TableColumn("version", "UInt32", "Version of the job that judged it."),
)
_RAW = (
    TableColumn("key", "Nullable(String)", "Key of the event, as it came."),
    TableColumn("value", "Nullable(String)", "Bytes of the event, as they came."),
)


@dataclass(frozen=True)
class RawTable:
    """A table of raw events, and the public view over it in which none appears twice."""

    name: str
    doc: str
    headers: tuple[RawColumn, ...]

    @property
    def table(self) -> str:
        """Name of the table that is loaded."""
        return f"{self.name}_loaded"

    @property
    def columns(self) -> tuple[TableColumn, ...]:
        """The public columns, in the order people see them."""
        return (*_ORIGIN, *(header.column for header in self.headers), *_RAW)


DEAD_LETTERS = RawTable(
    "dead_letters",
    "Events that a job refused, with the reason.",
    (
        _text("reason", "What is wrong with the event, as a code."),
        _text("detail", "What is wrong with the event, as a sentence.", "String"),
        *_COORDINATES,
        RawColumn(
            TableColumn("schema_id", "Nullable(UInt32)", "Schema id of its frame, if it has one."),
            pa.uint32(),
            _schema_id,
        ),
    ),
)
LATE_EVENTS = RawTable(
    "late_events",
    "Events that came later than allowed, with the first window they missed.",
    (
        *_COORDINATES,
        _instant("window_start", "First instant of the window missed."),
        _instant("window_end", "First instant after the window missed."),
    ),
)


def raw_table(source: DeadLetterTopic | LateTopic) -> RawTable:
    """Return the table that the records of `source` belong to."""
    return DEAD_LETTERS if isinstance(source, DeadLetterTopic) else LATE_EVENTS


def create_raw_table(table: RawTable) -> str:
    """Return the statement that creates the loaded table where it is missing."""
    return "\n".join(
        (
            f"CREATE TABLE IF NOT EXISTS {identifier(table.table)}",
            column_list((*table.columns, *INTERNAL_COLUMNS)),
            f"ENGINE = ReplacingMergeTree({identifier(REVISION)})",
            f"ORDER BY ({', '.join(identifier(name) for name in _KEY)})",
            DURABLE,
            f"COMMENT {literal(table.doc)}",
        )
    )


def create_raw_view(table: RawTable) -> str:
    """Return the statement that creates the public view where it is missing."""
    names = ", ".join(identifier(column.name) for column in table.columns)
    return "\n".join(
        (
            f"CREATE VIEW IF NOT EXISTS {identifier(table.name)}",
            column_list(table.columns),
            f"AS SELECT {names} FROM {identifier(table.table)} FINAL",
            f"COMMENT {literal(table.doc)}",
        )
    )


def raw_rows(source: DeadLetterTopic | LateTopic, records: Sequence[Record]) -> pa.Table:
    """Return one row for each of `records` of `source`'s topic, in their order.

    Raises `BadRecord` for one whose headers are not those of a dead letter or late event.
    """
    headers = raw_table(source).headers
    values = [_header_values(record, headers) for record in records]
    filled = {
        header.column.name: pa.array([row[i] for row in values], header.arrow)
        for i, header in enumerate(headers)
    }
    rows = pa.table(
        {
            "stream": pa.array([source.stream] * len(records), pa.string()),
            "version": pa.array([source.version] * len(records), pa.uint32()),
            **filled,
            "key": pa.array([_bytes(record.key()) for record in records], pa.binary()),
            "value": pa.array([_bytes(record.value()) for record in records], pa.binary()),
        }
    )
    return with_origin(rows, records)


def _header_values(record: Record, headers: tuple[RawColumn, ...]) -> list[Any]:
    given: Mapping[str, Any] = dict(record.headers() or ())
    try:
        return [header.read(given[header.column.name].decode()) for header in headers]
    # A header may be there without a value.
    except (AttributeError, KeyError, ValueError) as error:
        needed = ", ".join(header.column.name for header in headers)
        raise BadRecord(
            f"{place_of(record)}: its headers are {dict(given)} and must hold {needed}, as text, "
            "with numbers in the columns' ranges; it was not written by a job."
        ) from error


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
