"""Decode one Kafka value at a time, by the same rules as a batch. No I/O of its own.

A batch of one costs the vectorised decoder as much as one of a thousand. Where an answer is due
within milliseconds batches are that small, and a plain reader is many times faster.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from schemas.framing import HEADER_BYTES, MAGIC
from schemas.streams import OneOf, Range, Rule, Stream
from udfs.avro_columns import UnresolvableSchema
from udfs.avro_rows import Event, checked, read_strictly
from udfs.decode import Decoder, SchemaOf, needed_fields

_PRIMITIVES = frozenset({"string", "bytes", "int", "long", "float", "double", "boolean"})
_LEAST, _GREATEST = -(1 << 31), (1 << 31) - 1


@dataclass(frozen=True)
class _Reader:
    """The schema that a plain reader reads with, and the fields that are ints and never null.

    It reads these like longs; where one may be null it refuses those of more than 32 bits itself.
    """

    schema: Any
    ints: tuple[str, ...]


class RowDecoder:
    """Decodes the values of one stream, keeping at least the fields named in `fields`."""

    def __init__(self, stream: Stream, schema_of: SchemaOf, fields: tuple[str, ...]) -> None:
        self._stream, self._schema_of = stream, schema_of
        self._fields = needed_fields(stream, set(fields))
        self._batch = Decoder(stream, schema_of, self._fields)
        self._faults = [(rule.field, _fault(rule)) for rule in stream.rules]
        self._readers: dict[int, _Reader | None] = {}

    def decode(self, value: bytes | None, timestamp: int) -> Event | None:
        """Return the good event in `value`, written at `timestamp` (epoch ms), or None.

        Its event time is in epoch milliseconds.
        """
        if value is None or not HEADER_BYTES <= len(value) <= self._stream.max_event_bytes:
            return None
        if value[0] != MAGIC:
            return None
        schema_id = int.from_bytes(value[1:HEADER_BYTES], "big")
        if schema_id not in self._readers:
            schema = self._schema_of(schema_id)
            if schema is None:
                return None
            self._readers[schema_id] = self._reader(schema)
        reader = self._readers[schema_id]
        if reader is None:
            return self._resolved(value, timestamp)
        event = read_strictly(value[HEADER_BYTES:], reader.schema)
        if event is None or any(not _LEAST <= event[name] <= _GREATEST for name in reader.ints):
            return self._resolved(value, timestamp)
        return event if self._is_good(event, timestamp) else None

    def _reader(self, writer: dict[str, Any]) -> _Reader | None:
        """Return how a plain reader gives the same as the batch's, or None where it does not.

        What has to be resolved to the stream's own schema stays the batch's business.
        """
        try:
            reader = checked(writer).written
        except UnresolvableSchema:
            return None
        written = {field["name"]: field["type"] for field in writer["fields"]}
        own = {field["name"]: field["type"] for field in self._stream.schema["fields"]}
        for name in self._fields:
            if name == self._stream.event_time_field:
                # Its logical type says which unit it has.
                if written.get(name) != own[name]:
                    return None
            elif not _is_simple(own[name]) or _bare(written.get(name)) != own[name]:
                return None
        ints = (name for name, one in written.items() if _bare(one) == "int")
        return _Reader(reader, tuple(ints))

    def _resolved(self, value: bytes, timestamp: int) -> Event | None:
        values = np.empty(1, dtype=object)
        values[0] = value
        events = self._batch.decode(values, np.array([timestamp])).events.to_pylist()
        return events[0] | {self._stream.event_time_field: timestamp} if events else None

    def _is_good(self, event: Event, timestamp: int) -> bool:
        if event[self._stream.event_time_field] != timestamp:
            return False
        if any(event[name] is None for name in self._stream.required):
            return False
        for name, is_bad in self._faults:
            found = event[name]
            if found is not None and is_bad(found):
                return False
        return True


def _bare(avro_type: Any) -> Any:
    """Return a primitive type without what its writer says of it, as Java's of its class."""
    if isinstance(avro_type, list):
        return [_bare(branch) for branch in avro_type]
    if isinstance(avro_type, dict) and not avro_type.keys() - {"type", "avro.java.string"}:
        return avro_type["type"]
    return avro_type


def _is_simple(avro_type: Any) -> bool:
    branches = avro_type if isinstance(avro_type, list) else [avro_type]
    return all(isinstance(b, str) and b in _PRIMITIVES | {"null"} for b in branches)


def _fault(rule: Rule) -> Callable[[Any], bool]:
    if isinstance(rule, Range):
        low = -math.inf if rule.minimum is None else rule.minimum
        high = math.inf if rule.maximum is None else rule.maximum
        return lambda found: not (low <= found <= high and math.isfinite(found))
    if isinstance(rule, OneOf):
        return lambda found: found not in rule.values
    least, most = rule.minimum, rule.maximum
    return lambda found: not least <= _size(found) <= most


def _size(found: str | bytes) -> int:
    return len(found.encode() if isinstance(found, str) else found)
