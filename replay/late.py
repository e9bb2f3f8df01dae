"""Decide which windows late events repair, and compute the rows of those anew. No I/O.

Exact uniques can't be merged from rows, so a window is computed from its events once more: those
that the job took, and the late ones. All times are epoch milliseconds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.streams import Stream
from udfs import windows
from udfs.decode import Decoder
from udfs.groups import among
from udfs.lateness import UNKNOWN, milliseconds
from udfs.panes import WINDOW, PaneStore

Place = tuple[int, int]
"""Partition and offset in the events topic."""

Key = tuple[Any, ...]
"""A window's start and the values of the view's dimensions."""

Values = tuple[Any, ...]


@dataclass(frozen=True)
class Event:
    """A record of the events topic, or a late topic's copy of one."""

    partition: int
    offset: int
    timestamp_ms: int
    value: bytes | None

    @property
    def place(self) -> Place:
        """Partition and offset in the events topic."""
        return self.partition, self.offset


@dataclass(frozen=True)
class Sorted:
    """What can be done about each late event.

    `repaired` were folded in before, `ready` can be now. `waiting` are in a window that the job
    may still write, `expired` in one whose rows the view keeps no longer.
    """

    repaired: tuple[Event, ...]
    ready: tuple[Event, ...]
    waiting: tuple[Event, ...]
    expired: tuple[Event, ...]

    @property
    def all(self) -> tuple[Event, ...]:
        """Every late event."""
        return (*self.repaired, *self.ready, *self.waiting, *self.expired)


def sort_out(
    store: PaneStore,
    late: Iterable[Event],
    repaired: Collection[Place],
    settled: int,
    kept_from: int | None,
) -> Sorted:
    """Return `late` by what can be done about each.

    `settled` is the least watermark of all partitions: the job writes no window again that
    expired before. Rows of windows that end before `kept_from` are not kept; None for all.
    """
    view = store.views[0]
    sorts: dict[str, list[Event]] = {n: [] for n in ("repaired", "ready", "waiting", "expired")}
    for event in sorted(late, key=lambda event: event.place):
        pane = event.timestamp_ms - event.timestamp_ms % store.pane
        first_end = view.starts_with(pane)[0] + view.size
        if event.place in repaired:
            sorts["repaired"].append(event)
        elif kept_from is not None and first_end <= kept_from:
            sorts["expired"].append(event)
        elif store.expiry(pane) > settled:
            sorts["waiting"].append(event)
        else:
            sorts["ready"].append(event)
    return Sorted(**{name: tuple(events) for name, events in sorts.items()})


def panes_of(store: PaneStore, events: Iterable[Event]) -> frozenset[int]:
    """Return all panes of all windows that hold any of `events`."""
    view, found = store.views[0], set[int]()
    for pane in {e.timestamp_ms - e.timestamp_ms % store.pane for e in events}:
        found.update(range(view.starts_with(pane)[0], view.last_end(pane), store.pane))
    return frozenset(found)


def spans(stream: Stream, store: PaneStore, panes: Collection[int]) -> list[tuple[int, int]]:
    """Return [first, end) of the record timestamps between which the job took events of `panes`.

    A partition's first record at or past `end` makes its watermark pass what is allowed.
    """
    disorder, lateness, _ = milliseconds(stream)
    merged: list[tuple[int, int]] = []
    for pane in sorted(panes):
        end = pane + store.pane - 1 + lateness + disorder
        if merged and pane <= merged[-1][1]:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((pane, end))
    return merged


@dataclass
class Recomputed:
    """Folds events into the panes of the affected windows, with and without the late ones.

    `refused` has the late events that are no good events by the rules of now, with the reason.
    """

    stream: Stream
    store: PaneStore
    decoder: Decoder
    late: Sorted
    refused: dict[Place, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._panes = panes_of(self.store, self.late.ready)
        self._late = self._panes_with(self.late.ready, self.refused)
        self._changed = windows.fold(self.store, _Book(), [self._late])
        self._not_taken = {event.place for event in self.late.all}
        self._taken = [self._of_changed_keys(self._panes_with(self.late.repaired, {}))]

    @property
    def panes(self) -> frozenset[int]:
        """All panes of the affected windows."""
        return self._panes

    def take(self, events: Sequence[Event]) -> None:
        """Fold in those of `events` that the job took; late ones among them don't count."""
        taken = [event for event in events if event.place not in self._not_taken]
        fresh = self._of_changed_keys(self._panes_with(taken, {}))
        self._taken = [self.store.merge([*self._taken, fresh])]

    def before(self) -> pa.Table:
        """Return the rows as the job, and repairs before this one, left them."""
        return self._rows(self._taken)

    def after(self) -> pa.Table:
        """Return the rows with the late events that are ready."""
        return self._rows([*self._taken, self._late])

    def _rows(self, tables: Sequence[pa.Table]) -> pa.Table:
        book = _Book()
        windows.fold(self.store, book, tables)
        # All panes are here: each window is as whole as one that is still open.
        found = list(windows.early_rows(self.store, book, self._changed, UNKNOWN))
        view = self.store.views[0]
        return found[0].table if found else self.store.rows(view, _nothing(self.store))

    def _panes_with(self, events: Sequence[Event], refused: dict[Place, str]) -> pa.Table:
        """Fold those of `events` that are in the affected windows; put bad ones in `refused`."""
        pane = self.store.pane
        wanted = [e for e in events if e.timestamp_ms // pane * pane in self._panes]
        if not wanted:
            return self.store.schema.empty_table()
        values = np.empty(len(wanted), dtype=object)
        values[:] = [event.value for event in wanted]
        times = np.array([event.timestamp_ms for event in wanted], dtype=np.int64)
        batch = self.decoder.decode(values, times)
        judged = zip(wanted, batch.reasons, strict=True)
        refused.update({event.place: reason for event, reason in judged if reason is not None})
        good = [wanted[row] for row in batch.rows]
        partitions = pa.array([str(event.partition) for event in good], pa.string())
        offsets = pa.array([event.offset for event in good], pa.int64())
        columns = batch.events.append_column("source_partition", partitions)
        columns = columns.append_column("source_offset", offsets)
        return self.store.from_events(columns, times[batch.rows])

    def _of_changed_keys(self, panes: pa.Table) -> pa.Table:
        """Return the rows of `panes` whose dimensions are those of any event that is ready."""
        names = list(self.store.dimensions)
        if not names or not len(panes):
            return panes
        return panes.filter(pa.array(among(panes, self._changed, names)))


class _Book:
    """A `PaneBook` in memory."""

    def __init__(self) -> None:
        self._tables: dict[int, pa.Table] = {}

    def starts(self) -> Sequence[int]:
        return sorted(self._tables)

    def read(self, pane: int) -> pa.Table | None:
        return self._tables.get(pane)

    def write(self, pane: int, table: pa.Table) -> None:
        self._tables[pane] = table

    def remove(self, pane: int) -> None:
        self._tables.pop(pane, None)


def _nothing(store: PaneStore) -> pa.Table:
    return store.schema.empty_table().append_column(WINDOW, pa.array([], pa.int64()))


def rows_by_key(store: PaneStore, rows: pa.Table) -> dict[Key, Values]:
    """Return the measures of each row of the store's view by its key."""
    (view,) = store.views
    keys = zip(*(rows[name].to_pylist() for name in (WINDOW, *store.dimensions)), strict=True)
    measures = zip(*(rows[name].to_pylist() for name, _ in view.measures), strict=True)
    return dict(zip(keys, measures, strict=True))


def only(rows: pa.Table, store: PaneStore, keys: Collection[Key]) -> pa.Table:
    """Return the rows of `keys`."""
    own = zip(*(rows[name].to_pylist() for name in (WINDOW, *store.dimensions)), strict=True)
    return rows.filter(pa.array([key in keys for key in own], pa.bool_()))


def strangers(
    current: Mapping[Key, Values], before: Mapping[Key, Values], after: Mapping[Key, Values]
) -> list[Key]:
    """Return the keys whose current row is neither that without nor that with the late events."""
    return [key for key in after if current.get(key) not in (before.get(key), after[key])]
