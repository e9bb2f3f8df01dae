"""Encode a view's rows as records of its topic. No I/O."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyruhvro

from schemas.framing import header
from udfs.panes import WINDOW, WindowedView


@dataclass(frozen=True)
class RowEncoder:
    """Encodes rows of one view version: topic, Avro schema and its id in the registry."""

    topic: str
    schema: str
    schema_id: int
    dimensions: tuple[str, ...]

    def encode(self, view: WindowedView, rows: pa.Table) -> Iterable[tuple[str, bytes, bytes]]:
        """Yield (topic, key, value) per row; the key is a JSON array of the view's key."""
        starts = rows[WINDOW]
        columns: dict[str, Any] = {name: rows[name] for name in self.dimensions}
        columns["window_start"] = starts.cast(pa.timestamp("ms"))
        ends = pc.add(starts, view.size)
        columns["window_end"] = ends.cast(pa.timestamp("ms"))
        columns |= {name: rows[name] for name, _ in view.measures}
        batch = pa.table(columns).combine_chunks().to_batches()[0]
        frame = header(self.schema_id)
        bodies = pyruhvro.serialize_record_batch(batch, self.schema, 1)[0].to_pylist()
        for key, body in zip(self._keys(rows), bodies, strict=True):
            yield self.topic, key, frame + body

    def _keys(self, rows: pa.Table) -> Iterable[bytes]:
        names = {start: iso(start) for start in set(rows[WINDOW].to_pylist())}
        starts = (names[start] for start in rows[WINDOW].to_pylist())
        dimensions = (rows[name].to_pylist() for name in self.dimensions)
        for key in zip(starts, *dimensions, strict=True):
            yield json.dumps(key, ensure_ascii=False, separators=(",", ":")).encode()


def iso(milliseconds: int) -> str:
    """Return epoch milliseconds as ISO 8601 UTC."""
    instant = datetime.fromtimestamp(milliseconds / 1000, UTC)
    text = instant.isoformat(timespec="milliseconds" if milliseconds % 1000 else "seconds")
    return text.replace("+00:00", "Z")
