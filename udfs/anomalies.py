"""Windows in which a key has far more events than usual. No I/O.

What is usual is the baseline (udfs/ewma.py) of the key's windows with events in a time before.
Windows without events are none: counted as zeros, they would make each event of a rare key a spike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from udfs.counts import COUNT, CountStore
from udfs.ewma import baselines
from udfs.groups import groups_of, order_by
from udfs.panes import int64s
from udfs.windows import PaneBook

PARTS = 6
"""In how many parts the time looked back on is kept: only the newest are written again."""

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class AnomalyStore(CountStore):
    """The counts of windows, with those of `lookback` before, in milliseconds.

    A window is an anomaly from `spike` times its baseline, and critical above `critical` times.
    `baseline` and `severity` are the view's columns with these.
    """

    lookback: int
    spike: float
    critical: float
    baseline: str
    severity: str

    @property
    def layout(self) -> str:
        """What state must be written by to be read again."""
        return f"{self.lookback} {super().layout}"

    @property
    def span(self) -> int:
        """A part of the time that is looked back on."""
        return self.size * max(1, self.lookback // self.size // PARTS)

    def expiry(self, span: int) -> int:
        """Return the watermark from which no window of the part that begins at `span` counts."""
        moment: int = self.closes(span + self.span - self.size + self.lookback)
        return moment

    def next_deadline(self, book: PaneBook) -> int | None:
        """Return the watermark at which a window is over or a part has expired, epoch ms."""
        spans, first = self.spans(book), self._first_open(book)
        deadlines = [*map(self.expiry, spans[:1])]
        return min(deadlines if first is None else [*deadlines, self.closes(first)], default=None)

    def judge(self, book: PaneBook, watermark: int) -> pa.Table:
        """Return the anomalies of the windows that `watermark` ends; forget what none is held to.

        Rows are the key, the window, the count, its baseline and the severity.
        """
        known = [book.read(span) for span in self.spans(book) if self.closes(span) <= watermark]
        counts = pa.concat_tables([table for table in known if table is not None])
        rows = self._anomalies(counts, self.over(book), watermark)
        for span in self.spans(book):
            if self.expiry(span) <= watermark:
                book.remove(span)
        return rows

    def _first_open(self, book: PaneBook) -> int | None:
        """Return the start of the first window that is not judged."""
        over = self.over(book)
        for span in self.spans(book):
            table = book.read(span) if self.closes(span + self.span - self.size) > over else None
            starts = self.starts(self.schema.empty_table() if table is None else table)
            still_open = starts[self.closes(starts) > over]
            if len(still_open):
                return int(still_open.min())
        return None

    def _anomalies(self, counts: pa.Table, over: int, watermark: int) -> pa.Table:
        """Return the rows of those windows of `counts` that are over since `over`."""
        keys, starts = groups_of(counts, self.keys).codes, self.starts(counts)
        order = order_by(keys, starts, starts)
        keys, starts, events = keys[order], starts[order], int64s(counts, COUNT)[order]
        closes = self.closes(starts)
        due = np.flatnonzero((closes > over) & (closes <= watermark))
        # A key's windows are moved past all of the key before, out of reach when looking back.
        apart = int(starts.max() - starts.min()) + self.lookback + 1
        places = keys * apart + starts
        begins = np.searchsorted(places, places[due] - self.lookback)
        usual = baselines(events.astype(np.float64), begins, due)
        # What has no baseline is no number, and not more than any.
        odd = np.flatnonzero(events[due] >= self.spike * usual)
        due, usual = due[odd], usual[odd]
        found = counts.take(pa.array(order[due]))
        columns = {name: found[name] for name in self.keys}
        columns |= self.window_columns(starts[due])
        columns |= {self.counted: found[COUNT], self.baseline: pa.array(usual)}
        severity = np.where(events[due] > self.critical * usual, "critical", "spike")
        return pa.table(columns | {self.severity: pa.array(severity, pa.string())})
