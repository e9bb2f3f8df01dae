"""Encode whole Arrow batches as framed Avro, many times faster than event by event. No I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyruhvro

from schemas.streams import Stream


class InvalidBatch(ValueError):
    """A batch whose columns are not those of its stream's schema."""


@dataclass(frozen=True)
class Records:
    """What goes to Kafka, by row: framed values, keys, and times as epoch milliseconds."""

    values: list[bytes]
    keys: list[bytes]
    timestamps: list[int]


class BatchEncoder:
    """Encodes batches of one stream with one schema; `header` precedes each value."""

    def __init__(self, stream: Stream, schema: Mapping[str, Any], header: bytes) -> None:
        self._stream = stream
        self._schema_json = json.dumps(schema)
        self._arrow_schema = pyruhvro.avro_to_arrow_schema(self._schema_json)
        self._header = pa.scalar(header, pa.binary())

    def encode(self, batch: pa.RecordBatch) -> Records:
        """Return the records of `batch`, which has a column for each field of the schema.

        The event time is a timestamp column, of which what is finer than milliseconds is cut off,
        or integers of epoch milliseconds. Raises `InvalidBatch`.
        """
        conformed = self._conform(batch)
        (bodies,) = pyruhvro.serialize_record_batch(conformed, self._schema_json, 1)
        framed = pc.binary_join_element_wise(self._header, bodies, pa.scalar(b"", pa.binary()))
        times = conformed.column(self._stream.event_time_field).cast(pa.int64())
        keys = conformed.column(self._stream.key_field).cast(pa.binary())
        return Records(framed.to_pylist(), keys.to_pylist(), times.to_pylist())

    def _conform(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        wanted: pa.Schema = self._arrow_schema
        if missing := sorted(set(wanted.names) - set(batch.schema.names)):
            raise InvalidBatch(f"{self._stream.name}: the batch has no column {missing}.")
        columns = []
        for field in wanted:
            column = batch.column(field.name)
            if column.null_count and not field.nullable:
                raise InvalidBatch(f"{self._stream.name}: column {field.name!r} has nulls.")
            try:
                made = _cast(column, field.type)
            except pa.ArrowException as error:
                raise InvalidBatch(
                    f"{self._stream.name}: column {field.name!r} is no {field.type}: {error}."
                ) from error
            # They would be written as empty texts.
            if pa.types.is_list(made.type) and made.flatten().null_count:
                raise InvalidBatch(f"{self._stream.name}: lists of {field.name!r} have nulls.")
            columns.append(made)
        return pa.RecordBatch.from_arrays(columns, schema=wanted)


def _cast(column: pa.Array, wanted: pa.DataType) -> pa.Array:
    if pa.types.is_timestamp(column.type) and column.type.tz is not None:
        # The instant stays; the schema's Arrow form has no zone.
        column = column.cast(pa.timestamp(column.type.unit, "UTC"))
    if column.type == wanted:
        return column
    is_time = pa.types.is_timestamp(column.type) and pa.types.is_timestamp(wanted)
    return column.cast(wanted, safe=not is_time)
