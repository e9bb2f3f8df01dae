"""Sessions over Arrow: events to fragments, fragments merged, sessions closed. No I/O.

A fragment is what is known of one session: its first and last instant with the partial aggregates
of its events. Fragments of the same dimensions that are no more than the gap apart merge, in any
order and however the events were split, into the sessions that all events together make.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.columns import Column, ColumnType
from udfs import lateness
from udfs.groups import Groups, among, groups_of, order_by
from udfs.measures import Duration, First, Last, SessionMeasure, Single
from udfs.panes import EVENTS, Partial, final, int64s, partials_of, text
from udfs.windows import PaneBook

START, END = "session_start", "session_end"
SESSION_START = Column(START, ColumnType.TIMESTAMP, doc="Instant of the session's first event.")
SESSION_END = Column(END, ColumnType.TIMESTAMP, doc="Instant of the session's last event.")

_OFFSET = "source_offset"
# The one place in which a bucket's state holds its open sessions.
_OPEN = 0
_ENDS = {First: "first", Last: "last"}

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SessionStore:
    """The open sessions of one view; times in milliseconds.

    `pane` and `allowed_lateness` are the stream's: they say which events still come.
    """

    name: str
    view: str
    dimensions: tuple[str, ...]
    gap: int
    pane: int
    allowed_lateness: int
    measures: tuple[tuple[str, SessionMeasure], ...]

    @property
    def partials(self) -> tuple[Partial, ...]:
        """All partial aggregates of the view, each once."""
        wanted = (partial for _, measure in self.measures for partial in partials_of(measure))
        return tuple(dict.fromkeys((EVENTS, *wanted)))

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of fragments.

        Of events at one instant the one with the lesser offset is the first.
        """
        return pa.schema(
            [
                *((name, pa.string()) for name in self.dimensions),
                *((name, pa.int64()) for name in (START, END, "first offset", "last offset")),
                *((name, pa.string()) for name in self._values),
                *((partial.name, pa.int64()) for partial in self.partials),
            ]
        )

    @property
    def layout(self) -> str:
        """What state must be written by to be read again."""
        return f"{self.gap} {self.schema.to_string()}"

    @property
    def _values(self) -> tuple[str, ...]:
        """Columns with a field's value in the first or last event."""
        return tuple(dict.fromkeys(_value(m) for _, m in self.measures if type(m) in _ENDS))

    def closes(self, end: Any) -> Any:
        """Return the watermark from which no event can come that belongs to what ended at `end`.

        Both are epoch milliseconds: a number, or an array of them.
        """
        return self._late(end + self.gap)

    def first_due(self, fragments: pa.RecordBatch) -> int:
        """Return the end of the fragment that closes first."""
        return int(fragments.column(END).to_numpy().min())

    def from_events(self, events: pa.Table, timestamps: Int64s) -> pa.Table:
        """Return the fragments of `events`, whose event times are epoch milliseconds."""
        times, offsets = pa.array(timestamps), events[_OFFSET]
        columns = [text(events[name]).fill_null("") for name in self.dimensions]
        columns += [times, times, offsets, offsets]
        columns += [text(events[name.partition(" ")[2]]) for name in self._values]
        columns += [partial.of_events(events) for partial in self.partials]
        return self.merge([pa.table(columns, schema=self.schema)])

    def merge(self, tables: Sequence[pa.Table]) -> pa.Table:
        """Merge fragments; those that are left are more than the gap apart."""
        table = pa.concat_tables(tables).combine_chunks() if tables else self.schema.empty_table()
        if not len(table):
            return table
        keys, starts = groups_of(table, self.dimensions).codes, int64s(table, START)
        order = order_by(keys, starts, int64s(table, "first offset"))
        keys, starts, ends = keys[order], starts[order], int64s(table, END)[order]
        opens = _opens(keys, starts, ends, self.gap)
        if opens.all():
            return table.take(pa.array(order))
        edges = np.flatnonzero(opens)
        session = np.cumsum(opens) - 1
        by_end = order_by(session, ends, int64s(table, "last offset")[order])
        first = pa.array(order[edges])
        last = pa.array(order[by_end[np.append(edges[1:], len(order)) - 1]])
        of_last = {END, *(name for name in table.column_names if name.startswith("last "))}
        names = self.schema.names[: -len(self.partials)]
        columns = [table[name].take(last if name in of_last else first) for name in names]
        columns += self._totals(table, order, session)
        return pa.table(columns, schema=self.schema).combine_chunks()

    def _totals(self, table: pa.Table, order: Int64s, session: Int64s) -> list[Any]:
        """Return the partial aggregates of each session, ascending; `session` is of `order`."""
        merges = [(partial.name, partial.merge) for partial in self.partials]
        ordered = table.select([name for name, _ in merges]).take(pa.array(order))
        return Groups(session, np.flatnonzero(np.diff(session, prepend=-1))).fold(ordered, merges)

    def in_time(self, book: PaneBook, fresh: Sequence[pa.Table], fired: int) -> Sequence[pa.Table]:
        """Return `fresh` without what came too late for `fired`, the watermark of the call before.

        A source that was silent may bring it. What its events would have belonged to may be written
        and forgotten, and they would make a second session of it. Those that touch an open session
        are part of that, and a fragment whose last event is in time stays whole.
        """
        ends = (int(int64s(table, END).min()) for table in fresh if len(table))
        if self._late(min(ends, default=fired + 1)) > fired:
            return fresh
        new, kept = self.merge(fresh), book.read(_OPEN)
        late = self._late(int64s(new, END)) <= fired
        if kept is not None:
            # What touches none is still there, as it was, when all are merged.
            names = [*self.dimensions, START, END, EVENTS.name]
            late &= among(new, self.merge([kept, new]), names)
        return [new.filter(pa.array(~late))]

    def _late(self, instant: Any) -> Any:
        """Return the watermark from which an event at `instant` is late."""
        return lateness.closes(instant, self.pane, self.allowed_lateness)

    def closed(self, fragments: pa.Table, watermark: int) -> tuple[pa.Table, pa.Table]:
        """Return the fragments that `watermark` closes, and the others."""
        done = self.closes(int64s(fragments, END)) <= watermark
        if not done.any():
            return fragments.slice(0, 0), fragments
        return fragments.filter(pa.array(done)), fragments.filter(pa.array(~done))

    def due(self, first: int) -> int | None:
        """Return the watermark at which a parcel whose `first_due` is `first` must be merged."""
        moment: int = self.closes(first)
        return moment

    def advance(
        self, book: PaneBook, fresh: Sequence[pa.Table], watermark: int
    ) -> Iterable[tuple[str, pa.Table]]:
        """Merge `fresh` fragments into the book's; yield (view, rows) of what has closed."""
        kept = book.read(_OPEN)
        merged = self.merge(fresh if kept is None else [kept, *fresh])
        closed, still_open = self.closed(merged, watermark)
        if len(closed):
            yield self.view, self.rows(closed)
        book.write(_OPEN, still_open)

    def next_deadline(self, book: PaneBook) -> int | None:
        """Return the watermark that closes the first of the book's fragments, epoch ms."""
        fragments = book.read(_OPEN)
        if fragments is None or not len(fragments):
            return None
        return int(self.closes(int64s(fragments, END).min()))

    def rows(self, fragments: pa.Table) -> pa.Table:
        """Return the rows of closed sessions: dimensions, first and last instant, measures."""
        columns = [fragments[name] for name in self.dimensions]
        columns += [fragments[name].cast(pa.timestamp("ms")) for name in (START, END)]
        columns += [self._measure(measure, fragments) for _, measure in self.measures]
        return pa.table(
            columns, names=[*self.dimensions, START, END, *(name for name, _ in self.measures)]
        )

    def _measure(self, measure: SessionMeasure, fragments: pa.Table) -> Any:
        match measure:
            case Duration():
                return pa.array(int64s(fragments, END) - int64s(fragments, START))
            case Single():
                return pa.array(int64s(fragments, EVENTS.name) == 1)
            case First() | Last():
                return fragments[_value(measure)]
        return final(measure, fragments)


def _value(measure: Any) -> str:
    return f"{_ENDS[type(measure)]} {measure.field}"


def _opens(keys: Int64s, starts: Int64s, ends: Int64s, gap: int) -> npt.NDArray[np.bool_]:
    """Tell which fragments, ordered by key and start, begin a session of their own."""
    # A key's instants are moved past all of the key before, so that one running maximum will do.
    apart = int(ends.max() - starts.min()) + gap + 1
    moved = keys * apart
    reach = np.maximum.accumulate(ends - starts.min() + moved)
    opens = np.ones(len(keys), dtype=bool)
    opens[1:] = starts[1:] - starts.min() + moved[1:] > reach[:-1] + gap
    opens[1:] |= keys[1:] != keys[:-1]
    return opens
