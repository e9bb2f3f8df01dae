"""Each nth event of a key, counted in the order of event time. No I/O.

Events wait by pane until none can come in time that is older; then the pane's are counted on from
what their keys had before. Of those at one instant the one with the lesser id is the first: no
other order holds between partitions. What a source that was silent brings later still is counted
when it comes, so that the numbers after it are right.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from udfs import lateness
from udfs.panes import int64s, text
from udfs.windows import PaneBook, append

TOTALS = -1
"""Where a book has the events counted so far, a row a key: no pane begins there."""

_TIME, _ID, _COUNT = "time", "id", "count"

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class MilestoneStore:
    """The events that wait to be counted, and each key's count; times in milliseconds.

    `pane` and `allowed_lateness` are the stream's. `counted` and `reached` are the view's columns
    with the count and the instant. A key without events for `kept` before a pane is counted anew.
    """

    name: str
    view: str
    dimensions: tuple[str, ...]
    id_field: str
    counted: str
    reached: str
    every: int
    pane: int
    allowed_lateness: int
    kept: int

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of events, each with a count of one, and of keys' totals."""
        return pa.schema(
            [
                *((name, pa.string()) for name in self.dimensions),
                (_TIME, pa.int64()),
                (_ID, pa.string()),
                (_COUNT, pa.int64()),
            ]
        )

    @property
    def layout(self) -> str:
        """What state must be written by to be read again."""
        return f"{self.every} {self.pane} {self.schema.to_string()}"

    def closes(self, instant: int) -> int:
        """Return the watermark from which no event at `instant` or before comes in time."""
        moment: int = lateness.closes(instant, self.pane, self.allowed_lateness)
        return moment

    def first_due(self, events: pa.RecordBatch) -> int:
        """Return the instant of the first event."""
        return int(events.column(_TIME).to_numpy().min())

    def due(self, first: int) -> int | None:
        """Return the watermark at which a parcel whose `first_due` is `first` must be merged."""
        moment: int = self.closes(first)
        return moment

    def advance(
        self, book: PaneBook, fresh: Sequence[pa.Table], watermark: int
    ) -> Iterable[tuple[str, pa.Table]]:
        """Have `fresh` events wait in the book; yield (view, rows) of what is sure by now."""
        if fresh:
            self.add(book, fresh)
        for rows in self.close(book, watermark):
            if len(rows):
                yield self.view, rows

    def next_deadline(self, book: PaneBook) -> int | None:
        """Return the watermark that closes the first of the book's panes, epoch ms."""
        panes = (pane for pane in book.starts() if pane != TOTALS)
        return min(map(self.closes, panes), default=None)

    def from_events(self, events: pa.Table, timestamps: Int64s) -> pa.Table:
        """Return what is kept of `events`, whose event times are epoch milliseconds."""
        columns = [text(events[name]).fill_null("") for name in self.dimensions]
        ones = pa.repeat(pa.scalar(1, pa.int64()), len(events))
        columns += [pa.array(timestamps), text(events[self.id_field]), ones]
        return pa.table(columns, schema=self.schema)

    def add(self, book: PaneBook, fresh: Sequence[pa.Table]) -> None:
        """Have `fresh` events wait in the book."""
        new = pa.concat_tables(fresh)
        times = int64s(new, _TIME)
        append(book, new, times - times % self.pane)

    def close(self, book: PaneBook, watermark: int) -> Iterable[pa.Table]:
        """Count the events that `watermark` closes, and yield the rows of those that are due.

        Rows are the dimensions, the number, the event's time and its id.
        """
        due = [p for p in book.starts() if p != TOTALS and self.closes(p) <= watermark]
        if not due:
            return
        totals = book.read(TOTALS)
        if totals is None:
            totals = self.schema.empty_table()
        for panes in self._together(due):
            events = pa.concat_tables([t for t in map(book.read, panes) if t is not None])
            totals = self._known(totals, events)
            yield self._reached(events, totals)
            totals = self._summed(pa.concat_tables([totals, events]))
        for pane in due:
            book.remove(pane)
        # No pane that still comes begins before this.
        first = watermark - self.allowed_lateness - self.pane
        kept = pc.greater_equal(totals[_TIME], first - self.kept)
        book.write(TOTALS, totals.filter(kept))

    def _together(self, panes: Sequence[int]) -> Iterable[list[int]]:
        """Yield runs of ascending `panes` in which no key can be forgotten between two events."""
        run: list[int] = []
        for pane in panes:
            if run and pane - run[0] >= self.kept:
                yield run
                run = []
            run.append(pane)
        yield run

    def _known(self, totals: pa.Table, events: pa.Table) -> pa.Table:
        """Return `totals` without keys that had no event for long before the first of `events`."""
        keys = list(self.dimensions)
        first = events.group_by(keys, use_threads=False).aggregate([(_TIME, "min")])
        known = totals.join(first, keys, join_type="left outer", use_threads=False)
        moment = known[f"{_TIME}_min"].to_numpy()
        pane = moment - moment % self.pane
        forgotten = known[_TIME].to_numpy() < pane - self.kept
        return known.select(self.schema.names).filter(pa.array(~forgotten))

    def _summed(self, table: pa.Table) -> pa.Table:
        """Return a row a key: its newest instant and all its events."""
        folded = table.group_by(list(self.dimensions), use_threads=False).aggregate(
            [(_TIME, "max"), (_COUNT, "sum")]
        )
        columns = [folded[name] for name in self.dimensions]
        columns += [folded[f"{_TIME}_max"], pa.nulls(len(folded), pa.string())]
        return pa.table([*columns, folded[f"{_COUNT}_sum"]], schema=self.schema)

    def _reached(self, events: pa.Table, totals: pa.Table) -> pa.Table:
        """Return the rows of those `events` whose place is a multiple."""
        keys = list(self.dimensions)
        own = self._summed(events).select([*keys, _COUNT])
        before = totals.select([*keys, _COUNT]).rename_columns([*keys, "before"])
        counts = own.join(before, keys, join_type="left outer", use_threads=False)
        before = pc.fill_null(counts["before"], 0)
        counts = counts.set_column(counts.schema.get_field_index("before"), "before", before)
        after = pc.add(counts[_COUNT], before)
        crossing = pc.less(pc.divide(before, self.every), pc.divide(after, self.every))
        # Only where a multiple is passed does the events' order matter.
        near = events.select([*keys, _TIME, _ID]).join(
            counts.filter(crossing).select([*keys, "before"]),
            keys,
            join_type="inner",
            use_threads=False,
        )
        ordered = near.sort_by([(name, "ascending") for name in (*keys, _TIME, _ID)])
        place = _places([ordered[name] for name in keys], len(ordered))
        count = place + 1 + ordered["before"].to_numpy()
        reached = ordered.append_column(_COUNT, pa.array(count)).filter(
            pa.array(count % self.every == 0)
        )
        times = reached[_TIME].cast(pa.timestamp("ms"))
        columns = [*(reached[name] for name in keys), reached[_COUNT], times, reached[_ID]]
        return pa.table(columns, names=[*keys, self.counted, self.reached, self.id_field])


def _places(keys: Sequence[pa.ChunkedArray], count: int) -> Int64s:
    """Return each row's place, from zero, among those of its key, which stand together."""
    begins = np.zeros(count, dtype=bool)
    begins[:1] = True
    for column in keys:
        values = column.combine_chunks()
        if count > 1:
            differs = pc.not_equal(values[1:], values[:-1])
            begins[1:] |= differs.to_numpy(zero_copy_only=False)
    starts = np.flatnonzero(begins)
    return np.arange(count) - np.repeat(starts, np.diff([*starts, count]))
