"""Windowed aggregation over Arrow: events to panes, panes merged, panes to windows. No I/O.

A pane is the largest slice of time that every window of a view is made of. A pane table holds one
row per (pane, dimensions) with its partial aggregates, the sets of its distinct values, as
fingerprints, and sketches, so that panes of any age merge exactly and one pane serves every window
that contains it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from udfs import distinct, sketches
from udfs.comparisons import compared
from udfs.fingerprints import fingerprinted, fingerprints
from udfs.groups import Groups, groups_of
from udfs.measures import (
    Count,
    CountDistinct,
    CountDistinctApprox,
    Max,
    Mean,
    Measure,
    Min,
    SessionMeasure,
    Sum,
)

PANE = "pane"
WINDOW = "window"


@dataclass(frozen=True)
class Partial:
    """One mergeable column of a pane: `merge` of what `source` says of each event."""

    name: str
    merge: str
    source: str
    field: str = ""
    comparison: str = ""
    value: Any = None

    def of_events(self, events: pa.Table) -> Any:
        """Return the column of per-event values, int64, that `merge` folds."""
        if self.source == "event":
            return pa.repeat(pa.scalar(1, pa.int64()), len(events))
        column = events[self.field]
        if self.source == "present":
            return pc.is_valid(column).cast(pa.int64())
        if self.source == "condition":
            matches = compared(column, self.comparison, self.value)
            return pc.fill_null(matches, False).cast(pa.int64())
        return column.cast(pa.int64())


EVENTS = Partial("events", "sum", "event")
"""How many events there were."""


def partials_of(measure: Measure | SessionMeasure) -> tuple[Partial, ...]:
    """Return the partial aggregates that `measure` is computed from; none where it needs others."""
    name = measure.field or ""
    match measure:
        case Count(field=None):
            return (EVENTS,)
        case Count():
            label = f"count {name} {measure.comparison} {measure.value}"
            return (Partial(label, "sum", "condition", name, measure.comparison, measure.value),)
        case Sum() | Mean():
            return (
                Partial(f"sum {name}", "sum", "value", name),
                Partial(f"count {name}", "sum", "present", name),
            )
        case Min():
            return (Partial(f"min {name}", "min", "value", name),)
        case Max():
            return (Partial(f"max {name}", "max", "value", name),)
    return ()


@dataclass(frozen=True)
class WindowedView:
    """The windows of one view over a store of panes; sizes in milliseconds.

    With `accounts` it tells of partitions and their offsets what became of them.
    """

    name: str
    size: int
    slide: int
    measures: tuple[tuple[str, Measure], ...]
    accounts: bool = False

    def last_end(self, pane: int) -> int:
        """Return the end of the last window that contains `pane`."""
        return pane - pane % self.slide + self.size

    def starts_with(self, pane: int) -> range:
        """Return the starts of the windows that contain `pane`."""
        last = pane - pane % self.slide
        return range(last - self.size + self.slide, last + 1, self.slide)


@dataclass(frozen=True)
class PaneStore:
    """The panes shared by views with the same dimensions and pane; times in milliseconds."""

    name: str
    dimensions: tuple[str, ...]
    pane: int
    allowed_lateness: int
    views: tuple[WindowedView, ...]

    @property
    def distinct(self) -> tuple[str, ...]:
        """Fields whose distinct values are kept."""
        measures = (m for view in self.views for _, m in view.measures)
        return tuple(dict.fromkeys(m.field for m in measures if isinstance(m, CountDistinct)))

    @property
    def sketched(self) -> tuple[str, ...]:
        """Fields whose distinct values are sketched."""
        measures = (m for view in self.views for _, m in view.measures)
        return tuple(dict.fromkeys(m.field for m in measures if isinstance(m, CountDistinctApprox)))

    @property
    def partials(self) -> tuple[Partial, ...]:
        """All partial aggregates of all views, each once."""
        wanted = (p for view in self.views for _, m in view.measures for p in partials_of(m))
        return tuple(dict.fromkeys((EVENTS, *wanted)))

    @property
    def group_columns(self) -> tuple[str, ...]:
        """Columns that identify a row of a pane table."""
        return (PANE, *self.dimensions)

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of a pane table."""
        return pa.schema(
            [
                (PANE, pa.int64()),
                *((name, pa.string()) for name in self.dimensions),
                *((partial.name, pa.int64()) for partial in self.partials),
                *((_set(name), distinct.MEMBERS) for name in self.distinct),
                *((_sketch(name), pa.binary()) for name in self.sketched),
            ]
        )

    @property
    def layout(self) -> str:
        """What state must be written by to be read again."""
        return f"{self.pane} {self.schema.to_string()}"

    def first_due(self, panes: pa.RecordBatch) -> int:
        """Return the least pane of a pane table with rows."""
        return int(panes.column(PANE).to_numpy().min())

    def expiry(self, pane: int) -> int:
        """Return the watermark from which no event can change a window that contains `pane`."""
        return max(view.last_end(pane) for view in self.views) - 1 + self.allowed_lateness

    def from_events(self, events: pa.Table, timestamps: npt.NDArray[np.int64]) -> pa.Table:
        """Fold `events`, whose event times are epoch milliseconds, into a pane table."""
        columns = [pa.array(timestamps - timestamps % self.pane)]
        columns += [text(events[name]).fill_null("") for name in self.dimensions]
        columns += [partial.of_events(events) for partial in self.partials]
        names = [*self.group_columns, *(partial.name for partial in self.partials)]
        table = pa.table(columns, names=names)
        groups = groups_of(table, self.group_columns)
        columns = [*groups.first(table, self.group_columns), *self._folded(groups, table)]
        for name in self.distinct:
            columns.append(distinct.sets_of(groups, *fingerprinted(events, name)))
        for name in self.sketched:
            columns.append(_sketches(groups, events, name))
        return pa.table(columns, schema=self.schema)

    def merge(self, tables: Sequence[pa.Table]) -> pa.Table:
        """Merge pane tables into one; the result does not depend on how they were split."""
        if not tables:
            return self.schema.empty_table()
        return tables[0] if len(tables) == 1 else self.merged(pa.concat_tables(tables))

    def merged(self, table: pa.Table) -> pa.Table:
        """Return a pane table of rows that may be of one group."""
        groups = groups_of(table, self.group_columns)
        return pa.table(
            [
                *groups.first(table, self.group_columns),
                *self._folded(groups, table),
                *self._united(groups, table),
            ],
            schema=self.schema,
        )

    def _folded(self, groups: Groups, table: pa.Table) -> list[pa.ChunkedArray]:
        return groups.fold(table, [(partial.name, partial.merge) for partial in self.partials])

    def _united(self, groups: Groups, table: pa.Table) -> list[pa.Array]:
        """Return the columns of sets and of sketches."""
        columns = [distinct.union(groups, table[_set(name)]) for name in self.distinct]
        for name in self.sketched:
            found = groups.lists(table[_sketch(name)].to_numpy())
            columns.append(pa.array(list(map(sketches.union, found)), pa.binary()))
        return columns

    def rows(self, view: WindowedView, expanded: pa.Table) -> pa.Table:
        """Return final rows of `view`: window, dimensions, then a column per measure.

        `expanded` is a pane table with a column `window`; a pane stands in it once per window.
        """
        keys = [WINDOW, *self.dimensions]
        groups = groups_of(expanded, keys)
        names = [partial.name for partial in self.partials]
        names += [*map(_set, self.distinct), *map(_sketch, self.sketched)]
        columns = [*self._folded(groups, expanded), *self._united(groups, expanded)]
        folded = pa.table(columns, names=names)
        columns = list(groups.first(expanded, keys))
        columns += [final(measure, folded) for _, measure in view.measures]
        table = pa.table(columns, names=[*keys, *(name for name, _ in view.measures)])
        return table.sort_by([(name, "ascending") for name in keys])


def _sketches(groups: Groups, events: pa.Table, field: str) -> pa.Array:
    """Return the sketch of the distinct values of `field` in each group of `events`."""
    rows = distinct.first_rows(groups, *fingerprinted(events, field))
    values = text(events[field]).take(pa.array(rows)).to_numpy()
    found = Groups(groups.codes[rows], groups.firsts).lists(values)
    return pa.array(list(map(sketches.sketch_of, found)), pa.binary())


def final(measure: Measure | SessionMeasure, folded: pa.Table) -> Any:
    """Return the column of `measure`, given those of its partials, sets and sketches by name."""
    name = measure.field
    match measure:
        case CountDistinct():
            return distinct.sizes(folded[_set(measure.field)])
        case CountDistinctApprox():
            found = folded[_sketch(measure.field)].to_numpy()
            # An estimate may be too great, and far too great for values chosen to that end.
            counts = map(min, map(sketches.count, found), int64s(folded, EVENTS.name).tolist())
            return pa.array(list(counts), pa.int64())
        case Count() | Min() | Max():
            (partial,) = partials_of(measure)
            return folded[partial.name]
    total, count = folded[f"sum {name}"], folded[f"count {name}"]
    some = pc.greater(count, 0)
    if isinstance(measure, Sum):
        return pc.if_else(some, total, pa.scalar(None, pa.int64()))
    # Beyond 2^53 the nearest fraction will do.
    dividend = total.cast(pa.float64(), safe=False)
    mean = pc.divide(dividend, pc.if_else(some, count, 1).cast(pa.float64()))
    return pc.if_else(some, mean, pa.scalar(None, pa.float64()))


def _set(field: str) -> str:
    return f"distinct {field}"


def _sketch(field: str) -> str:
    return f"sketch {field}"


def int64s(table: pa.Table, name: str) -> npt.NDArray[np.int64]:
    """Return a column of integers without nulls."""
    values: npt.NDArray[np.int64] = table[name].to_numpy()
    return values


def text(column: Any) -> Any:
    """Return `column` as strings."""
    return column if column.type == pa.string() else column.cast(pa.string())


def expand(
    view: WindowedView, panes: pa.Table, windows: npt.NDArray[np.int64] | None = None
) -> pa.Table:
    """Repeat each row of a pane table for every window of `view` that contains its pane.

    With `windows`, ascending starts, only for those.
    """
    starts = panes[PANE].to_numpy()
    back = np.arange(0, view.size, view.slide)
    found = (starts - starts % view.slide - back[:, None]).ravel()
    rows = np.tile(np.arange(len(starts)), len(back))
    if windows is not None:
        wanted = np.isin(found, windows)
        found, rows = found[wanted], rows[wanted]
    # All of them in their order, as most often of a window that is one pane, need no copy.
    repeated = panes if len(back) == 1 and len(rows) == len(panes) else panes.take(pa.array(rows))
    return repeated.append_column(WINDOW, pa.array(found))


class Grouped(Protocol):
    """What is kept by the values of some columns."""

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Those columns."""


def buckets_of(store: Grouped, table: pa.Table, count: int) -> npt.NDArray[np.int64]:
    """Return the bucket, 0 ≤ b < count, of each row: a stable hash of its dimensions."""
    hashes = np.zeros(len(table), dtype=np.uint64)
    if count > 1:
        for name in store.dimensions:
            hashed = fingerprints(table[name])[0].to_numpy().view(np.uint64)
            hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + hashed
    return (hashes % np.uint64(count)).astype(np.int64)


def split(store: Grouped, table: pa.Table, count: int) -> Iterable[tuple[int, pa.RecordBatch]]:
    """Yield (bucket, rows of that bucket) for every bucket that has rows."""
    buckets = buckets_of(store, table, count)
    order = np.argsort(buckets, kind="stable")
    ordered = table.take(pa.array(order)).combine_chunks()
    sorted_buckets = buckets[order]
    edges = np.flatnonzero(np.diff(sorted_buckets)) + 1
    starts = [0, *edges.tolist(), len(sorted_buckets)]
    batches = ordered.to_batches()
    for begin, end in pairwise(starts):
        if end > begin:
            yield int(sorted_buckets[begin]), batches[0].slice(begin, end - begin)
