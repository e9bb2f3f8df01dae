"""The operator that keeps views as Flink runs it: state and timers around the pure modules."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyflink.common import Row, Types
from pyflink.datastream import KeyedProcessFunction, RuntimeContext, TimeDomain
from pyflink.datastream.state import (
    ListStateDescriptor,
    MapStateDescriptor,
    ValueStateDescriptor,
)
from pyflink.fn_execution.state_impl import SynchronousMapRuntimeState

from udfs import lateness, windows
from udfs.envelope import BookPage, fingerprint, from_bytes, table_bytes
from udfs.pace import Pace
from udfs.panes import PANE, PaneStore
from udfs.rows import RowEncoder, window_columns
from udfs.runs import RunMemory
from udfs.sessions import SessionStore
from udfs.stores import MergedStore, Store
from udfs.totals import TotalsStore

# A timer is lost after so many pauses.
_LOST = 15
_SPARE_MS = 10_000
# All open sessions of a bucket are read and written to merge what came: not for each watermark.
_MERGE_PAUSE_MS = 1_000
# Totals are written as often as early rows.
_LEAST_PAUSE_MS = 100


@dataclass(frozen=True)
class PaneSpec:
    """What the panes' operator needs to know; pickled into the job.

    `hold` is how far Flink's watermark trails the stream's, in ms.
    """

    stores: tuple[Store, ...]
    bucket_keys: tuple[tuple[int, ...], ...]
    encoders: tuple[tuple[str, RowEncoder], ...]
    early_fire_ms: int
    hold: int = 0


class AggregatePanes(KeyedProcessFunction):
    """Keeps what one (store, bucket) is made of in keyed state, and writes its views' rows.

    Parcels are appended to a list state as they come, which costs no read, and folded into what
    there is when a timer fires: at each window's end, at each pane's expiry, at the pane in which
    a session closes, and each `early_fire_ms` of processing time while windows still open changed.
    What is to be joined is held against what is kept each second. Totals are written after a pause
    of processing time; the runs that they are made of stay in memory beside the state. While the
    job catches up, each bucket waits for more between two merges, whatever is due.
    """

    def __init__(self, spec: PaneSpec) -> None:
        self.spec = spec

    def open(self, runtime_context: RuntimeContext) -> None:
        """Declare the state."""
        body = Types.PRIMITIVE_ARRAY(Types.BYTE())
        self._fresh = runtime_context.get_list_state(ListStateDescriptor("fresh", body))
        self._page = runtime_context.get_state(ValueStateDescriptor("page", body))
        self._panes = runtime_context.get_map_state(MapStateDescriptor("panes", Types.LONG(), body))
        pairs = zip(self.spec.stores, self.spec.bucket_keys, strict=True)
        self._store_of = {key: store for store, keys in pairs for key in keys}
        self._layouts = {store.name: fingerprint(store) for store in self.spec.stores}
        self._encoders = dict(self.spec.encoders)
        # What a restart may forget: Flink keeps the timers, the page the panes that changed.
        # But PyFlink writes a checkpoint without the timers that the bundle before it asked for,
        # whose records the checkpoint has. So one that is overdue is asked for again, and a bucket
        # always has timers of long ago, lest a restart silence it.
        self._event_timer: dict[int, int] = {}
        self._early_timer: dict[int, int] = {}
        self._spare_timer: dict[int, int] = {}
        self._changed: dict[int, list[pa.Table]] = {}
        self._merged_at: dict[int, int] = {}
        self._begun: set[int] = set()
        self._pace = Pace()
        # A bundle that fails ends this operator: memory is never ahead of the state.
        self._runs = RunMemory()

    def process_element(self, value: Any, ctx: KeyedProcessFunction.Context) -> None:
        """Append a parcel and see that a timer will look at it."""
        key, first_due, body = value
        self._fresh.add(body)
        timers = _Timers(ctx.timer_service(), self.spec.hold)
        store, watermark = self._store_of[key], timers.current_watermark()
        self._begin_page(key, store, watermark)
        self._pace.note(timers.current_processing_time(), watermark)
        self._ask_spare(key, timers)
        due = None if isinstance(store, PaneStore) else store.due(first_due)
        if due is not None and due > watermark:
            self._ask_event_time(key, due, timers)
            return
        if self._catches_up(timers) and self._waits(key, store, timers):
            return
        if not isinstance(store, PaneStore):
            if due is None:
                self._ask_merge(store, timers)
            else:
                self._ask_event_time(key, watermark + 1, timers)
            return
        deadline = windows.next_deadline(store, [first_due], watermark)
        if self._is_closed(store, first_due, watermark):
            deadline = watermark + 1
        self._ask_event_time(key, deadline, timers)
        self._ask_early(key, timers)

    def on_timer(self, timestamp: int, ctx: KeyedProcessFunction.OnTimerContext) -> Iterable[Row]:
        """Fold what came, write what is due, forget what has expired."""
        key, timers = ctx.get_current_key(), _Timers(ctx.timer_service(), self.spec.hold)
        store, watermark = self._store_of[key], timers.current_watermark()
        now = timers.current_processing_time()
        self._pace.note(now, watermark)
        self._ask_spare(key, timers)
        if self._waits(key, store, timers):
            return
        if isinstance(store, PaneStore):
            early = ctx.time_domain() == TimeDomain.PROCESSING_TIME
            if early:
                self._early_timer.pop(key, None)
            elif self._event_timer.get(key, timestamp) <= timestamp + self.spec.hold:
                self._event_timer.pop(key, None)
            yield from self._folded(key, store, timers, now, early)
        else:
            if self._event_timer.get(key, watermark) <= watermark:
                self._event_timer.pop(key, None)
            yield from self._merged(key, store, timers, now)
        if self._merged_at.get(key) == now:
            # The rows that were written meanwhile took their time as well.
            self._pace.took(key, timers.current_processing_time() - now)

    def _begin_page(self, key: int, store: Store, watermark: int) -> None:
        """Note for a bucket without events so far that all before `watermark` is over."""
        if key in self._begun:
            return
        self._begun.add(key)
        if not self._page.value():
            page = BookPage(watermark, [], [])
            self._page.update(page.to_bytes(self._layouts[store.name]))

    def _folded(
        self, key: int, store: PaneStore, timers: _Timers, now: int, early: bool
    ) -> Iterable[Row]:
        """Fold what came into the panes, write what is due, forget what has expired."""
        watermark = timers.current_watermark()
        self._merged_at[key] = now
        book = _StateBook(store, self._page, self._panes, self._layouts[store.name])
        came = [from_bytes(store, bytes(body)) for body in self._fresh.get()]
        fired = book.page.fired
        fresh, expired = windows.in_time(store, came, fired)
        changed = windows.fold(store, book, fresh)
        if came:
            self._fresh.clear()
        for rows in windows.missed_rows(store, expired, fired):
            yield from self._records(rows)
        for rows in windows.settled_rows(store, book, changed, fired, watermark):
            yield from self._records(rows)
        if self.spec.early_fire_ms:
            # Flink's watermark starts anew after a restart; what was closed before stays closed.
            closed = max(fired, watermark)
            if self._catches_up(timers):
                # Which rows they are is found out again from the panes.
                self._changed.pop(key, None)
                self._note_unwritten(book, changed)
            else:
                yield from self._early(key, store, book, changed, closed, early)
        windows.expire(store, book, watermark)
        book.page.fired = max(fired, watermark)
        book.commit()
        self._ask_event_time(key, windows.next_deadline(store, book.starts(), watermark), timers)
        if book.page.unwritten:
            self._ask_early(key, timers)

    def _merged(self, key: int, store: MergedStore, timers: _Timers, now: int) -> Iterable[Row]:
        """Merge what came into what is kept, write what is due, forget what has expired."""
        watermark = timers.current_watermark()
        came = [from_bytes(store, bytes(body)) for body in self._fresh.get()]
        if not came and (key in self._event_timer or isinstance(store, TotalsStore)):
            # A spare timer, and nothing is due before the one that was asked for.
            self._pace.took(key, 0)
            return
        self._merged_at[key] = now
        book = _StateBook(store, self._page, self._panes, self._layouts[store.name])
        if came:
            self._fresh.clear()
        if isinstance(store, TotalsStore):
            _forget_read(self._panes)
            merged = store.advance(book, came, self._runs.of(key))
        elif isinstance(store, SessionStore):
            fresh = store.in_time(book, came, book.page.fired)
            merged = store.advance(book, fresh, watermark)
        else:
            merged = store.advance(book, came, watermark)
        for view, rows in merged:
            yield from self._encoded(view, rows)
        book.page.fired = max(book.page.fired, watermark)
        book.commit()
        if isinstance(store, TotalsStore):
            self._runs.trim()
        self._ask_event_time(key, store.next_deadline(book), timers)

    def _waits(self, key: int, store: Store, timers: _Timers) -> bool:
        """Tell whether it is too early for another merge of a bucket, and see that it comes."""
        now, merged_at = timers.current_processing_time(), self._merged_at.get(key)
        if merged_at is None:
            return False
        until = merged_at + self._pause(store, timers)
        # A clock that was set back holds up nothing.
        if not merged_at <= now < until:
            return False
        timers.register_processing_time_timer(until)
        return True

    def _pause(self, store: Store, timers: _Timers) -> int:
        """Return how many ms there must be between two merges of a bucket."""
        least = 0 if isinstance(store, PaneStore) else _MERGE_PAUSE_MS
        if isinstance(store, TotalsStore):
            least = max(self.spec.early_fire_ms, _LEAST_PAUSE_MS)
        if isinstance(store, PaneStore) and not self._catches_up(timers):
            return least
        # Whatever holds a job up, it is no help to merge the same again and again.
        return max(least, self._pace.pause)

    def _catches_up(self, timers: _Timers) -> bool:
        now, watermark = timers.current_processing_time(), timers.current_watermark()
        return self._pace.catches_up(now, watermark)

    def _early(
        self,
        key: int,
        store: PaneStore,
        book: _StateBook,
        changed: pa.Table,
        watermark: int,
        now: bool,
    ) -> Iterable[Row]:
        """Note what changed and, where it is time, write it for the windows still open."""
        if key not in self._changed:
            # Noted before a restart: which rows is forgotten, in which panes is not.
            tables = (book.read(pane) for pane in book.page.unwritten)
            found = [windows.row_keys(store, table) for table in tables if table is not None]
            self._changed[key] = found
        if len(changed):
            self._changed[key].append(windows.row_keys(store, changed))
            self._note_unwritten(book, changed)
        if not now or not self._changed[key]:
            return
        everything = pa.concat_tables(self._changed[key])
        self._changed[key], book.page.unwritten = [], []
        for rows in windows.early_rows(store, book, everything, watermark):
            yield from self._records(rows)

    @staticmethod
    def _note_unwritten(book: _StateBook, changed: pa.Table) -> None:
        """Note in which panes rows have changed."""
        panes = np.unique(changed[PANE].to_numpy()).tolist()
        book.page.unwritten = sorted({*book.page.unwritten, *panes})

    def _records(self, rows: windows.Rows) -> Iterable[Row]:
        return self._encoded(rows.view.name, window_columns(rows.view, rows.table))

    def _encoded(self, view: str, rows: pa.Table) -> Iterable[Row]:
        # A row of its own for each record costs PyFlink more than all that makes the record.
        for topic, keys, values in self._encoders[view].packed(rows):
            yield Row(topic, keys, values)

    @staticmethod
    def _is_closed(store: PaneStore, pane: int, watermark: int) -> bool:
        ends = (view.starts_with(pane)[0] + view.size - 1 for view in store.views)
        return min(ends) <= watermark

    def _ask_event_time(self, key: int, deadline: int | None, timers: _Timers) -> None:
        if deadline is None:
            return
        asked = self._event_timer.get(key)
        if asked is None or deadline < asked or asked <= timers.current_watermark():
            self._event_timer[key] = deadline
            timers.register_event_time_timer(deadline)

    def _ask_early(self, key: int, timers: _Timers) -> None:
        now, pause = timers.current_processing_time(), self.spec.early_fire_ms
        # Rows of what takes long to fold come less often, so that a busy job does not fall behind.
        pause = pause and max(pause, self._pace.pause)
        asked = self._early_timer.get(key)
        # Flink waits for the moment it was told, however far that is once the clock was set back.
        if pause and (asked is None or not now - _LOST * pause <= asked <= now + pause):
            self._early_timer[key] = now + pause
            timers.register_processing_time_timer(now + pause)

    def _ask_merge(self, store: MergedStore, timers: _Timers) -> None:
        now = timers.current_processing_time()
        pause = self._pause(store, timers)
        # All parcels of a pause ask for the same timer.
        timers.register_processing_time_timer(now - now % pause + pause)

    def _ask_spare(self, key: int, timers: _Timers) -> None:
        """See that one timer at least stays from those asked for a while ago."""
        now = timers.current_processing_time()
        last = self._spare_timer.get(key, now)
        if not now <= last <= now + 2 * _SPARE_MS:
            # None for long, or the clock was set.
            last = now
        while last <= now + _SPARE_MS:
            last += _SPARE_MS
            timers.register_processing_time_timer(last)
        self._spare_timer[key] = last


class _Timers:
    """Flink's timers by the stream's watermark, which Flink's own trails by `hold` ms."""

    def __init__(self, service: Any, hold: int) -> None:
        self._service, self._hold = service, hold
        self.current_processing_time = service.current_processing_time
        self.register_processing_time_timer = service.register_processing_time_timer

    def current_watermark(self) -> int:
        """Return the stream's watermark, epoch ms; the least integer before the first."""
        watermark: int = self._service.current_watermark()
        return watermark if watermark <= lateness.UNKNOWN else watermark + self._hold

    def register_event_time_timer(self, moment: int) -> None:
        """Ask for a timer when the stream's watermark passes `moment`."""
        self._service.register_event_time_timer(moment - self._hold)


def _forget_read(states: Any) -> None:
    """Have PyFlink forget what it has read and written of a map state of the present key.

    It keeps the newest thousand entries of each, whatever their size; what is yet to be written
    stands elsewhere. Only with its own operators is there anything to forget.
    """
    if isinstance(states, SynchronousMapRuntimeState):
        internal = states.get_internal_state()
        internal._map_state_handler.clear_read_cache(internal._state_key)


class _StateBook:
    """A `PaneBook` over Flink's state; reads once, writes at `commit`, and only what lasts."""

    def __init__(self, store: Store, page: Any, panes: Any, layout: bytes) -> None:
        self._store, self._page_state, self._panes, self._layout = store, page, panes, layout
        stored = page.value()
        fresh = BookPage(lateness.UNKNOWN, [], [])
        self.page = BookPage.from_bytes(bytes(stored), layout) if stored else fresh
        self._stored = set(self.page.panes)
        self._read: dict[int, pa.Table] = {}
        self._written: dict[int, pa.Table] = {}

    def starts(self) -> list[int]:
        """Return the starts of all panes kept, ascending."""
        return self.page.panes

    def read(self, pane: int) -> pa.Table | None:
        """Return a pane's table, or None."""
        if pane in self._written:
            return self._written[pane]
        if pane not in self._read and pane in self._stored:
            self._read[pane] = from_bytes(self._store, bytes(self._panes.get(pane)))
        return self._read.get(pane)

    def write(self, pane: int, table: pa.Table) -> None:
        """Replace a pane's table."""
        if pane not in self.page.panes:
            self.page.panes = sorted((*self.page.panes, pane))
        self._written[pane] = table

    def remove(self, pane: int) -> None:
        """Forget a pane."""
        self.page.panes = [kept for kept in self.page.panes if kept != pane]
        self.page.unwritten = [kept for kept in self.page.unwritten if kept != pane]
        self._written.pop(pane, None)

    def commit(self) -> None:
        """Write what changed to the state."""
        for pane in self._stored.difference(self.page.panes):
            self._panes.remove(pane)
        for pane, table in self._written.items():
            self._panes.put(pane, table_bytes(table))
        self._page_state.update(self.page.to_bytes(self._layout))
