"""The decode of one event at a time, as Flink runs it for views that answer as events arrive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyflink.common import Row
from pyflink.table.udf import ScalarFunction

from schemas.streams import Stream
from udfs.avro_columns import reader_type
from udfs.decode_row import RowDecoder
from udfs.writer_schemas import WriterSchemas


@dataclass(frozen=True)
class ArrivalSpec:
    """What the function needs to know; pickled into the job.

    `columns` are the event's fields that it hands on.
    """

    stream: Stream
    columns: tuple[str, ...]
    registry_url: str


class DecodeArrival(ScalarFunction):
    """A Kafka value and its timestamp, epoch ms, in; out whether it is good, and its columns.

    A table function, which could leave a dead letter out, costs an iterator and an exception more.
    """

    def __init__(self, spec: ArrivalSpec) -> None:
        self.spec = spec

    def is_deterministic(self) -> bool:
        """Return False, though it is, lest the planner call it again for each field it reads."""
        return False

    def open(self, function_context: Any) -> None:
        """Connect to the registry."""
        spec = self.spec
        schemas = WriterSchemas(spec.registry_url)
        self._decoder = RowDecoder(spec.stream, schemas, spec.columns)
        by_name = {field["name"]: field for field in spec.stream.schema["fields"]}
        # In the JVM's thread neither a row nor a list may be null.
        kinds = (reader_type(by_name[name]) for name in spec.columns)
        self._nothing = Row(False, *(() if pa.types.is_list(kind) else None for kind in kinds))

    def eval(self, value: bytes | None, timestamp: int) -> Row:
        """Return True and the event's columns, or False and nulls where it is a dead letter."""
        event = self._decoder.decode(value, timestamp)
        if event is None:
            return self._nothing
        return Row(True, *map(event.__getitem__, self.spec.columns))
