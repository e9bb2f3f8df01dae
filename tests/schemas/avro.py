"""Read framed values back, with plain numbers for times, and write numbers by hand."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import fastavro

from schemas.framing import split
from schemas.streams import PAGE_VIEWS
from schemas.values import epoch_ms


def decoded(value: bytes | None) -> dict[str, Any]:
    """Return the page view in `value`."""
    _, body = split(value)
    event: Any = fastavro.schemaless_reader(BytesIO(body), PAGE_VIEWS.schema, None)
    return {**event, "event_time": epoch_ms(event["event_time"])}


def varint(number: int) -> bytes:
    """Return `number` as Avro writes a long: zigzag, seven bits a byte, least first."""
    rest = number * 2 if number >= 0 else -number * 2 - 1
    out = bytearray()
    while rest > 127:
        out.append(rest & 127 | 128)
        rest >>= 7
    return bytes([*out, rest])
