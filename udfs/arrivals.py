"""The decode of one event at a time, as Flink runs it for views that answer as events arrive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pyflink.common import Row
from pyflink.table.udf import ScalarFunction

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


class DecodeArrival(ScalarFunction):
    """A Kafka value and its timestamp, epoch ms, in; out, if it is good, a row of the columns.

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

    def eval(self, value: bytes | None, timestamp: int) -> Row | None:
        """Return the event, or None where it is a dead letter."""
        event = self._decoder.decode(value, timestamp)
        return None if event is None else Row(*map(event.__getitem__, self.spec.columns))
