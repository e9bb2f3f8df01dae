"""A book of panes in memory."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa


class Book:
    """A `PaneBook` in memory."""

    def __init__(self) -> None:
        self.tables: dict[int, pa.Table] = {}

    def starts(self) -> Sequence[int]:
        return sorted(self.tables)

    def read(self, pane: int) -> pa.Table | None:
        return self.tables.get(pane)

    def write(self, pane: int, table: pa.Table) -> None:
        self.tables[pane] = table.combine_chunks()

    def remove(self, pane: int) -> None:
        del self.tables[pane]
