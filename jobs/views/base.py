"""What every view declares. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self

from schemas.columns import Column, ColumnType
from schemas.streams import Stream


class InvalidView(ValueError):
    """A declaration that contradicts itself or its stream."""


def view_topic(name: str, version: int) -> str:
    """Return the topic of the rows of the view called `name`, without its namespace's prefix."""
    return f"views.{name}.v{version}"


@dataclass(frozen=True, kw_only=True)
class View:
    """What every view declares, and all that its topics and tables derive from it.

    `retention` is how long a row stays in ClickHouse past its window's end.
    """

    name: str
    description: str
    retention: timedelta | None = None

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The streams whose events the view is made of."""
        raise NotImplementedError

    @property
    def columns(self) -> tuple[Column, ...]:
        """All columns, in the order people see them."""
        raise NotImplementedError

    @property
    def key(self) -> tuple[str, ...]:
        """Columns that identify a row; a new revision of a row has the same key."""
        raise NotImplementedError

    @property
    def layout(self) -> str:
        """What the view computes, as text; a job's state fits only the same."""
        raise NotImplementedError

    @property
    def time_columns(self) -> tuple[str, str] | None:
        """Columns with the first and last instant of a row, where it has such."""
        raise NotImplementedError

    @property
    def settled_after(self) -> timedelta:
        """How much later than a row's last instant events may still change it."""
        return timedelta(0)

    @property
    def looks_back(self) -> timedelta:
        """How much earlier than a row's first instant events may have a part in it."""
        return timedelta(0)

    @property
    def grows(self) -> tuple[str, ...]:
        """Columns that events more never lessen, where rows have no time of their own."""
        return ()

    @property
    def falls(self) -> tuple[str, ...]:
        """Columns that events more never raise, where rows have no time of their own."""
        return ()

    def over(self, streams: Mapping[str, Stream]) -> Self:
        """Return the same view over other streams of the same names."""
        raise NotImplementedError

    def _refuse_unknown(self, stream: Stream, used: set[str]) -> None:
        """Raise `InvalidView` where `used` names a field that `stream` has not."""
        if missing := sorted(used - field_types(stream).keys()):
            raise InvalidView(f"{self.name}: stream {stream.name} has no field {missing}.")

    def topic(self, version: int) -> str:
        """Kafka topic with the revisions of the view's rows at `version`."""
        return self.streams[0].prefixed(view_topic(self.name, version))

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


def field_types(stream: Stream) -> dict[str, Any]:
    """Return the Avro types of a stream's fields."""
    return {one["name"]: one["type"] for one in stream.schema["fields"]}


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
