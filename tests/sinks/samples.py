"""Small views, and records as a job writes them."""

from __future__ import annotations

import io
from typing import Any

import fastavro
from confluent_kafka import Message

from schemas.framing import frame

_TIME = {"type": "long", "logicalType": "timestamp-millis"}

COUNTS: dict[str, Any] = {
    "type": "record",
    "name": "counts",
    "namespace": "kappa.views",
    "doc": "Views of each page.",
    "key": ["window_start", "page"],
    "retention_ms": None,
    "fields": [
        {"name": "page", "type": "string", "doc": "Address of the page."},
        {"name": "window_start", "type": _TIME},
        {"name": "views", "type": "long"},
    ],
}
WIDER: dict[str, Any] = {
    **COUNTS,
    "fields": [*COUNTS["fields"], {"name": "bots", "type": ["null", "long"], "default": None}],
}


def body(row: dict[str, Any], schema: dict[str, Any]) -> bytes:
    """Return `row` as an Avro body; times are epoch milliseconds."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), row)
    return out.getvalue()


def record(
    row: dict[str, Any],
    *,
    schema: dict[str, Any] = COUNTS,
    schema_id: int = 1,
    partition: int = 0,
    offset: int = 0,
) -> Message:
    """Return `row` as a record of a view topic, emitted a second after 2024-05-01 began."""
    return Message(
        topic="views.counts.v1",
        partition=partition,
        offset=offset,
        value=frame(schema_id, body(row, schema)),
        timestamp=(1, 1714521601000),
    )
