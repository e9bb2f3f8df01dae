"""Interval joins of two streams. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import Enum
from typing import Self

import pyarrow as pa

from jobs.views.base import InvalidView, View, field_types
from schemas.columns import Column, ColumnType
from schemas.streams import Stream
from udfs.avro_columns import reader_type
from udfs.joins import LEFT, RIGHT, Apart, JoinValue


class Keeps(Enum):
    """What a view writes of a join: its pairs, or the events of one side that find no partner."""

    PAIRS = None
    LEFT_ALONE = LEFT
    RIGHT_ALONE = RIGHT


@dataclass(frozen=True, kw_only=True)
class JoinView(View):
    """An interval join: events of two streams with the same `on`, a text, little apart in time.

    A right event matches a left one if it is no more than `before` ahead of it and no more than
    `after` behind. `left_where` are values of fields that a left event must have to count.
    `values` are the view's columns by name. The row of a pair comes with the later of its events,
    however far time has come; that of an event left alone once no partner can come in time, and
    its state ends then too.
    """

    left: Stream
    right: Stream
    on: str
    before: timedelta
    after: timedelta
    key_columns: tuple[str, ...]
    values: Mapping[str, JoinValue]
    instants: tuple[str, str]
    left_where: Mapping[str, str] = field(default_factory=dict)
    keeps: Keeps = Keeps.PAIRS

    def __post_init__(self) -> None:
        for side, used in zip(self.streams, self.used_fields, strict=True):
            self._refuse_unknown(side, used)
        columns = {column.name: column for column in self.columns}
        if missing := sorted({*self.key_columns, *self.instants} - columns.keys()):
            raise InvalidView(f"{self.name}: {missing} is none of its columns.")
        if not self.key_columns or any(columns[name].nullable for name in self.key_columns):
            raise InvalidView(f"{self.name}: a view needs a key that is never null.")
        if min(self.before, self.after) < timedelta(0):
            raise InvalidView(f"{self.name}: before and after are no less than zero.")
        if any(field_types(side)[self.on] != "string" for side in self.streams):
            raise InvalidView(f"{self.name}: {self.on} must be a text that is never null.")
        sides = {None if isinstance(v, Apart) else v.side for v in self.values.values()}
        if self.keeps is not Keeps.PAIRS and sides != {self.keeps.value}:
            raise InvalidView(f"{self.name}: an event left alone has no values of the other side.")

    @property
    def kept_fields(self) -> tuple[set[str], set[str]]:
        """The fields of left and of right events that are columns."""
        named = [v for v in self.values.values() if not isinstance(v, Apart)]
        left, right = ({v.field for v in named if v.side == side} for side in (LEFT, RIGHT))
        return left, right

    @property
    def used_fields(self) -> tuple[set[str], set[str]]:
        """The fields of left and of right events that the view looks at."""
        left, right = self.kept_fields
        return left | {self.on, *self.left_where}, right | {self.on}

    @property
    def streams(self) -> tuple[Stream, Stream]:
        """Left and right."""
        return self.left, self.right

    @property
    def columns(self) -> tuple[Column, ...]:
        """The values."""
        return tuple(self._column(name, value) for name, value in self.values.items())

    def _column(self, name: str, value: JoinValue) -> Column:
        if isinstance(value, Apart):
            return Column(name, ColumnType.LONG, doc=value.doc)
        fields = {one["name"]: one for one in self.streams[value.side].schema["fields"]}
        found = fields[value.field]
        kind = _COLUMN_TYPES.get(reader_type(found))
        if kind is None:
            raise InvalidView(f"{self.name}: {value.field} has a type that no column has.")
        nullable = isinstance(found["type"], list)
        return Column(name, kind, nullable, value.doc or found.get("doc", ""))

    @property
    def key(self) -> tuple[str, ...]:
        """The declared key."""
        return self.key_columns

    @property
    def layout(self) -> str:
        """Both streams, what matches and what is kept, as text."""
        return (
            f"{self.left.name} {self.right.name} {self.on} {self.before} {self.after} "
            f"{dict(self.left_where)} {self.keeps.name} {dict(self.values)}"
        )

    @property
    def time_columns(self) -> tuple[str, str]:
        """Names of the instants."""
        return self.instants

    @property
    def settled_after(self) -> timedelta:
        """The wider side of the interval, in whole panes: a partner may come so much later."""
        pane = max(side.pane for side in self.streams)
        return -(-max(self.before, self.after) // pane) * pane

    def over(self, streams: Mapping[str, Stream]) -> Self:
        """Return the same view over other streams of the same names."""
        return replace(self, left=streams[self.left.name], right=streams[self.right.name])


_COLUMN_TYPES = {
    pa.string(): ColumnType.STRING,
    pa.int32(): ColumnType.LONG,
    pa.int64(): ColumnType.LONG,
    pa.float32(): ColumnType.DOUBLE,
    pa.float64(): ColumnType.DOUBLE,
    pa.bool_(): ColumnType.BOOLEAN,
    pa.timestamp("ms"): ColumnType.TIMESTAMP,
}
