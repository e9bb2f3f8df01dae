"""What one bucket of panes writes when time passes: closed windows, corrections, early rows.

No I/O: state comes and goes through a `PaneBook`, watermarks are passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from udfs.groups import among, groups_of
from udfs.panes import PANE, WINDOW, PaneStore, WindowedView, expand

MISSED_AT = "@"
"""Stands between partition, offset and time where an accounting tells of what was missed."""


class PaneBook(Protocol):
    """The panes of one bucket, by their start in epoch milliseconds."""

    def starts(self) -> Sequence[int]:
        """Return the starts of all panes kept, ascending."""

    def read(self, pane: int) -> pa.Table | None:
        """Return a pane's table, or None."""

    def write(self, pane: int, table: pa.Table) -> None:
        """Replace a pane's table."""

    def remove(self, pane: int) -> None:
        """Forget a pane."""


@dataclass(frozen=True)
class Rows:
    """Rows of one view: `window`, the dimensions, a column per measure."""

    view: WindowedView
    table: pa.Table


def in_time(
    store: PaneStore, fresh: Sequence[pa.Table], fired: int
) -> tuple[Sequence[pa.Table], pa.Table]:
    """Part `fresh` pane tables: what can be folded, and rows of panes that `fired` let expire.

    The rows of an expired pane's windows are written and what they were made of is forgotten: what
    comes later can't correct them. It does come where a source of its own was silent, since then
    time goes on without it and the decode can't know how far.
    """
    oldest = min((int(table[PANE].to_numpy().min()) for table in fresh if len(table)), default=None)
    if oldest is None or store.expiry(oldest) > fired:
        return fresh, store.schema.empty_table()
    new = pa.concat_tables(fresh)
    starts = new[PANE].to_numpy()
    gone = [pane for pane in np.unique(starts).tolist() if store.expiry(pane) <= fired]
    expired = np.isin(starts, gone)
    return [store.merged(new.filter(pa.array(~expired)))], new.filter(pa.array(expired))


def missed_rows(store: PaneStore, expired: pa.Table, fired: int) -> Iterable[Rows]:
    """Yield the rows that account for events which `in_time` parted off as expired.

    Each is told of by its partition, the first offset and how far time was, epoch milliseconds, as
    `3@1841@1431857130000`: the partition's own row of that pane counts those that were folded.
    """
    for view in store.views:
        if not view.accounts or not len(expired):
            continue
        rows = store.rows(view, expand(view, expired))
        (partition,), first = store.dimensions, rows["first_offset"].cast(pa.string())
        places = pc.binary_join_element_wise(rows[partition], first, str(fired), MISSED_AT)
        column = rows.schema.get_field_index(partition)
        yield Rows(view, rows.set_column(column, partition, places))


def fold(store: PaneStore, book: PaneBook, fresh: Sequence[pa.Table]) -> pa.Table:
    """Merge `fresh` pane tables into the book; return all their rows, in which panes changed."""
    new = pa.concat_tables(fresh) if fresh else store.schema.empty_table()
    for pane, part in _by_pane(new, new[PANE].to_numpy()):
        kept = book.read(pane)
        if kept is not None:
            part = pa.concat_tables([kept, part])
        book.write(pane, part if kept is None and len(fresh) == 1 else store.merged(part))
    return new


def row_keys(store: PaneStore, panes: pa.Table) -> pa.Table:
    """Return the distinct (pane, dimensions) of a pane table."""
    return _keys(panes.select([PANE, *store.dimensions]))


def settled_rows(
    store: PaneStore, book: PaneBook, changed: pa.Table, fired: int, watermark: int
) -> Iterable[Rows]:
    """Yield the rows that are due by event time.

    These are all rows of windows that `watermark` closes, and the changed rows of windows that
    were closed by `fired`, the watermark of the call before, and may be corrected still.
    """
    for view in store.views:
        closing = windows_closing(view, book.starts(), fired, watermark)
        yield from _rows(store, view, book, closing, None)
        panes = changed[PANE].to_numpy()
        # Most often no window that a pane is in was closed before.
        late = panes - panes % view.slide + view.slide - 1 <= fired
        if not late.any():
            continue
        corrected = _targets(store, view, changed.filter(pa.array(late)))
        ends = pc.add(corrected[WINDOW], view.size - 1)
        # Of a window whose lateness is over some panes are gone: its row has more than is left.
        settled = pc.greater(ends, fired - store.allowed_lateness)
        corrected = corrected.filter(pc.and_(pc.less_equal(ends, fired), settled))
        yield from _rows(store, view, book, _windows(corrected), corrected)


def early_rows(
    store: PaneStore, book: PaneBook, changed: pa.Table, watermark: int
) -> Iterable[Rows]:
    """Yield the changed rows of windows that are still open."""
    for view in store.views:
        targets = _targets(store, view, changed)
        ends = pc.add(targets[WINDOW], view.size - 1)
        targets = targets.filter(pc.greater(ends, watermark))
        yield from _rows(store, view, book, _windows(targets), targets)


def expire(store: PaneStore, book: PaneBook, watermark: int) -> None:
    """Forget the panes that no event can change any more."""
    for pane in list(book.starts()):
        if store.expiry(pane) <= watermark:
            book.remove(pane)


def next_deadline(store: PaneStore, panes: Sequence[int], watermark: int) -> int | None:
    """Return the next watermark at which a window closes or a pane expires, epoch ms."""
    deadlines = []
    for pane in panes:
        for view in store.views:
            deadlines += [start + view.size - 1 for start in _due(view, pane, watermark)[:1]]
        deadlines.append(store.expiry(pane))
    return min((d for d in deadlines if d > watermark), default=None)


def _due(view: WindowedView, pane: int, fired: int, watermark: int | None = None) -> range:
    """Return the starts of windows that contain `pane` and end after `fired`.

    With `watermark` only of those that it closes. They are reckoned and not looked for: a day is in
    1,440 windows that begin a minute apart.
    """
    starts = view.starts_with(pane)
    first, last = starts[0], starts[-1]
    after = fired - view.size + 2
    first = max(first, -(-after // view.slide) * view.slide)
    if watermark is not None:
        last = min(last, (watermark - view.size + 1) // view.slide * view.slide)
    return range(first, last + 1, view.slide)


def windows_closing(
    view: WindowedView, panes: Sequence[int], fired: int, watermark: int
) -> npt.NDArray[np.int64]:
    """Return the starts of the windows of `panes` that end after `fired` and by `watermark`."""
    due = {start for pane in panes for start in _due(view, pane, fired, watermark)}
    return np.array(sorted(due), dtype=np.int64)


def _targets(store: PaneStore, view: WindowedView, changed: pa.Table) -> pa.Table:
    return _keys(expand(view, row_keys(store, changed)).drop_columns([PANE]))


def _keys(table: pa.Table) -> pa.Table:
    return groups_of(table, table.column_names).first(table, table.column_names)


def _windows(targets: pa.Table) -> npt.NDArray[np.int64]:
    windows: npt.NDArray[np.int64] = np.unique(targets[WINDOW].to_numpy())
    return windows


def _rows(
    store: PaneStore,
    view: WindowedView,
    book: PaneBook,
    windows: npt.NDArray[np.int64],
    targets: pa.Table | None,
) -> Iterable[Rows]:
    if not len(windows):
        return
    inside = [p for p in book.starts() if _overlaps(p, view, windows)]
    tables = [table for pane in inside if (table := book.read(pane)) is not None]
    if not tables:
        return
    expanded = expand(view, pa.concat_tables(tables), windows)
    if targets is not None and store.dimensions:
        wanted = among(expanded, targets, [WINDOW, *store.dimensions])
        expanded = expanded.filter(pa.array(wanted))
    if len(expanded):
        yield Rows(view, store.rows(view, expanded))


def _overlaps(pane: int, view: WindowedView, windows: npt.NDArray[np.int64]) -> bool:
    last = pane - pane % view.slide
    first = np.searchsorted(windows, last - view.size + view.slide)
    return bool(first < len(windows) and windows[first] <= last)


def append(
    book: PaneBook,
    table: pa.Table,
    panes: npt.NDArray[np.int64],
    merge: Callable[[list[pa.Table]], pa.Table] = pa.concat_tables,
) -> None:
    """Add the rows of `table` to the panes in which, as `panes` says, they lie.

    `merge` makes one table of what a pane has and what it gets.
    """
    for pane, part in _by_pane(table, panes):
        kept = book.read(pane)
        book.write(pane, part if kept is None else merge([kept, part]))


def _by_pane(table: pa.Table, panes: npt.NDArray[np.int64]) -> Iterable[tuple[int, pa.Table]]:
    if len(panes) and panes[0] == panes[-1] and (panes == panes[0]).all():
        yield int(panes[0]), table
        return
    order = np.argsort(panes, kind="stable")
    ordered, sorted_panes = table.take(pa.array(order)), panes[order]
    edges = [0, *(np.flatnonzero(np.diff(sorted_panes)) + 1).tolist(), len(sorted_panes)]
    for begin, end in pairwise(edges):
        if end > begin:
            yield int(sorted_panes[begin]), ordered.slice(begin, end - begin)
