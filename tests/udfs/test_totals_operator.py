"""Totals in the panes' operator: after a pause, without more events, over restarts, read once."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.runners.worker.statecache import StateCache
from pyflink.datastream import TimeDomain
from pyflink.fn_execution.coders import BigIntCoder, BinaryCoder
from pyflink.fn_execution.state_impl import (
    CachingMapStateHandler,
    InternalSynchronousMapRuntimeState,
    SynchronousMapRuntimeState,
)

from tests.udfs.test_aggregate_panes import State, Task
from udfs import aggregate_panes
from udfs.aggregate_panes import AggregatePanes, PaneSpec
from udfs.envelope import table_bytes
from udfs.measures import Count, CountDistinct, Latest
from udfs.pace import LONGEST_PAUSE_MS
from udfs.rows import RowEncoder
from udfs.runs import RunMemory
from udfs.totals import TotalsStore

KEYS = (21, 22)
MEASURES = (("n", Count()), ("users", CountDistinct("user")), ("newest", Latest()))
STORE = TotalsStore("pages@totals", "t", ("page",), MEASURES)
SCHEMA = """{"type": "record", "name": "t", "fields": [
    {"name": "page", "type": "string"},
    {"name": "n", "type": "long"},
    {"name": "users", "type": "long"},
    {"name": "newest", "type": {"type": "long", "logicalType": "timestamp-millis"}}]}"""
ENCODER = RowEncoder("views.t.v1", SCHEMA, 1, ("page",))
Row = tuple[Any, ...]


class Watched(State):
    """State that notes which runs are read and written."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[int] = []
        self.written: list[int] = []

    def get_map_state(self, descriptor: Any) -> Any:
        states = super().get_map_state(descriptor)
        get, put = states.get, states.put
        states.get = lambda run: (self.read.append(run), get(run))[1]
        states.put = lambda run, body: (self.written.append(run), put(run, body))
        return states


class Totals(Task):
    """The operator with a store of totals."""

    def __init__(self, state: State, early_fire_ms: int = 1_000, now: int = 60_000) -> None:
        self.state, self.key, self.watermark, self.now = state, KEYS[0], -(2**63), now
        self.operator = AggregatePanes(
            PaneSpec((STORE,), (KEYS,), (("t", ENCODER),), early_fire_ms)
        )
        self.operator.open(state)  # type: ignore[arg-type]

    def see(self, *visits: tuple[str, str | None], at: int = 0) -> None:
        """A parcel of visits (page, user) comes."""
        pages, users = zip(*visits, strict=True)
        events = pa.table({"page": pa.array(pages), "user": pa.array(users, pa.string())})
        made = STORE.from_events(events, np.full(len(visits), at, dtype=np.int64))
        first = STORE.first_due(made.to_batches()[0])
        self.operator.process_element((self.key, first, table_bytes(made)), self._context())

    def wait(self, milliseconds: int) -> list[Row]:
        """Let time pass; return the rows written."""
        end, found = self.now + milliseconds, list[Row]()
        while due := sorted(t for d, t in self.state.timers if t <= end):
            self.now = max(self.now, due[0])
            self.state.timers.discard((TimeDomain.PROCESSING_TIME, due[0]))
            context = self._context(TimeDomain.PROCESSING_TIME)
            for row in self.operator.on_timer(due[0], context):
                found += decoded(row)
            if due[0] >= end:
                break
        self.now = end
        return sorted(found)


def decoded(row: Any) -> list[Row]:
    """Return the rows of a pack of records."""
    topic, keys, values = row
    assert topic == "views.t.v1"
    schema = fastavro.parse_schema(json.loads(SCHEMA))
    records: Sequence[Any] = [
        fastavro.schemaless_reader(io.BytesIO(value[5:]), schema, None) for value in values
    ]
    assert [json.loads(key) for key in keys] == [[record["page"]] for record in records]
    return [
        (one["page"], one["n"], one["users"], round(one["newest"].timestamp() * 1000))
        for one in records
    ]


def test_what_comes_within_a_pause_is_one_row_and_the_last_comes_without_another_event() -> None:
    task = Totals(Watched())
    task.see(("/", "a"), ("/", "b"), at=5)
    task.see(("/", "a"), ("/about", None), at=7)
    assert task.wait(999) == []
    assert task.wait(1) == [("/", 3, 2, 7), ("/about", 1, 0, 7)]
    task.see(("/", "c"), at=6)
    assert task.wait(1_000) == [("/", 4, 3, 7)]
    task.state.read.clear()
    assert task.wait(60_000) == []
    assert task.state.read == []


@pytest.mark.parametrize(("early_fire_ms", "pause"), [(0, 100), (50, 100), (400, 400)])
def test_the_pause_is_that_of_early_rows_but_no_less_than_a_tenth_of_a_second(
    early_fire_ms: int, pause: int
) -> None:
    task = Totals(Watched(), early_fire_ms)
    task.see(("/", "a"))
    assert task.wait(pause) == [("/", 1, 1, 0)]
    task.see(("/", "b"))
    assert task.wait(pause - 1) == []
    assert task.wait(1) == [("/", 2, 2, 0)]


def test_a_restart_loses_no_total_though_the_newest_timers_are_forgotten() -> None:
    state = Watched()
    task = Totals(state)
    task.see(("/", "a"), ("/", "b"))
    assert task.wait(1_000) == [("/", 2, 2, 0)]
    kept = set(state.timers)
    task.see(("/", "b"), ("/", "c"), at=9)
    state.timers = kept
    after = Totals(state, now=task.now + 500)
    assert after.wait(20_000) == [("/", 4, 3, 9)]
    # Both runs were read again, once.
    assert sorted(state.read) == [-1, 0]
    after.see(("/", "a"), ("/new", "a"))
    assert after.wait(1_000) == [("/", 5, 3, 9), ("/new", 1, 1, 0)]
    assert sorted(state.read) == [-1, 0]


def test_runs_that_stay_are_neither_read_nor_written_again() -> None:
    state = Watched()
    task = Totals(state)
    task.see(*((f"/{n}", f"user {n}") for n in range(500)))
    assert len(task.wait(1_000)) == 500
    state.written.clear()
    held = dict(state.panes)
    task.see(("/7", "another"))
    assert task.wait(1_000) == [("/7", 2, 2, 0)]
    assert (state.read, sorted(state.written)) == ([], [-2, 1])
    assert {run: state.panes[run] for run in held} == held


def test_what_memory_has_no_room_for_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aggregate_panes, "RunMemory", lambda: RunMemory(most_bytes=0))
    state = Watched()
    task = Totals(state)
    for number in range(5):
        task.see(("/", f"user {number}"), ("/", "user 0"))
        assert task.wait(1_000) == [("/", 2 * number + 2, number + 1, 0)]
    assert state.read


def test_a_job_that_catches_up_merges_for_a_tenth_of_the_time() -> None:
    task = Totals(Watched())
    own, clock = task.operator._encoded, [200]

    def slow(view: str, rows: pa.Table) -> Any:
        task.now += clock[0]
        return own(view, rows)

    task.operator._encoded = slow  # type: ignore[method-assign]
    task.watermark = 0
    task.see(("/", "a"))
    assert task.wait(1_000) == [("/", 1, 1, 0)]
    # Event time runs faster than the clock: what took 0.2 s is done again after 2 s.
    task.watermark = 3_600_000
    task.see(("/", "b"))
    merged = task.operator._merged_at[KEYS[0]]
    assert task.wait(merged + 1_999 - task.now) == []
    clock[0] = 20_000
    task.watermark *= 2
    assert task.wait(1) == [("/", 2, 2, 0)]
    # However long it takes, the last events' row does not wait for longer than a few seconds.
    task.watermark *= 2
    clock[0] = 200
    task.now = task.operator._merged_at[KEYS[0]] + 10
    task.see(("/", "c"))
    assert task.wait(LONGEST_PAUSE_MS - 11) == []
    assert task.wait(1) == [("/", 3, 3, 0)]
    # Time stands still: it has caught up.
    task.wait(3_000)
    task.see(("/", "d"))
    assert task.wait(1_000) == [("/", 4, 4, 0)]


def test_a_clock_that_is_set_back_holds_up_no_total() -> None:
    task = Totals(Watched(), now=7_200_000)
    task.see(("/", "a"))
    assert task.wait(1_000) == [("/", 1, 1, 0)]
    task.now = 3_600_000
    task.state.timers.clear()
    task.see(("/", "b"))
    assert task.wait(1_000) == [("/", 2, 2, 0)]


class Remote:
    """The JVM's side of a map state, which has nothing and notes that it was asked."""

    asked = 0

    def append_raw(self, key: Any, body: bytes) -> None:
        pass

    def get_raw(self, key: Any, token: bytes) -> tuple[bytes, bytes]:
        self.asked += 1
        return bytes([CachingMapStateHandler.NOT_EXIST_FLAG]), b""


def test_pyflink_forgets_the_runs_that_it_has_written() -> None:
    remote = Remote()
    context = SimpleNamespace(user_state_cache_token=b"token")
    caching = SimpleNamespace(
        _state_cache=StateCache(100 << 20), _underlying=remote, _context=context
    )
    key = SimpleNamespace(SerializeToString=lambda: b"key")
    states = object.__new__(SynchronousMapRuntimeState)
    states._internal_state = InternalSynchronousMapRuntimeState(
        CachingMapStateHandler(caching, 1_000), key, BigIntCoder(), BinaryCoder(), 1_000
    )
    states.put(7, b"a run")
    aggregate_panes._forget_read(states)
    assert (states.get(7), remote.asked) == (b"a run", 0)
    states._internal_state.commit()
    assert (states.get(7), remote.asked) == (b"a run", 0)
    aggregate_panes._forget_read(states)
    assert (states.get(7), remote.asked) == (None, 1)
