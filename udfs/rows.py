"""Encode a view's rows as records of its topic. No I/O."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc
import pyruhvro

from schemas.framing import header
from udfs.panes import WINDOW, WindowedView

_TIME = pa.timestamp("ms")


@dataclass(frozen=True)
class RowEncoder:
    """Encodes rows of one view version: topic, Avro schema and its id in the registry."""

    topic: str
    schema: str
    schema_id: int
    key: tuple[str, ...]

    def encode(self, rows: pa.Table) -> Iterable[tuple[str, bytes, bytes]]:
        """Yield (topic, key, value) per row; the key is a JSON array of the view's key."""
        batch = rows.combine_chunks().to_batches()[0]
        frame = header(self.schema_id)
        bodies = pyruhvro.serialize_record_batch(batch, self.schema, 1)[0].to_pylist()
        for key, body in zip(self._keys(rows), bodies, strict=True):
            yield self.topic, key, frame + body

    def _keys(self, rows: pa.Table) -> Iterable[bytes]:
        for key in zip(*(_in_json(rows[name]) for name in self.key), strict=True):
            yield json.dumps(key, ensure_ascii=False, separators=(",", ":")).encode()


def window_columns(view: WindowedView, rows: pa.Table) -> pa.Table:
    """Return the columns of a windowed view, given rows as `PaneStore.rows` has them."""
    measures = [name for name, _ in view.measures]
    starts = rows[WINDOW]
    times = (starts, pc.add(starts, view.size))
    return pa.table(
        {name: rows[name] for name in rows.column_names if name not in (WINDOW, *measures)}
        | dict(zip(("window_start", "window_end"), (t.cast(_TIME) for t in times), strict=True))
        | {name: rows[name] for name in measures}
    )


def _in_json(column: pa.ChunkedArray) -> list[str]:
    if column.type != _TIME:
        return list(column.to_pylist())
    instants = column.cast(pa.int64()).to_pylist()
    names = {instant: iso(instant) for instant in set(instants)}
    return [names[instant] for instant in instants]


def iso(milliseconds: int) -> str:
    """Return epoch milliseconds as ISO 8601 UTC."""
    instant = datetime.fromtimestamp(milliseconds / 1000, UTC)
    text = instant.isoformat(timespec="milliseconds" if milliseconds % 1000 else "seconds")
    return text.replace("+00:00", "Z")
