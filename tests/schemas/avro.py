"""Read framed values back, with fastavro and plain numbers for times."""

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
