"""Views over one stream folded in Arrow: windows, sessions, milestones, totals. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Self, get_args

import pyarrow as pa

from jobs.views.base import InvalidView, View, field_types
from schemas.columns import Column, ColumnType
from schemas.streams import Stream
from udfs.avro_columns import reader_type
from udfs.measures import (
    Count,
    CountDistinct,
    CountDistinctApprox,
    Earliest,
    First,
    Last,
    Latest,
    Max,
    Mean,
    Measure,
    Min,
    SessionMeasure,
    Sum,
    TotalsMeasure,
)
from udfs.sessions import SESSION_END, SESSION_START


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
class FoldedView(View):
    """A view over one stream whose events are folded in Arrow, before they are rows of Flink's.

    `dimensions` are fields of the stream that group its events: texts, or what has one of its own.
    """

    stream: Stream
    dimensions: tuple[str, ...]

    @property
    def instants(self) -> tuple[Column, ...]:
        """The columns with the first and last instant of a row; none where it has no such."""
        raise NotImplementedError

    @property
    def used_fields(self) -> set[str]:
        """The fields of an event that the view looks at."""
        return set(self.dimensions)

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
    def time_columns(self) -> tuple[str, str] | None:
        """Names of the instants."""
        names = [column.name for column in self.instants]
        return (names[0], names[-1]) if names else None

    def over(self, streams: Mapping[str, Stream]) -> Self:
        """Return the same view over another stream of the same name."""
        return replace(self, stream=streams[self.stream.name])

    def _refuse_split_panes(self, window: Window) -> None:
        """Raise `InvalidView` where windows begin or end within a pane of the stream."""
        pane = self.stream.pane
        if window.size % pane or window.slide % pane:
            raise InvalidView(
                f"{self.name}: window {window} is no multiple of the pane of stream "
                f"{self.stream.name}, {pane}."
            )

    @property
    def _told_apart(self) -> set[str]:
        """The fields whose values are told apart by their texts."""
        return set(self.dimensions)

    def _refuse_unknown_fields(self, more: Iterable[str] = ()) -> None:
        self._refuse_unknown(self.stream, self.used_fields - {*more})
        for name, kind in self._kinds(self._told_apart).items():
            if pa.types.is_binary(kind) or pa.types.is_list(kind):
                raise InvalidView(
                    f"{self.name}: {name} of {self.stream.name} is of type {kind}, whose values "
                    "have no text to tell them apart by; write the view in SQL."
                )

    def _kinds(self, names: set[str]) -> dict[str, pa.DataType]:
        """Return the types of those of `names` that are fields of the stream's own."""
        fields = {one["name"]: one for one in self.stream.schema["fields"]}
        return {name: reader_type(fields[name]) for name in sorted(names & fields.keys())}


@dataclass(frozen=True, kw_only=True)
class MeasuredView(FoldedView):
    """A folded view whose rows measure the events of the same dimensions and instants."""

    measures: Mapping[str, Measure | SessionMeasure | TotalsMeasure]

    def _refuse_unknown_fields(self, more: Iterable[str] = ()) -> None:
        super()._refuse_unknown_fields(more)
        for name, measure in self.measures.items():
            if not isinstance(measure, Sum | Mean | Min | Max):
                continue
            for kind in self._kinds({measure.field}).values():
                if not _is_whole(kind):
                    raise InvalidView(
                        f"{self.name}: {name} is made of whole numbers, and {measure.field} of "
                        f"{self.stream.name} is of type {kind}; write the view in SQL."
                    )

    @property
    def _told_apart(self) -> set[str]:
        kept = (
            m for m in self.measures.values() if isinstance(m, CountDistinct | CountDistinctApprox)
        )
        return super()._told_apart | {measure.field for measure in kept}

    @property
    def used_fields(self) -> set[str]:
        """The dimensions and the fields that are measured."""
        return super().used_fields | {m.field for m in self.measures.values() if m.field}

    @property
    def columns(self) -> tuple[Column, ...]:
        """Dimensions, instants and measures."""
        return (
            *self.dimension_columns,
            *self.instants,
            *(Column(n, m.type, m.nullable, m.doc) for n, m in self.measures.items()),
        )


def _is_whole(kind: pa.DataType) -> bool:
    """Tell whether values of a type are whole numbers, or instants, which are told in such."""
    kinds = (pa.types.is_integer, pa.types.is_boolean, pa.types.is_timestamp)
    return any(is_one(kind) for is_one in kinds)


@dataclass(frozen=True, kw_only=True)
class WindowView(MeasuredView):
    """A windowed aggregate, kept in panes; without dimensions it has one row a window."""

    window: Window
    measures: Mapping[str, Measure]

    def __post_init__(self) -> None:
        self._refuse_split_panes(self.window)
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
class SessionView(MeasuredView):
    """Sessions: the events of the same dimensions with no pause longer than `gap`.

    A row comes once no event in time can belong to the session any more, and stays as it is; its
    state ends then too.
    """

    gap: timedelta
    measures: Mapping[str, SessionMeasure]

    def __post_init__(self) -> None:
        self._refuse_unknown_fields()
        types = field_types(self.stream)
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
    once no event in time can be older, and stays as it is. `counted` is its column with the number.
    Dimensions without events for `state_retention` are counted anew.
    """

    every: int
    counted: Column
    reached: Column
    id_field: str
    state_retention: timedelta

    def __post_init__(self) -> None:
        self._refuse_unknown_fields()
        if self.every < 1:
            raise InvalidView(f"{self.name}: every {self.every} events is no milestone.")
        if not self.dimensions:
            raise InvalidView(f"{self.name}: name dimensions; they are what is counted by.")
        if field_types(self.stream)[self.id_field] != "string":
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


@dataclass(frozen=True, kw_only=True)
class TotalsView(MeasuredView):
    """All-time totals: what all events of the same dimensions come to, since the first.

    A row is replaced as events of its key come, all of a pause by one. State does not end: it
    grows with the keys, and by 16 bytes with each distinct value of one.
    """

    measures: Mapping[str, TotalsMeasure]

    def __post_init__(self) -> None:
        self._refuse_unknown_fields()
        for name, measure in self.measures.items():
            if not isinstance(measure, TotalsMeasure):
                known = ", ".join(kind.__name__ for kind in get_args(TotalsMeasure))
                raise InvalidView(f"{self.name}: {name} is no total; there are: {known}.")
        if not self.dimensions:
            raise InvalidView(f"{self.name}: name dimensions; they are what totals are of.")

    @property
    def instants(self) -> tuple[Column, ...]:
        """None: a row is of all time."""
        return ()

    @property
    def key(self) -> tuple[str, ...]:
        """The dimensions."""
        return self.dimensions

    @property
    def layout(self) -> str:
        """Dimensions and measures, as text."""
        return f"totals {self.dimensions} {dict(self.measures)}"

    @property
    def grows(self) -> tuple[str, ...]:
        """Counts, greatest values and last instants."""
        return self._measured_by(Count, CountDistinct, Max, Latest)

    @property
    def falls(self) -> tuple[str, ...]:
        """Least values and first instants."""
        return self._measured_by(Min, Earliest)

    def _measured_by(self, *kinds: type[TotalsMeasure]) -> tuple[str, ...]:
        return tuple(name for name, one in self.measures.items() if isinstance(one, kinds))
