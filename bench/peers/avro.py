"""Avro as the peers in Python read it: no further than the fields in use; batches through Arrow."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

HEADER_BYTES = 5


def leading(schema: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return `schema` up to the last of the fields `names`; times are plain numbers.

    A reader leaves alone what follows in a value, as it was not asked for.
    """
    fields = [{"name": field["name"], "type": _plain(field["type"])} for field in schema["fields"]]
    last = max(place for place, field in enumerate(fields) if field["name"] in set(names))
    return {"type": "record", "name": schema["name"], "fields": fields[: last + 1]}


def _plain(kind: Any) -> Any:
    if isinstance(kind, list):
        return [_plain(one) for one in kind]
    return kind["type"] if isinstance(kind, dict) and "logicalType" in kind else kind


def batch_reader(
    schema: Mapping[str, Any], names: Sequence[str]
) -> Callable[[Iterable[bytes]], pa.RecordBatch]:
    """Return what decodes framed values to a batch of the columns `names`."""
    import pyruhvro

    read = json.dumps(leading(schema, names))

    def decode(values: Iterable[bytes]) -> pa.RecordBatch:
        bodies = [value[HEADER_BYTES:] for value in values]
        return pyruhvro.deserialize_array(bodies, read).select(list(names))

    return decode


def tuples(batch: pa.RecordBatch) -> Iterable[tuple[Any, ...]]:
    """Return the rows of a batch."""
    return zip(*map(_listed, batch.columns), strict=True)


def _listed(column: pa.Array) -> list[Any]:
    # NumPy is ten times as fast, but makes nulls of numbers into floats.
    if column.null_count:
        return list(column.to_pylist())
    listed: list[Any] = column.to_numpy(zero_copy_only=False).tolist()
    return listed
