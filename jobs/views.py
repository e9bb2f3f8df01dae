"""How a view is declared: as a windowed aggregate, as sessions or in SQL. No I/O."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import Enum
from typing import Any, Self

import pyarrow as pa

from schemas.columns import Column, ColumnType
from schemas.streams import Stream
from udfs.avro_columns import reader_type
from udfs.joins import LEFT, RIGHT, Apart, JoinValue
from udfs.measures import First, Last, Measure, SessionMeasure
from udfs.sessions import SESSION_END, SESSION_START


class InvalidView(ValueError):
    """A declaration that contradicts itself or its stream."""


class SeveralStreams(ValueError):
    """A job that reads several streams, where only one can be handled."""


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

    def over(self, streams: Mapping[str, Stream]) -> Self:
        """Return the same view over other streams of the same names."""
        raise NotImplementedError

    def _refuse_unknown(self, stream: Stream, used: set[str]) -> None:
        """Raise `InvalidView` where `used` names a field that `stream` has not."""
        if missing := sorted(used - _types(stream).keys()):
            raise InvalidView(f"{self.name}: stream {stream.name} has no field {missing}.")

    def topic(self, version: int) -> str:
        """Kafka topic with the revisions of the view's rows at `version`."""
        return self.streams[0].prefixed(f"views.{self.name}.v{version}")

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


@dataclass(frozen=True, kw_only=True)
class FoldedView(View):
    """A view over one stream whose events are folded in Arrow, before they are rows of Flink's.

    `dimensions` are string fields of the stream that group its events.
    """

    stream: Stream
    dimensions: tuple[str, ...]
    measures: Mapping[str, Measure | SessionMeasure]

    @property
    def instants(self) -> tuple[Column, Column]:
        """The columns with the first and last instant of a row."""
        raise NotImplementedError

    @property
    def used_fields(self) -> set[str]:
        """The fields of an event that the view looks at."""
        return {m.field for m in self.measures.values() if m.field} | set(self.dimensions)

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The one stream."""
        return (self.stream,)

    @property
    def dimension_columns(self) -> tuple[Column, ...]:
        """A column of text for each dimension."""
        docs = {field["name"]: field.get("doc", "") for field in self.stream.schema["fields"]}
        return tuple(Column(n, ColumnType.STRING, doc=docs.get(n, "")) for n in self.dimensions)

    @property
    def columns(self) -> tuple[Column, ...]:
        """Dimensions, instants and measures."""
        return (
            *self.dimension_columns,
            *self.instants,
            *(Column(n, m.type, m.nullable, m.doc) for n, m in self.measures.items()),
        )

    @property
    def time_columns(self) -> tuple[str, str]:
        """Names of the instants."""
        first, last = self.instants
        return first.name, last.name

    def over(self, streams: Mapping[str, Stream]) -> Self:
        """Return the same view over another stream of the same name."""
        return replace(self, stream=streams[self.stream.name])

    def _refuse_unknown_fields(self, more: Iterable[str] = ()) -> None:
        self._refuse_unknown(self.stream, self.used_fields - {*more})


@dataclass(frozen=True, kw_only=True)
class WindowView(FoldedView):
    """A windowed aggregate, kept in panes; without dimensions it has one row a window."""

    window: Window
    measures: Mapping[str, Measure]

    def __post_init__(self) -> None:
        pane = self.stream.pane
        if self.window.size % pane or self.window.slide % pane:
            raise InvalidView(
                f"{self.name}: window {self.window} is no multiple of the pane of stream "
                f"{self.stream.name}, {pane}."
            )
        if self.window.size % self.window.slide:
            raise InvalidView(f"{self.name}: window size is no multiple of its slide.")
        self._refuse_unknown_fields(SOURCE_FIELDS)

    @property
    def instants(self) -> tuple[Column, Column]:
        """Start and end of the window."""
        return WINDOW_START, WINDOW_END

    @property
    def key(self) -> tuple[str, ...]:
        """The window and the dimensions."""
        return (WINDOW_START.name, *self.dimensions)

    @property
    def layout(self) -> str:
        """Dimensions, window and measures, as text."""
        return f"{self.dimensions} {self.window} {dict(self.measures)}"


@dataclass(frozen=True, kw_only=True)
class SessionView(FoldedView):
    """Sessions: the events of the same dimensions with no pause longer than `gap`.

    A row comes once no event in time can belong to the session any more, and stays as it is; its
    state ends then too.
    """

    gap: timedelta
    measures: Mapping[str, SessionMeasure]

    def __post_init__(self) -> None:
        self._refuse_unknown_fields()
        types = _types(self.stream)
        for name, measure in self.measures.items():
            if isinstance(measure, First | Last) and types[measure.field] != "string":
                raise InvalidView(f"{self.name}: {name} takes text that is never null.")
        if not self.dimensions:
            raise InvalidView(f"{self.name}: a session is somebody's; name dimensions.")
        if self.gap <= timedelta(0):
            raise InvalidView(f"{self.name}: a gap of {self.gap} keeps no events together.")

    @property
    def instants(self) -> tuple[Column, Column]:
        """Instants of the session's first and last event."""
        return SESSION_START, SESSION_END

    @property
    def key(self) -> tuple[str, ...]:
        """The dimensions and the first instant."""
        return (*self.dimensions, SESSION_START.name)

    @property
    def layout(self) -> str:
        """Dimensions, gap and measures, as text."""
        return f"{self.dimensions} {self.gap} {dict(self.measures)}"

    @property
    def settled_after(self) -> timedelta:
        """The gap: an event so much later may still belong to the session."""
        return self.gap


@dataclass(frozen=True, kw_only=True)
class MilestoneView(FoldedView):
    """Each event of the same dimensions that makes their number a multiple of `every`.

    Events count in the order of event time, those of one instant in that of `id_field`. A row comes
    once no event in time can be older, and stays as it is. `counted` is its column with the number;
    `measures` are none. Dimensions without events for `state_retention` are counted anew.
    """

    every: int
    counted: Column
    reached: Column
    id_field: str
    state_retention: timedelta
    measures: Mapping[str, Measure] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._refuse_unknown_fields()
        if self.every < 1:
            raise InvalidView(f"{self.name}: every {self.every} events is no milestone.")
        if self.measures:
            raise InvalidView(f"{self.name}: a milestone measures nothing.")
        if not self.dimensions:
            raise InvalidView(f"{self.name}: name dimensions; they are what is counted by.")
        if _types(self.stream)[self.id_field] != "string":
            raise InvalidView(f"{self.name}: {self.id_field} must be a text that is never null.")

    @property
    def instants(self) -> tuple[Column, Column]:
        """When the event happened, twice."""
        return self.reached, self.reached

    @property
    def used_fields(self) -> set[str]:
        """The dimensions and the id."""
        return {*self.dimensions, self.id_field}

    @property
    def columns(self) -> tuple[Column, ...]:
        """Dimensions, the number, the event's time and its id."""
        event_id = Column(self.id_field, ColumnType.STRING, doc="Id of the event that made it.")
        return (*self.dimension_columns, self.counted, self.reached, event_id)

    @property
    def key(self) -> tuple[str, ...]:
        """The dimensions and the number."""
        return (*self.dimensions, self.counted.name)

    @property
    def layout(self) -> str:
        """Dimensions, number, and what orders events, as text."""
        return f"{self.dimensions} {self.every} {self.id_field}"


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
        if any(_types(side)[self.on] != "string" for side in self.streams):
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


def _types(stream: Stream) -> dict[str, Any]:
    """Return the Avro types of a stream's fields."""
    return {one["name"]: one["type"] for one in stream.schema["fields"]}


@dataclass(frozen=True, kw_only=True)
class QueryView(View):
    """A view in Flink SQL, over one stream or several.

    In `sql` each stream is a table of its name, with its fields as columns, `event_time` as the
    event-time attribute (TIMESTAMP_LTZ(3)), and `event_ms` (epoch milliseconds),
    `source_partition` and `source_offset` beside them. It holds good events that came in time
    only; none of them is late for any operator, because the watermark it sees trails the stream's
    by the allowed lateness. The query's columns must be `query_columns`, by position; a later view
    of the job may read them by the view's name. It may replace a row by a newer one of the same
    `key`, and never delete one.

    `state_retention` is how long Flink keeps the state of a key that nothing changes; None where
    windows or intervals end all state by themselves. With several such views the job keeps the
    longest. `functions` are Python functions that the query calls, by name: each is made when the
    job is built, as `pyflink.table.udf` makes them.

    `time_columns` hold the first and last instant of a row, and nothing changes it once events are
    `settled_after` past the last; without them a replay compares rows whose events may not all have
    come in both versions. Rows that go on being written are then held by the columns which no event
    more can lessen (`grows`: counts, sums of what is never negative, maxima) or raise (`falls`:
    minima); not by a sum that a refund takes from.
    """

    sources: tuple[Stream, ...]
    key_columns: tuple[str, ...]
    query_columns: tuple[Column, ...]
    sql: str
    state_retention: timedelta | None = None
    functions: Mapping[str, Callable[[], Any]] = field(default_factory=dict)
    time_columns: tuple[str, str] | None = None
    settled_after: timedelta = timedelta(0)
    grows: tuple[str, ...] = ()
    falls: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = {column.name for column in self.query_columns}
        if missing := sorted(set(self.key_columns) - names):
            raise InvalidView(f"{self.name}: key column {missing} is none of its columns.")
        if not self.key_columns:
            raise InvalidView(f"{self.name}: a view needs a key.")
        nullable = [c.name for c in self.query_columns if c.nullable and c.name in self.key_columns]
        if nullable:
            raise InvalidView(f"{self.name}: key column {nullable} must never be null.")
        self._check_courses(names - set(self.key_columns))

    def _check_courses(self, names: set[str]) -> None:
        for option, chosen in (("grows", self.grows), ("falls", self.falls)):
            if unknown := [name for name in chosen if name not in names]:
                raise InvalidView(
                    f"{self.name}: {option} names {unknown}, which is none of its columns beside "
                    f"the key; there are: {', '.join(sorted(names))}."
                )
        if both := sorted(set(self.grows) & set(self.falls)):
            raise InvalidView(f"{self.name}: {both} can't both grow and fall; name it once.")

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The streams that the query reads."""
        return self.sources

    @property
    def columns(self) -> tuple[Column, ...]:
        """The query's columns."""
        return self.query_columns

    @property
    def key(self) -> tuple[str, ...]:
        """The declared key."""
        return self.key_columns

    @property
    def layout(self) -> str:
        """The query, as text without its line breaks."""
        return " ".join(self.sql.split())

    @property
    def sink(self) -> str:
        """What Flink calls the table that the rows go to, and the operators that write it."""
        return f"{self.name}_topic"

    def over(self, streams: Mapping[str, Stream]) -> Self:
        """Return the same view over other streams of the same names."""
        return replace(self, sources=tuple(streams[stream.name] for stream in self.sources))

    def names(self, table: Stream | View) -> bool:
        """Return whether the query names the table of `table`, or its versions."""
        return bool(re.search(rf"\b{table.name}\b", self.sql)) or self.joins(table)

    def joins(self, table: Stream | View) -> bool:
        """Return whether the query names the versions of `table`."""
        return bool(re.search(rf"\b{versions_table(table)}\b", self.sql))

    def fields_of(self, stream: Stream) -> tuple[str, ...]:
        """Return the fields of `stream` that the query names, in the stream's order."""
        names = (f["name"] for f in stream.schema["fields"] if f["name"] != stream.event_time_field)
        return tuple(name for name in names if re.search(rf"\b{name}\b", self.sql))


def versions_table(table: Stream | View) -> str:
    """Return what the versions of `table` are called in SQL."""
    return f"{table.name}_versions"


@dataclass(frozen=True, kw_only=True)
class ArrivalView(QueryView):
    """A view in Flink SQL that answers each event as it arrives, within milliseconds.

    In `sql` each stream is the table `<stream>_arrivals`: the columns of a `QueryView`'s, but
    `event_time` is a plain time, and `arrived` the processing-time attribute to order by. It holds
    all good events, late ones too. Those of a partition come in the order of their offsets and
    those of a key lie in one partition, so what a query finds per key in that order follows from
    the topic alone; it must not look at the clock. With a `state_retention` the query itself must
    leave out what ended state would no longer tell: the clock ends it. After a failure a row may be
    written again, the same under the same key: that is why readers needn't wait for a transaction.
    """

    def names(self, table: Stream | View) -> bool:
        """Return whether the query names the arrivals of a stream, or a view."""
        name = f"{table.name}_arrivals" if isinstance(table, Stream) else table.name
        return bool(re.search(rf"\b{name}\b", self.sql))


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
    """One Flink job: the views it writes, over the streams it reads."""

    name: str
    streams: tuple[Stream, ...]
    views: tuple[View, ...]

    def __post_init__(self) -> None:
        for view in self.views:
            if strangers := [s.name for s in view.streams if s not in self.streams]:
                raise InvalidView(f"{view.name} reads {strangers}, which job {self.name} does not.")
        if len({stream.topic for stream in self.streams}) < len(self.streams):
            raise InvalidView(f"job {self.name} reads a topic twice; one of its streams will do.")
        queries = [view for view in self.views if isinstance(view, QueryView)]
        for place, query in enumerate(queries):
            through = {s for v in queries[:place] if query.names(v) for s in v.sources}
            for stream in query.sources:
                if stream not in through and not query.names(stream):
                    raise InvalidView(f"{query.name}: its query does not read {stream.name}.")

    @property
    def stream(self) -> Stream:
        """The job's stream, where it reads only one."""
        if len(self.streams) > 1:
            names = ", ".join(stream.name for stream in self.streams)
            raise SeveralStreams(f"job {self.name} reads several streams: {names}.")
        return self.streams[0]

    def within(self, namespace: str) -> Job:
        """Return the same job over the topics of `namespace`."""
        streams = {s.name: replace(s, namespace=namespace) for s in self.streams}
        views = tuple(view.over(streams) for view in self.views)
        over = tuple(streams.values())
        return Job(over[0].prefixed(self.name), over, views)
