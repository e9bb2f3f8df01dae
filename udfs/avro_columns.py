"""Resolve a writer's Avro columns to the reader's schema: aliases, promotions, defaults."""

from __future__ import annotations

from typing import Any

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


def reader_type(avro_field: dict[str, Any]) -> pa.DataType:
    """Return the Arrow type of a field of the reader's schema."""
    avro_type = avro_field["type"]
    if isinstance(avro_type, list):
        avro_type = next(branch for branch in avro_type if branch != "null")
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


def has_weightless_items(schema: Any) -> bool:
    """Tell whether `schema` has an array whose items take no bytes.

    A value of a few bytes may then declare billions of items and keep its reader busy for ever.
    """
    parts = schema if isinstance(schema, list) else [schema]
    for part in filter(lambda part: isinstance(part, dict), parts):
        if part["type"] == "array" and _weightless(part["items"]):
            return True
        inner = [part["type"], part.get("items", "null"), part.get("values", "null")]
        inner += [field["type"] for field in part.get("fields", ())]
        if any(has_weightless_items(one) for one in inner):
            return True
    return False


def _weightless(schema: Any) -> bool:
    if not isinstance(schema, dict):
        return bool(schema == "null")
    if schema["type"] == "fixed":
        return bool(schema["size"] == 0)
    if schema["type"] == "record":
        return all(_weightless(field["type"]) for field in schema["fields"])
    return _weightless(schema["type"])


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
    try:
        return pc.cast(column, wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UnresolvableSchema(f"field {name}: {error}") from error
