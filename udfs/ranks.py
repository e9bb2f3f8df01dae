"""The keys with the most events of each window. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from udfs.counts import COUNT, CountStore
from udfs.windows import PaneBook


@dataclass(frozen=True, kw_only=True)
class RankStore(CountStore):
    """The counts of all keys by window, and the `top` of each, told in the column `rank`."""

    rank: str
    top: int

    @property
    def dimensions(self) -> tuple[str, ...]:
        """None: who is first is known only where all keys are."""
        return ()

    @property
    def layout(self) -> str:
        """What state must be written by to be read again."""
        return f"{self.top} {super().layout}"

    def next_deadline(self, book: PaneBook) -> int | None:
        """Return the watermark from which the first of the book's windows is over, epoch ms."""
        return min(map(self.closes, self.spans(book)), default=None)

    def judge(self, book: PaneBook, watermark: int) -> pa.Table:
        """Return the ranks of the windows that `watermark` ends, and forget these windows.

        Of equals the lesser key is the first. Rows are the window, the rank, the key and the count.
        """
        over = [start for start in self.spans(book) if self.closes(start) <= watermark]
        ranked = [self._ranked(start, book.read(start)) for start in over]
        for start in over:
            book.remove(start)
        return pa.concat_tables(ranked)

    def _ranked(self, start: int, counts: pa.Table | None) -> pa.Table:
        if counts is None:
            counts = self.schema.empty_table()
        order = [(COUNT, "descending"), *((name, "ascending") for name in self.keys)]
        counts = counts.take(pc.select_k_unstable(counts, self.top, order))
        columns = self.window_columns(np.full(len(counts), start))
        columns[self.rank] = pa.array(np.arange(1, len(counts) + 1))
        columns |= {name: counts[name] for name in self.keys}
        return pa.table(columns | {self.counted: counts[COUNT]})
