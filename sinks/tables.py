"""Derive a view's ClickHouse table and its public name from the topic's Avro schema. No I/O."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sinks.sql import identifier, literal

REVISION = "_revision"
PARTITION = "_partition"
EMITTED_AT = "_emitted_at"

# Kafka is told that rows are loaded once an insert returns; by then they must be on the disk.
DURABLE = "SETTINGS fsync_after_insert = 1, fsync_part_directory = 1"

_TYPES = {
    "string": "String",
    "int": "Int32",
    "long": "Int64",
    "float": "Float32",
    "double": "Float64",
    "boolean": "Bool",
    "timestamp-millis": "DateTime64(3, 'UTC')",
}
_LONGEST_MS = timedelta.max // timedelta(milliseconds=1)


class InvalidViewSchema(ValueError):
    """A view topic's schema that no table follows from."""


@dataclass(frozen=True)
class TableColumn:
    """One column of a table; `type` is ClickHouse's name of it."""

    name: str
    type: str
    doc: str = ""

    @property
    def definition(self) -> str:
        """The column as a CREATE or ALTER statement declares it."""
        comment = f" COMMENT {literal(self.doc)}" if self.doc else ""
        return f"{identifier(self.name)} {self.type}{comment}"


INTERNAL_COLUMNS = (
    TableColumn(REVISION, "UInt64", "Offset in the topic; of a key's rows the greatest counts."),
    TableColumn(PARTITION, "UInt32", "Partition of the topic."),
    TableColumn(EMITTED_AT, "DateTime64(3, 'UTC')", "When the row was written to the topic."),
)


@dataclass(frozen=True)
class TableSpec:
    """All that a view's table derives from; `retention` counts from the end of a row's window."""

    view: str
    columns: tuple[TableColumn, ...]
    key: tuple[str, ...]
    retention: timedelta | None = None
    doc: str = ""

    def table(self, version: int) -> str:
        """Name of the table with the rows at `version`."""
        return f"{self.view}_v{version}"


def table_spec(view: str, schema: Any) -> TableSpec:
    """Return the table of `view` as the Avro schema of its rows has it.

    The schema's attributes `key` and `retention_ms` are the view's own. Raises
    `InvalidViewSchema`.
    """
    _check_kinds(view, schema)
    columns = tuple(_column(view, field) for field in schema["fields"])
    key = tuple(schema.get("key") or ())
    retention_ms = schema.get("retention_ms")
    _check_key(view, key, columns)
    if retention_ms is not None and not _has(columns, "window_end"):
        raise InvalidViewSchema(
            f"{view}: a retention counts from window_end, and the view has no such column; "
            "declare the view without retention."
        )
    retention = None if retention_ms is None else timedelta(milliseconds=retention_ms)
    return TableSpec(view, columns, key, retention, _doc(schema))


def column_list(columns: tuple[TableColumn, ...]) -> str:
    """Return the bracketed list of `columns` in a CREATE statement."""
    return "(\n" + ",\n".join(f"    {column.definition}" for column in columns) + "\n)"


def create_table(spec: TableSpec, version: int) -> str:
    """Return the statement that creates the table of `spec` at `version` where it is missing."""
    lines = [
        f"CREATE TABLE IF NOT EXISTS {identifier(spec.table(version))}",
        column_list((*spec.columns, *INTERNAL_COLUMNS)),
        f"ENGINE = ReplacingMergeTree({identifier(REVISION)})",
    ]
    # Rows of one key must share a partition, or FINAL can't tell which of them is the newest.
    if "window_start" in spec.key:
        lines.append(f"PARTITION BY toYYYYMM({identifier('window_start')})")
    lines.append(f"ORDER BY ({', '.join(identifier(name) for name in spec.key)})")
    if spec.retention is not None:
        lines.append(f"TTL {_expiry(spec.retention)}")
    lines.append(DURABLE)
    if spec.doc:
        lines.append(f"COMMENT {literal(spec.doc)}")
    return "\n".join(lines)


def create_view(spec: TableSpec, version: int) -> str:
    """Return the statement that gives `version` the view's public name, if that is free."""
    names = ", ".join(identifier(column.name) for column in spec.columns)
    return "\n".join(
        (
            f"CREATE VIEW IF NOT EXISTS {identifier(spec.view)}",
            column_list(spec.columns),
            f"AS SELECT {names} FROM {identifier(spec.table(version))} FINAL",
            f"COMMENT {literal(f'Version {version}. {spec.doc}'.rstrip())}",
        )
    )


def add_columns(spec: TableSpec, version: int, existing: Collection[str]) -> str | None:
    """Return the statement that adds what the table lacks; None where it has all `existing`."""
    missing = [column for column in spec.columns if column.name not in existing]
    if not missing:
        return None
    added = ", ".join(f"ADD COLUMN IF NOT EXISTS {column.definition}" for column in missing)
    return f"ALTER TABLE {identifier(spec.table(version))} {added}"


def change_expiry(spec: TableSpec, version: int, engine: str) -> str | None:
    """Return the statement that gives the table its retention; None where `engine` has it."""
    declared = spec.retention and timedelta(seconds=_seconds(spec.retention))
    if stored_retention(engine) == declared:
        return None
    change = "REMOVE TTL" if declared is None else f"MODIFY TTL {_expiry(declared)}"
    return f"ALTER TABLE {identifier(spec.table(version))} {change}"


def stored_retention(engine: str) -> timedelta | None:
    """Return how long rows stay in a table that ClickHouse has with the clause `engine`."""
    found = re.search(r"\bTTL\b.*\btoIntervalSecond\(([0-9]+)\)", engine)
    return timedelta(seconds=int(found[1])) if found else None


def _expiry(retention: timedelta) -> str:
    # toDateTime would wrap at 2106 and drop at once what a long retention must keep.
    return f"{identifier('window_end')} + toIntervalSecond({_seconds(retention)})"


def _seconds(retention: timedelta) -> int:
    return -(-retention // timedelta(seconds=1))


def _column(view: str, field: Mapping[str, Any]) -> TableColumn:
    kind = _type(f"{view}.{field['name']}", field["type"])
    return TableColumn(field["name"], kind, _doc(field))


def _doc(declared: Mapping[str, Any]) -> str:
    doc = declared.get("doc")
    return doc if isinstance(doc, str) else ""


def _type(subject: str, avro: Any) -> str:
    if isinstance(avro, list):
        others = [branch for branch in avro if branch != "null"]
        if len(others) == 1 and len(avro) == 2:
            return f"Nullable({_type(subject, others[0])})"
    name = _type_name(avro) if isinstance(avro, Mapping) else avro
    if isinstance(name, str) and name in _TYPES:
        return _TYPES[name]
    raise InvalidViewSchema(
        f"{subject}: Avro type {avro!r} has no column type; use one of {', '.join(_TYPES)}, "
        "or a union of one of them with null."
    )


def _type_name(avro: Mapping[str, Any]) -> Any:
    # A logical type may stand on any type, but rows are decoded by what it stands on.
    if avro.get("type") == "long":
        return avro.get("logicalType", "long")
    return None if "logicalType" in avro else avro.get("type")


def _check_kinds(view: str, schema: Any) -> None:
    """Raise `InvalidViewSchema` for what Avro allows in a schema and no view's job writes."""
    if not isinstance(schema, Mapping) or not isinstance(schema.get("fields"), list):
        raise InvalidViewSchema(
            f"{view}: its schema is no record; register the schema that the view's declaration "
            "gives."
        )
    key, retention_ms = schema.get("key") or [], schema.get("retention_ms")
    named = isinstance(key, list) and all(isinstance(name, str) for name in key)
    kept = retention_ms is None or (
        isinstance(retention_ms, int) and 0 < retention_ms <= _LONGEST_MS
    )
    if not named or not kept:
        raise InvalidViewSchema(
            f'{view}: its schema must have names of columns as "key" and milliseconds or null as '
            '"retention_ms"; register the schema that the view\'s declaration gives.'
        )


def _check_key(view: str, key: tuple[str, ...], columns: tuple[TableColumn, ...]) -> None:
    if not key:
        raise InvalidViewSchema(
            f'{view}: its schema has no attribute "key" with the names of the key columns; '
            "register the schema that the view's declaration gives."
        )
    types = {column.name: column.type for column in columns}
    for name in key:
        if types.get(name, "Nullable").startswith("Nullable"):
            raise InvalidViewSchema(f"{view}: key column {name} must exist and never be null.")


def _has(columns: tuple[TableColumn, ...], name: str) -> bool:
    return any(column.name == name for column in columns)
