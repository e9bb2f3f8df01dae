"""What ClickHouse knows of repairs: the rows to repair as they stand, and the events repaired."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from jobs.views import WindowView
from replay.late import Key, Place, Values
from sinks.clickhouse import ClickHouse
from sinks.sql import identifier, literal
from sinks.tables import PARTITION, TableColumn, column_list

REPAIRED_EVENTS = "repaired_events"

# ClickHouse reads a query of 256 KiB at most, and a character may take four bytes.
_KEYS_CHARACTERS = 50_000
_COLUMNS = (
    TableColumn("stream", "LowCardinality(String)", "Stream of the event."),
    TableColumn("view", "LowCardinality(String)", "View that the event was folded into."),
    TableColumn("version", "UInt32", "Version of the view."),
    TableColumn("topic", "LowCardinality(String)", "Topic of the event."),
    TableColumn("partition", "UInt32", "Its partition."),
    TableColumn("offset", "UInt64", "Its offset."),
    TableColumn("repair", "UInt64", "Number of the repair."),
)
_DOC = "Late events that a repair has folded into a view; they stand in late_events as well."


@dataclass(frozen=True)
class CurrentRow:
    """A row as people see it, and its partition of the view's topic."""

    values: Values
    partition: int


def current_rows(
    clickhouse: ClickHouse, view: WindowView, version: int, keys: Collection[Key]
) -> dict[Key, CurrentRow]:
    """Return the rows of `keys` by key, without those that are not there."""
    table = identifier(view.table(version))
    names = [identifier(name) for name in (*view.dimensions, PARTITION, *view.measures)]
    count = 1 + len(view.dimensions)
    columns = ", ".join(("window_start", *names[: count - 1]))
    found: dict[Key, CurrentRow] = {}
    for condition in _conditions(columns, sorted(keys)):
        answer = clickhouse.query(
            f"SELECT toUnixTimestamp64Milli(window_start), {', '.join(names)} FROM {table} FINAL"
            f" WHERE {condition}"
        )
        for row in answer.rows:
            if (key := tuple(row[:count])) in keys:
                found[key] = CurrentRow(tuple(row[count + 1 :]), row[count])
    return found


def _conditions(columns: str, keys: Sequence[Key]) -> Iterator[str]:
    """Yield conditions, none too long for a query, of which one holds for the row of each key."""
    part: list[str] = []
    size = 0
    for start, *dimensions in keys:
        instant = f"fromUnixTimestamp64Milli({start})"
        text = f"({', '.join((instant, *map(literal, dimensions)))})"
        if len(text) > _KEYS_CHARACTERS:
            yield f"window_start = {instant}"
            continue
        if size + len(text) > _KEYS_CHARACTERS:
            yield f"({columns}) IN ({', '.join(part)})"
            part, size = [], 0
        part.append(text)
        size += len(text)
    if part:
        yield f"({columns}) IN ({', '.join(part)})"


def note_repaired(
    clickhouse: ClickHouse, view: WindowView, version: int, repaired: Mapping[Place, int]
) -> None:
    """Let the table of repaired events have `repaired`, the repair by event; it may be again."""
    clickhouse.command(_create())
    known = clickhouse.query(
        f"SELECT partition, offset FROM {identifier(REPAIRED_EVENTS)}"
        f" WHERE view = {literal(view.name)} AND version = {version}"
    )
    missing = sorted(repaired.keys() - {(row[0], row[1]) for row in known.rows})
    if missing:
        clickhouse.insert(REPAIRED_EVENTS, _rows(view, version, missing, repaired))


def repaired_query(view: str) -> str:
    """Return the query for (version, topic, partition, offset) of the events folded into `view`."""
    return (
        f"SELECT version, topic, partition, offset FROM {identifier(REPAIRED_EVENTS)}"
        f" WHERE view = {literal(view)}"
    )


def _rows(
    view: WindowView, version: int, places: Sequence[Place], repaired: Mapping[Place, int]
) -> pa.Table:
    count = len(places)
    return pa.table(
        {
            "stream": pa.array([view.stream.name] * count, pa.string()),
            "view": pa.array([view.name] * count, pa.string()),
            "version": pa.array([version] * count, pa.uint32()),
            "topic": pa.array([view.stream.topic] * count, pa.string()),
            "partition": pa.array([partition for partition, _ in places], pa.uint32()),
            "offset": pa.array([offset for _, offset in places], pa.uint64()),
            "repair": pa.array([repaired[place] for place in places], pa.uint64()),
        }
    )


def _create() -> str:
    return "\n".join(
        (
            f"CREATE TABLE IF NOT EXISTS {identifier(REPAIRED_EVENTS)}",
            column_list(_COLUMNS),
            "ENGINE = ReplacingMergeTree",
            "ORDER BY (view, version, topic, partition, offset)",
            f"COMMENT {literal(_DOC)}",
        )
    )
