"""Page views of other widths: of four fields, or of the usual ones and forty more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from bench.streams import with_schema
from bench.ten_seconds import STREAM
from schemas.streams import Length, Range

TEXTS, NUMBERS = 20, 20

NARROW = with_schema(
    STREAM,
    "narrow_page_views.avsc",
    required=("user_id", "page_id"),
    rules=(Length("user_id", 1, 256), Length("page_id", 1, 2048), Range("duration_ms", minimum=0)),
)
WIDE = with_schema(STREAM, "wide_page_views.avsc")


def widened(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the batches with the fields that only the wide schema has; seeded by their number."""
    for number, batch in enumerate(batches):
        chance = np.random.default_rng(number)
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        for place in range(TEXTS):
            picked = pa.array(chance.integers(0, len(_TEXTS), len(batch)))
            columns[f"text_{place:02}"] = _TEXTS.take(picked)
        for place in range(NUMBERS):
            columns[f"number_{place:02}"] = pa.array(chance.integers(0, 1 << 40, len(batch)))
        yield pa.RecordBatch.from_pydict(columns)


_TEXTS = pa.array(
    [f"{word}-{number:04}" * 2 for word in ("alpha", "gamma") for number in range(64)]
)
