"""How a view is declared: its key, its columns, its window and its measures. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from schemas.columns import Column, ColumnType
from schemas.streams import Stream
from udfs.measures import Measure


class InvalidView(ValueError):
    """A declaration that contradicts itself or its stream."""


@dataclass(frozen=True)
class Tumbling:
    """Windows of `size` that touch and do not overlap, aligned to the epoch."""

    size: timedelta

    @property
    def slide(self) -> timedelta:
        """Distance between two window starts."""
        return self.size


@dataclass(frozen=True)
class Sliding:
    """Windows of `size`, one starting each `slide`, aligned to the epoch."""

    size: timedelta
    slide: timedelta


Window = Tumbling | Sliding

WINDOW_START = Column("window_start", ColumnType.TIMESTAMP, doc="First instant of the window.")
WINDOW_END = Column("window_end", ColumnType.TIMESTAMP, doc="First instant after the window.")

SOURCE_FIELDS = ("source_partition", "source_offset")
"""Where in Kafka an event stands; every view may use these beside the stream's own fields."""


@dataclass(frozen=True)
class View:
    """A windowed aggregate over one stream, and all that its topics and tables derive from.

    `dimensions` are string fields of the stream that group its events; none means one row a
    window. `retention` is how long a row stays in ClickHouse past its window's end.
    """

    name: str
    stream: Stream
    dimensions: tuple[str, ...]
    window: Window
    measures: Mapping[str, Measure]
    description: str
    retention: timedelta | None = None

    def __post_init__(self) -> None:
        pane = self.stream.pane
        if self.window.size % pane or self.window.slide % pane:
            raise InvalidView(
                f"{self.name}: window {self.window} is no multiple of the pane of stream "
                f"{self.stream.name}, {pane}."
            )
        if self.window.size % self.window.slide:
            raise InvalidView(f"{self.name}: window size is no multiple of its slide.")
        known = {f["name"] for f in self.stream.schema["fields"]} | set(SOURCE_FIELDS)
        used = {m.field for m in self.measures.values() if m.field} | set(self.dimensions)
        if missing := sorted(used - known):
            raise InvalidView(f"{self.name}: stream {self.stream.name} has no field {missing}.")

    @property
    def columns(self) -> tuple[Column, ...]:
        """All columns, in the order people see them."""
        return (
            *(Column(name, ColumnType.STRING) for name in self.dimensions),
            WINDOW_START,
            WINDOW_END,
            *(Column(n, m.type, m.nullable, m.doc) for n, m in self.measures.items()),
        )

    @property
    def key(self) -> tuple[str, ...]:
        """Columns that identify a row; a new revision of a row has the same key."""
        return (WINDOW_START.name, *self.dimensions)

    def topic(self, version: int) -> str:
        """Kafka topic with the revisions of the view's rows at `version`."""
        return self.stream.prefixed(f"views.{self.name}.v{version}")

    def subject(self, version: int) -> str:
        """Registry subject of the view topic's values."""
        return f"{self.topic(version)}-value"

    def table(self, version: int) -> str:
        """ClickHouse table with the rows at `version`."""
        return f"{self.name}_v{version}"

    @property
    def avro_schema(self) -> dict[str, Any]:
        """Avro schema of one row of the view's topic.

        `key` and `retention_ms` are attributes of our own: with them a topic's schema says all
        that its table needs, also for versions whose declaration is no longer in the code.
        """
        retention = self.retention
        return {
            "type": "record",
            "name": self.name,
            "namespace": "kappa.views",
            "doc": self.description,
            "key": list(self.key),
            "retention_ms": None if retention is None else retention // timedelta(milliseconds=1),
            "fields": [_avro_field(column) for column in self.columns],
        }


_AVRO_TYPES: dict[ColumnType, Any] = {
    ColumnType.STRING: "string",
    ColumnType.LONG: "long",
    ColumnType.DOUBLE: "double",
    ColumnType.BOOLEAN: "boolean",
    ColumnType.TIMESTAMP: {"type": "long", "logicalType": "timestamp-millis"},
}


def _avro_field(column: Column) -> dict[str, Any]:
    avro_type = _AVRO_TYPES[column.type]
    field: dict[str, Any] = {"name": column.name, "type": avro_type}
    if column.nullable:
        field |= {"type": ["null", avro_type], "default": None}
    return field | ({"doc": column.doc} if column.doc else {})


@dataclass(frozen=True)
class Job:
    """One Flink job: the views it writes, all over the same stream."""

    name: str
    stream: Stream
    views: tuple[View, ...]

    def within(self, namespace: str) -> Job:
        """Return the same job over the topics of `namespace`."""
        stream = replace(self.stream, namespace=namespace)
        views = tuple(replace(view, stream=stream) for view in self.views)
        return Job(stream.prefixed(self.name), stream, views)
