"""The decode of one event at a time, as Flink runs it for views that answer as events arrive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pyflink.table.udf import TableFunction

from schemas.streams import Stream
from udfs.decode_row import RowDecoder
from udfs.writer_schemas import WriterSchemas


@dataclass(frozen=True)
class ArrivalSpec:
    """What the function needs to know; pickled into the job.

    `columns` are the event's fields that it hands on, beside the event time.
    """

    stream: Stream
    columns: tuple[str, ...]
    registry_url: str


class DecodeArrival(TableFunction):
    """A Kafka value and its timestamp, epoch ms, in; out, if it is good, columns and timestamp."""

    def __init__(self, spec: ArrivalSpec) -> None:
        self.spec = spec

    def open(self, function_context: Any) -> None:
        """Connect to the registry."""
        spec = self.spec
        schemas = WriterSchemas(spec.registry_url)
        self._decoder = RowDecoder(spec.stream, schemas, spec.columns)

    def eval(self, value: bytes | None, timestamp: int) -> Iterator[tuple[Any, ...]]:
        """Yield the event as one row, or nothing where it is a dead letter."""
        event = self._decoder.decode(value, timestamp)
        if event is not None:
            yield (*(event[name] for name in self.spec.columns), timestamp)
