"""Write the rows of an answer as JSON, CSV or Arrow. No I/O."""

from __future__ import annotations

import io
import math
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.csv

MEDIA_TYPES = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "arrow": "application/vnd.apache.arrow.stream",
}


def readable(rows: pa.Table) -> pa.Table:
    """Return `rows` with text that is not UTF-8 written as `0x` and hexadecimal digits.

    Dead letters and late events hold the bytes of events as they came.
    """
    for place, field in enumerate(rows.schema):
        column = rows.column(place)
        if pa.types.is_binary(field.type) or (pa.types.is_string(field.type) and _broken(column)):
            values = [_as_text(value) for value in column.cast(pa.binary()).to_pylist()]
            rows = rows.set_column(place, field.name, pa.array(values, pa.string()))
    return rows


def as_bytes(rows: pa.Table) -> pa.Table:
    """Return `rows` with text as the bytes it came in."""
    for place, field in enumerate(rows.schema):
        if pa.types.is_string(field.type):
            rows = rows.set_column(place, field.name, rows.column(place).cast(pa.binary()))
    return rows


def _broken(column: Any) -> bool:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return True
    return False


def _as_text(value: bytes | None) -> str | None:
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return f"0x{value.hex()}"


def json_rows(rows: pa.Table) -> list[dict[str, Any]]:
    """Return `rows` as JSON has them: instants in ISO 8601 UTC, what is no number as null."""
    return [{name: json_value(value) for name, value in row.items()} for row in rows.to_pylist()]


def json_value(value: Any) -> Any:
    """Return one value in a form that JSON has."""
    if isinstance(value, datetime):
        utc = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return utc.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def csv_bytes(rows: pa.Table) -> bytes:
    """Return `rows` as CSV with a header."""
    sink = io.BytesIO()
    pyarrow.csv.write_csv(rows, sink)
    return sink.getvalue()


def arrow_bytes(rows: pa.Table) -> bytes:
    """Return `rows` as an Arrow IPC stream."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_table(rows)
    return sink.getvalue()
