"""Events counted by tumbling window and key, until a window is over. No I/O.

A table of counts has a row per window and key, so that few rows leave a decoded batch. A window is
over when its last event can no longer come in time; then it is judged, once, and no event that a
restart lets through counts any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from udfs import lateness
from udfs.groups import groups_of
from udfs.panes import int64s, text
from udfs.windows import PaneBook, append

OVER = -1
"""Where a book has the watermark by which windows were over last: no window begins there."""

TIME, COUNT = "time", "count"
_WINDOW = "window"

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class CountStore:
    """The counts of windows that are not over, in milliseconds.

    `keys` are what is counted by, `size` is that of a window, `pane` and `allowed_lateness` are the
    stream's, and `counted` is the view's column with the count.
    """

    name: str
    view: str
    keys: tuple[str, ...]
    size: int
    pane: int
    allowed_lateness: int
    counted: str

    @property
    def dimensions(self) -> tuple[str, ...]:
        """What is kept together: all of a key."""
        return self.keys

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of counts: a key, an instant in the window, how many events."""
        return pa.schema(
            [*((name, pa.string()) for name in self.keys), (TIME, pa.int64()), (COUNT, pa.int64())]
        )

    @property
    def layout(self) -> str:
        """What state must be written by to be read again."""
        return f"{self.size} {self.pane} {self.span} {self.schema.to_string()}"

    @property
    def span(self) -> int:
        """How much time one table of a book holds, in whole windows."""
        return self.size

    def closes(self, start: Any) -> Any:
        """Return the watermark from which the window that begins at `start` is over.

        Both are epoch milliseconds: a number, or an array of them.
        """
        return lateness.closes(start + self.size - 1, self.pane, self.allowed_lateness)

    def first_due(self, counts: pa.RecordBatch) -> int:
        """Return the instant of the first event."""
        return int(counts.column(TIME).to_numpy().min())

    def due(self, first: int) -> int | None:
        """Return the watermark at which a parcel whose `first_due` is `first` must be merged.

        That is long before a long window is over: what waits would be as many rows as events.
        """
        moment: int = lateness.closes(first, self.pane, self.allowed_lateness)
        return moment

    def from_events(self, events: pa.Table, timestamps: Int64s) -> pa.Table:
        """Return the counts of `events`, whose event times are epoch milliseconds."""
        columns = [text(events[name]).fill_null("") for name in self.keys]
        columns += [pa.array(timestamps), pa.repeat(pa.scalar(1, pa.int64()), len(events))]
        return self.merge([pa.table(columns, schema=self.schema)])

    def merge(self, tables: Sequence[pa.Table]) -> pa.Table:
        """Return a row per window and key, with the instant of the first event."""
        table = pa.concat_tables(tables)
        table = table.append_column(_WINDOW, pa.array(self.starts(table)))
        merges = [(TIME, "min"), (COUNT, "sum")]
        groups = groups_of(table, [_WINDOW, *self.keys])
        columns = [*groups.first(table, self.keys), *groups.fold(table, merges)]
        return pa.table(columns, schema=self.schema)

    def starts(self, counts: pa.Table) -> Int64s:
        """Return the start of the window of each row."""
        times = int64s(counts, TIME)
        return times - times % self.size

    def advance(
        self, book: PaneBook, fresh: Sequence[pa.Table], watermark: int
    ) -> Iterable[tuple[str, pa.Table]]:
        """Count `fresh` in the book; yield (view, rows) of the windows that are over."""
        if fresh:
            new = self.merge(fresh)
            new = new.filter(pa.array(self.closes(self.starts(new)) > self.over(book)))
            times = int64s(new, TIME)
            append(book, new, times - times % self.span, self.merge)
        deadline = self.next_deadline(book)
        if deadline is None or deadline > watermark:
            return
        rows = self.judge(book, watermark)
        if len(rows):
            yield self.view, rows
        mark = [*([""] for _ in self.keys), [watermark], [0]]
        book.write(OVER, pa.table(mark, schema=self.schema))

    def over(self, book: PaneBook) -> int:
        """Return the watermark by which windows were over last."""
        mark = book.read(OVER)
        return lateness.UNKNOWN if mark is None else int(int64s(mark, TIME)[0])

    def spans(self, book: PaneBook) -> list[int]:
        """Return where the book's tables begin, ascending."""
        return [start for start in book.starts() if start != OVER]

    def judge(self, book: PaneBook, watermark: int) -> pa.Table:
        """Return the rows of the windows that `watermark` ends, and forget what none needs more."""
        raise NotImplementedError

    def next_deadline(self, book: PaneBook) -> int | None:
        """Return the watermark at which there is something to judge or forget, epoch ms."""
        raise NotImplementedError

    def window_columns(self, starts: Int64s) -> dict[str, pa.Array]:
        """Return the columns with start and end of windows."""
        return {
            name: pa.array(instants).cast(pa.timestamp("ms"))
            for name, instants in (("window_start", starts), ("window_end", starts + self.size))
        }
