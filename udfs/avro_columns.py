"""Resolve a writer's Avro columns to the reader's schema: aliases, promotions, defaults."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_PRIMITIVES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "bytes": pa.binary(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
}
_LOGICAL: dict[str, pa.DataType] = {
    "timestamp-millis": pa.timestamp("ms"),
    "timestamp-micros": pa.timestamp("us"),
    "date": pa.date32(),
}
_WIDEST = {pa.int32(): pa.int64(), pa.float32(): pa.float64()}
_MISSING = object()


class UnresolvableSchema(ValueError):
    """A writer's schema that the reader's can't be resolved from."""


class UnresolvableValue(ValueError):
    """Values of a column that the reader's type has no place for; others may be as they should.

    `bad` tells which, where that is known.
    """

    def __init__(self, message: str, bad: npt.NDArray[np.bool_] | None) -> None:
        super().__init__(message)
        self.bad = bad


def reader_type(avro_field: dict[str, Any]) -> pa.DataType:
    """Return the Arrow type of a field of the reader's schema."""
    avro_type = avro_field["type"]
    if isinstance(avro_type, list):
        avro_type = next((branch for branch in avro_type if branch != "null"), "null")
    if isinstance(avro_type, dict):
        logical = _LOGICAL.get(avro_type.get("logicalType", ""))
        if logical is not None:
            return logical
        if avro_type["type"] == "array":
            return pa.list_(reader_type({"type": avro_type["items"]}))
        if avro_type["type"] == "enum":
            return pa.string()
        avro_type = avro_type["type"]
    if avro_type not in _PRIMITIVES:
        raise UnresolvableSchema(f"type {avro_type} of field {avro_field.get('name')} is not read.")
    return _PRIMITIVES[avro_type]


def wide_type(avro_field: dict[str, Any]) -> pa.DataType:
    """Return the Arrow type of a field's values where numbers are held as widely as there is."""
    kind = reader_type(avro_field)
    return _WIDEST.get(kind, kind)


def column_of(batch: pa.RecordBatch, avro_field: dict[str, Any]) -> pa.Array:
    """Return the column for a reader's field: the writer's, promoted, or the field's default."""
    wanted = reader_type(avro_field)
    for name in (avro_field["name"], *avro_field.get("aliases", ())):
        position = batch.schema.get_field_index(name)
        if position >= 0:
            return _promoted(batch.column(position), wanted, name)
    default = avro_field.get("default", _MISSING)
    if default is _MISSING:
        raise UnresolvableSchema(
            f"the writer has no field {avro_field['name']}, and it has no default."
        )
    return pa.repeat(pa.scalar(default, type=wanted), len(batch))


def _promoted(column: pa.Array, wanted: pa.DataType, name: str) -> pa.Array:
    if column.type == wanted:
        return column
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    # Avro reads any whole number as the nearest that there is.
    rounds = pa.types.is_integer(column.type) and pa.types.is_floating(wanted)
    try:
        return pc.cast(column, wanted, safe=not rounds)
    except pa.ArrowNotImplementedError as error:
        raise UnresolvableSchema(f"field {name}: {error}") from error
    except pa.ArrowInvalid as error:
        raise UnresolvableValue(f"field {name}: {error}", _changed(column, wanted)) from error


def _changed(column: pa.Array, wanted: pa.DataType) -> npt.NDArray[np.bool_] | None:
    """Tell which values are others once they were of the type `wanted`; None where none can be."""
    try:
        back = pc.cast(pc.cast(column, wanted, safe=False), column.type, safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    changed = pc.fill_null(pc.not_equal(column, back), False).to_numpy(zero_copy_only=False)
    return changed if changed.any() else None
