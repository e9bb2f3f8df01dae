"""Interval joins over Arrow: events of two streams that name the same, little apart in time.

No I/O. The events of both sides are kept by pane in one table, until no partner can come in time;
those that come are held against what is kept, so that each pair is found once, in whatever order
and parcels its events come.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from udfs import lateness
from udfs.groups import groups_of
from udfs.panes import int64s, text
from udfs.windows import PaneBook, append

LEFT, RIGHT = 0, 1
SIDES = (LEFT, RIGHT)

_SIDE, _TIME, _MATCHED = "right", "time", "matched"

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Left:
    """The value of a field of the left event."""

    field: str
    doc: str = ""

    side = LEFT


@dataclass(frozen=True)
class Right:
    """The value of a field of the right event."""

    field: str
    doc: str = ""

    side = RIGHT


@dataclass(frozen=True)
class Apart:
    """How many milliseconds the right event is after the left one; negative where it is before."""

    doc: str = ""


JoinValue = Left | Right | Apart


@dataclass(frozen=True)
class JoinRows:
    """What one view writes of a join: its pairs, or, with a `side`, the events of it left alone.

    `key` are the columns that tell rows apart: of rows with the same values the last stays.
    """

    name: str
    side: int | None
    values: tuple[tuple[str, JoinValue], ...]
    key: tuple[str, ...] = ()


@dataclass(frozen=True)
class JoinSide:
    """One of the two streams; times in milliseconds.

    `fields` are what is kept of an event, with their Arrow types; only events that have the values
    of `where` count. A partner is at most `reach` later than an event. `pane` and
    `allowed_lateness` are the stream's: they say which events still come.
    """

    stream: str
    fields: tuple[tuple[str, pa.DataType], ...]
    where: tuple[tuple[str, str], ...]
    reach: int
    pane: int
    allowed_lateness: int

    def closes(self, instant: int) -> int:
        """Return the watermark from which no event of this stream at `instant` comes in time."""
        moment: int = lateness.closes(instant, self.pane, self.allowed_lateness)
        return moment


@dataclass(frozen=True)
class JoinStore:
    """The events that may still find a partner; times in milliseconds.

    A right event matches a left one with the same `on` if it is no more than `before` ahead of it
    and no more than `after` behind.
    """

    name: str
    on: str
    before: int
    after: int
    pane: int
    sides: tuple[JoinSide, JoinSide]
    views: tuple[JoinRows, ...]

    @property
    def dimensions(self) -> tuple[str, ...]:
        """The field that both events have in common."""
        return (self.on,)

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of the events of both sides; the other side's fields are null."""
        return pa.schema(
            [
                (self.on, pa.string()),
                (_SIDE, pa.bool_()),
                (_TIME, pa.int64()),
                (_MATCHED, pa.bool_()),
                *((_kept(s, name), kind) for s in SIDES for name, kind in self.sides[s].fields),
            ]
        )

    @property
    def layout(self) -> str:
        """What state must be written by to be read again."""
        return f"{self.before} {self.after} {self.pane} {self.schema.to_string()}"

    @property
    def tells_alone(self) -> bool:
        """Whether some view writes events that found no partner."""
        return any(view.side is not None for view in self.views)

    def expiry(self, pane: int) -> int:
        """Return the watermark from which no event can come that matches one of `pane`."""
        last = pane + self.pane - 1
        own = (side.closes(last) for side in self.sides)
        partners = (self.sides[1 - side].closes(last + self.sides[side].reach) for side in SIDES)
        return max(*own, *partners)

    def due(self, first: int) -> int | None:
        """Return None: what comes is joined after a pause, however far time has come."""
        return None

    def advance(
        self, book: PaneBook, fresh: Sequence[pa.Table], watermark: int
    ) -> Iterable[tuple[str, pa.Table]]:
        """Keep `fresh` events in the book; yield (view, rows) of pairs and of those left alone."""
        if fresh:
            for view, rows in self.add(book, fresh):
                yield view.name, rows
        for view, rows in self.expire(book, watermark):
            yield view.name, rows

    def next_deadline(self, book: PaneBook) -> int | None:
        """Return the watermark at which the first of the book's panes expires, epoch ms."""
        panes = book.starts()
        return self.expiry(min(panes)) if panes else None

    def add(self, book: PaneBook, fresh: Sequence[pa.Table]) -> Iterable[tuple[JoinRows, pa.Table]]:
        """Keep `fresh` events in the book, and yield the rows of the pairs that they make."""
        new = pa.concat_tables(fresh).combine_chunks()
        if not len(new):
            return
        near = self._near(book, new)
        kept = [(pane, rows) for pane, rows in near if len(rows)]
        found = [_taken(book.read(pane), rows) for pane, rows in kept]
        everything = pa.concat_tables([new, *found]).combine_chunks()
        left, right, news = self._pairs(everything, len(new))
        for view in self.views:
            if view.side is None and news.any():
                told = self._told(view, everything, left, right, news)
                yield view, self._rows(view.values, everything, left[told], right[told])
        matched = np.zeros(len(everything), dtype=bool)
        if self.tells_alone:
            matched[left[news]] = matched[right[news]] = True
            self._mark(book, kept, matched[len(new) :])
        times = int64s(new, _TIME)
        append(book, _with_matched(new, matched[: len(new)]), times - times % self.pane)

    def expire(self, book: PaneBook, watermark: int) -> Iterable[tuple[JoinRows, pa.Table]]:
        """Forget events for which no partner can come, and yield the rows of those left alone."""
        for pane in list(book.starts()):
            if self.expiry(pane) > watermark:
                continue
            if self.tells_alone:
                yield from self._alone(book.read(pane))
            book.remove(pane)

    def _near(self, book: PaneBook, new: pa.Table) -> Iterable[tuple[int, Int64s]]:
        """Yield panes that may hold partners of `new`, with the rows that name the same.

        And those that hold newer pairs of their keys, whose rows are to be written last again.
        """
        times, names = int64s(new, _TIME), pc.unique(new[self.on])
        first = int(times.min()) - max(self.before, self.after)
        last = int(times.max()) + self.before + self.after
        for pane in list(book.starts()):
            if not first - self.pane < pane <= last:
                continue
            table = book.read(pane)
            if table is not None:
                yield pane, np.flatnonzero(_bools(pc.is_in(table[self.on], value_set=names)))

    def _pairs(self, events: pa.Table, fresh: int) -> tuple[Int64s, Int64s, Bools]:
        """Return the places of left and right events that match, and whether one is new.

        New are the first `fresh`. Ordered by name and time, the right events that match a left one
        stand together: nothing else is looked at, however many name the same. Pairs come in the
        order of the left events' times, and then of the right ones'.
        """
        encoded = events[self.on].combine_chunks().dictionary_encode()
        codes = encoded.indices.to_numpy().astype(np.int64)
        sides, times = _bools(events[_SIDE]), int64s(events, _TIME)
        # A name's instants are moved past all of the name before, and no interval reaches over.
        apart = int(times.max() - times.min()) + self.before + self.after + 1
        places = codes * apart + times - times.min()
        left, right = np.flatnonzero(~sides), np.flatnonzero(sides)
        # Of equal instants that which came last is the newest.
        left = left[np.lexsort((left < fresh, times[left]))]
        right = right[np.lexsort((right < fresh, places[right]))]
        begin = np.searchsorted(places[right], places[left] - self.before, "left")
        count = np.searchsorted(places[right], places[left] + self.after, "right") - begin
        lefts = np.repeat(left, count)
        step = np.arange(len(lefts)) - np.repeat(np.cumsum(count) - count, count)
        rights = right[np.repeat(begin, count) + step]
        return lefts, rights, (lefts < fresh) | (rights < fresh)

    def _told(
        self, view: JoinRows, events: pa.Table, left: Int64s, right: Int64s, news: Bools
    ) -> Bools:
        """Tell which pairs to write, given which of them are `news`.

        The last row of a key is to be that of its newest pair, whichever came last: so where one
        is new, those that the key had are written again. Events that share a key and are further
        apart than the interval are not held against each other.
        """
        if not view.key or news.all():
            return news
        values = [(name, value) for name, value in view.values if name in view.key]
        keys = groups_of(self._rows(values, events, left, right), view.key).codes
        found: Bools = np.isin(keys, keys[news])
        return found

    def _rows(
        self,
        values: Iterable[tuple[str, JoinValue]],
        events: pa.Table,
        left: Int64s,
        right: Int64s,
    ) -> pa.Table:
        """Return the `values` of pairs; of a side left alone both are its places."""
        times, places = int64s(events, _TIME), (left, right)
        columns: dict[str, Any] = {}
        for name, value in values:
            if isinstance(value, Apart):
                columns[name] = pa.array(times[right] - times[left])
            else:
                column = events[_kept(value.side, value.field)]
                columns[name] = column.take(pa.array(places[value.side]))
        return pa.table(columns)

    def _alone(self, events: pa.Table | None) -> Iterable[tuple[JoinRows, pa.Table]]:
        if events is None:
            return
        sides, alone = _bools(events[_SIDE]), ~_bools(events[_MATCHED])
        for view in self.views:
            if view.side is None:
                continue
            places = np.flatnonzero(alone & (sides == bool(view.side)))
            if len(places):
                yield view, self._rows(view.values, events, places, places)

    def _mark(self, book: PaneBook, kept: Sequence[tuple[int, Int64s]], matched: Bools) -> None:
        """Note in the book which of the `kept` rows, as `matched` says, have a partner now."""
        begin = 0
        for pane, rows in kept:
            mine = rows[matched[begin : begin + len(rows)]]
            begin += len(rows)
            table = book.read(pane)
            if not len(mine) or table is None:
                continue
            flags = _bools(table[_MATCHED]).copy()
            if not flags[mine].all():
                flags[mine] = True
                book.write(pane, _with_matched(table, flags))


@dataclass(frozen=True)
class JoinInput:
    """One side of a join, as the decode function of its stream folds it."""

    store: JoinStore
    side: int

    @property
    def dimensions(self) -> tuple[str, ...]:
        """The field that both events have in common."""
        return self.store.dimensions

    @property
    def used_fields(self) -> set[str]:
        """The fields of an event that are looked at."""
        mine = self.store.sides[self.side]
        return {self.store.on, *(name for name, _ in (*mine.fields, *mine.where))}

    def first_due(self, events: pa.RecordBatch) -> int:
        """Return the instant of the first event."""
        return int(events.column(_TIME).to_numpy().min())

    def from_events(self, events: pa.Table, timestamps: Int64s) -> pa.Table:
        """Return what the store keeps of `events`, whose event times are epoch milliseconds."""
        mine, schema = self.store.sides[self.side], self.store.schema
        columns = {
            self.store.on: text(events[self.store.on]),
            _SIDE: pa.repeat(pa.scalar(bool(self.side)), len(events)),
            _TIME: pa.array(timestamps),
            _MATCHED: pa.repeat(pa.scalar(False), len(events)),
        }
        columns |= {_kept(self.side, name): events[name].cast(kind) for name, kind in mine.fields}
        missing = (name for name in schema.names if name not in columns)
        columns |= {name: pa.nulls(len(events), schema.field(name).type) for name in missing}
        table = pa.table([columns[name] for name in schema.names], schema=schema)
        counts = np.ones(len(table), dtype=bool)
        for name, value in mine.where:
            counts &= _bools(pc.fill_null(pc.equal(events[name], value), False))
        return table if counts.all() else table.filter(pa.array(counts))


def _kept(side: int, field: str) -> str:
    return f"{('left', 'right')[side]} {field}"


def _taken(table: pa.Table | None, rows: Int64s) -> pa.Table:
    assert table is not None
    return table.take(pa.array(rows))


def _with_matched(table: pa.Table, flags: Bools) -> pa.Table:
    place = table.schema.get_field_index(_MATCHED)
    return table.set_column(place, table.schema.field(place), pa.array(flags))


def _bools(column: Any) -> Bools:
    return np.asarray(column).astype(bool)
