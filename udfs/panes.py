"""Windowed aggregation over Arrow: events to panes, panes merged, panes to windows. No I/O.

A pane is the largest slice of time that every window of a view is made of. A pane table holds one
row per (pane, dimensions, distinct values) with its partial aggregates, so that panes of any age
merge exactly and one pane serves every window that contains it. Sketches belong to a pane and its
dimensions: they stand in the first of their rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from udfs import sketches
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

_COMPARE = {
    "==": pc.equal,
    "!=": pc.not_equal,
    ">=": pc.greater_equal,
    "<=": pc.less_equal,
    ">": pc.greater,
    "<": pc.less,
}


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
            matches = _COMPARE[self.comparison](column, pa.scalar(self.value))
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
    """The windows of one view over a store of panes; sizes in milliseconds."""

    name: str
    size: int
    slide: int
    measures: tuple[tuple[str, Measure], ...]

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
        return (PANE, *self.dimensions, *(f"distinct {name}" for name in self.distinct))

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of a pane table."""
        return pa.schema(
            [
                (PANE, pa.int64()),
                *((name, pa.string()) for name in self.group_columns[1:]),
                *((partial.name, pa.int64()) for partial in self.partials),
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
        columns += [text(events[name]) for name in self.distinct]
        columns += [partial.of_events(events) for partial in self.partials]
        columns += [text(events[name]) for name in self.sketched]
        table = pa.table(columns, names=self.schema.names)
        return self._fold(table, "distinct", sketches.sketch_of)

    def merge(self, tables: Sequence[pa.Table]) -> pa.Table:
        """Merge pane tables into one; the result does not depend on how they were split."""
        if not tables:
            return self.schema.empty_table()
        return (
            tables[0]
            if len(tables) == 1
            else self._fold(pa.concat_tables(tables), "list", sketches.union)
        )

    def _fold(self, table: pa.Table, gather: str, sketch: Callable[[list[Any]], bytes]) -> pa.Table:
        """Fold rows of the same group; `sketch` makes one of what `gather` lists of a column."""
        merges = [(partial.name, partial.merge) for partial in self.partials]
        keys = list(self.group_columns)
        folded = table.group_by(keys, use_threads=False).aggregate(merges)
        names = [f"{name}_{merge}" for name, merge in merges]
        columns = folded.select([*keys, *names]).columns
        if self.sketched:
            columns += self._sketches(table, folded, gather, sketch)
        return pa.table(columns, schema=self.schema)

    def _sketches(
        self, table: pa.Table, folded: pa.Table, gather: str, sketch: Callable[[list[Any]], bytes]
    ) -> list[pa.Array]:
        """Return the sketch columns of `folded`: for each pane and dimensions in the first row."""
        keys = [PANE, *self.dimensions]
        gathers = [(_sketch(name), gather) for name in self.sketched]
        gathered = table.group_by(keys, use_threads=False).aggregate(gathers)
        rows = folded.select(keys).append_column("row", pa.array(np.arange(len(folded))))
        rows = rows.group_by(keys, use_threads=False).aggregate([("row", "min")])
        # Both hold each pane and dimensions once; in one order they stand side by side.
        order = [(name, "ascending") for name in keys]
        places = rows.sort_by(order)["row_min"].to_numpy()
        gathered = gathered.sort_by(order)
        result = []
        for name, _ in gathers:
            column = np.full(len(folded), None, dtype=object)
            column[places] = [sketch(found) for found in gathered[f"{name}_{gather}"].to_pylist()]
            result.append(pa.array(column, pa.binary()))
        return result

    def rows(self, view: WindowedView, expanded: pa.Table) -> pa.Table:
        """Return final rows of `view`: window, dimensions, then a column per measure.

        `expanded` is a pane table with a column `window`; a pane stands in it once per window.
        """
        keys = [WINDOW, *self.dimensions]
        folds: list[tuple[Any, ...]] = [(p.name, p.merge) for p in self.partials]
        for name in self.distinct:
            column = f"distinct {name}"
            folds.append((column, "count_distinct", pc.CountOptions(mode="only_valid")))
        folds += [(_sketch(name), "list") for name in self.sketched]
        folded = expanded.group_by(keys, use_threads=False).aggregate(folds)
        columns = [folded[name] for name in keys]
        columns += [final(measure, folded) for _, measure in view.measures]
        table = pa.table(columns, names=[*keys, *(name for name, _ in view.measures)])
        return table.sort_by([(name, "ascending") for name in keys])


def final(measure: Measure | SessionMeasure, folded: pa.Table) -> Any:
    """Return the column of `measure`, given its partials' columns named `<partial>_<merge>`."""
    name = measure.field
    match measure:
        case CountDistinct():
            return folded[f"distinct {name}_count_distinct"]
        case CountDistinctApprox():
            lists = folded[f"{_sketch(measure.field)}_list"].to_pylist()
            return pa.array([sketches.count(sketches.union(found)) for found in lists], pa.int64())
        case Count() | Min() | Max():
            (partial,) = partials_of(measure)
            return folded[f"{partial.name}_{partial.merge}"]
    total, count = folded[f"sum {name}_sum"], folded[f"count {name}_sum"]
    some = pc.greater(count, 0)
    if isinstance(measure, Sum):
        return pc.if_else(some, total, pa.scalar(None, pa.int64()))
    mean = pc.divide(total.cast(pa.float64()), pc.if_else(some, count, 1).cast(pa.float64()))
    return pc.if_else(some, mean, pa.scalar(None, pa.float64()))


def _sketch(field: str) -> str:
    return f"sketch {field}"


def int64s(table: pa.Table, name: str) -> npt.NDArray[np.int64]:
    """Return a column of integers without nulls."""
    values: npt.NDArray[np.int64] = table[name].to_numpy()
    return values


def text(column: Any) -> Any:
    """Return `column` as strings."""
    return column if column.type == pa.string() else column.cast(pa.string())


def expand(view: WindowedView, panes: pa.Table) -> pa.Table:
    """Repeat each row of a pane table for every window of `view` that contains its pane."""
    starts = panes[PANE].to_numpy()
    last = starts - starts % view.slide
    copies = [
        panes.append_column(WINDOW, pa.array(last - back))
        for back in range(0, view.size, view.slide)
    ]
    return pa.concat_tables(copies)


class Grouped(Protocol):
    """What is kept by the values of some columns."""

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Those columns."""


def buckets_of(store: Grouped, table: pa.Table, count: int) -> npt.NDArray[np.int64]:
    """Return the bucket, 0 ≤ b < count, of each row: a stable hash of its dimensions."""
    if not store.dimensions:
        return np.zeros(len(table), dtype=np.int64)
    hashes = np.zeros(len(table), dtype=np.uint64)
    for name in store.dimensions:
        encoded = numbered(table[name])
        uniques = encoded.dictionary.to_numpy(zero_copy_only=False).astype(object)
        hashed = pd.util.hash_array(uniques, categorize=False)
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + hashed[encoded.indices.to_numpy()]
    return (hashes % np.uint64(count)).astype(np.int64)


def numbered(column: pa.ChunkedArray) -> pa.DictionaryArray:
    """Return `column` as numbers of its distinct values."""
    encoded = column.combine_chunks().dictionary_encode()
    return encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded


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
