"""The panes' operator over a restart: what it had not written yet is written without new events."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
from pyflink.datastream import TimeDomain

from udfs.aggregate_panes import AggregatePanes, PaneSpec
from udfs.envelope import table_bytes
from udfs.joins import LEFT, RIGHT, Apart, JoinInput, JoinRows, JoinSide, JoinStore, Left
from udfs.measures import Count
from udfs.milestones import MilestoneStore
from udfs.panes import PaneStore, WindowedView
from udfs.ranks import RankStore
from udfs.rows import RowEncoder
from udfs.sessions import SessionStore

MINUTE = 60_000
KEY = 11
PAGES = PaneStore(
    "page@60000",
    ("page",),
    MINUTE,
    5 * MINUTE,
    (WindowedView("v", MINUTE, MINUTE, (("n", Count()),)),),
)
SCHEMA = """{"type": "record", "name": "v", "fields": [
    {"name": "page", "type": "string"},
    {"name": "window_start", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "window_end", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "n", "type": "long"}]}"""
VISITS_KEY = 12
VISITS = SessionStore(
    "visits@sessions", "s", ("page",), 30 * MINUTE, MINUTE, 5 * MINUTE, (("n", Count()),)
)
VISITS_SCHEMA = SCHEMA.replace("window", "session")
PAIRS_KEY = 13
LATENESS = 30_000
_PAGE = (("page", pa.string()),)
PAIRS = JoinStore(
    name="asked+answered@page",
    on="page",
    before=0,
    after=MINUTE,
    pane=10_000,
    sides=(
        JoinSide("asked", _PAGE, (), MINUTE, 10_000, LATENESS),
        JoinSide("answered", _PAGE, (), 0, 10_000, LATENESS),
    ),
    views=(
        JoinRows("p", None, (("page", Left("page")), ("n", Apart()))),
        JoinRows("a", LEFT, (("page", Left("page")),)),
    ),
)
PAIRS_SCHEMA = """{"type": "record", "name": "p", "fields": [
    {"name": "page", "type": "string"}, {"name": "n", "type": "long"}]}"""
ALONE_SCHEMA = """{"type": "record", "name": "a", "fields": [{"name": "page", "type": "string"}]}"""
STONES_KEY = 14
STONES = MilestoneStore(
    name="stones@milestones",
    view="m",
    dimensions=("page",),
    id_field="event_id",
    counted="n",
    reached="at",
    every=2,
    pane=MINUTE,
    allowed_lateness=LATENESS,
    kept=365 * 24 * 60 * MINUTE,
)
STONES_SCHEMA = """{"type": "record", "name": "m", "fields": [
    {"name": "page", "type": "string"}, {"name": "n", "type": "long"},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "event_id", "type": "string"}]}"""
RANKS_KEY = 15
RANKS = RankStore(
    name="ranks@ranks",
    view="r",
    keys=("page",),
    size=60 * MINUTE,
    pane=MINUTE,
    allowed_lateness=LATENESS,
    counted="n",
    rank="rank",
    top=2,
)
RANKS_SCHEMA = """{"type": "record", "name": "r", "fields": [
    {"name": "window_start", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "window_end", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "rank", "type": "long"}, {"name": "page", "type": "string"},
    {"name": "n", "type": "long"}]}"""
SPEC = PaneSpec(
    (PAGES, VISITS, PAIRS, STONES, RANKS),
    ((KEY,), (VISITS_KEY,), (PAIRS_KEY,), (STONES_KEY,), (RANKS_KEY,)),
    (
        ("v", RowEncoder("views.v.v1", SCHEMA, 1, ("window_start", "page"))),
        ("s", RowEncoder("views.s.v1", VISITS_SCHEMA, 2, ("page", "session_start"))),
        ("p", RowEncoder("views.p.v1", PAIRS_SCHEMA, 3, ("page", "n"))),
        ("a", RowEncoder("views.a.v1", ALONE_SCHEMA, 4, ("page",))),
        ("m", RowEncoder("views.m.v1", STONES_SCHEMA, 5, ("page", "n", "event_id"))),
        ("r", RowEncoder("views.r.v1", RANKS_SCHEMA, 6, ("rank", "page", "n"))),
    ),
    1000,
)


class State:
    """What Flink keeps over a restart: one key's states, and the timers asked for."""

    def __init__(self) -> None:
        self.fresh: list[bytes] = []
        self.page: bytes | None = None
        self.panes: dict[int, bytes] = {}
        self.timers: set[tuple[TimeDomain, int]] = set()

    def get_list_state(self, _: Any) -> Any:
        return SimpleNamespace(
            get=lambda: list(self.fresh), add=self.fresh.append, clear=self.fresh.clear
        )

    def get_state(self, _: Any) -> Any:
        return SimpleNamespace(value=lambda: self.page, update=lambda v: setattr(self, "page", v))

    def get_map_state(self, _: Any) -> Any:
        return SimpleNamespace(
            get=self.panes.get, put=self.panes.__setitem__, remove=self.panes.__delitem__
        )


class Task:
    """The operator as one task runs it, from its start to its end."""

    def __init__(self, state: State, key: int = KEY) -> None:
        self.state, self.key, self.watermark, self.now = state, key, -(2**63), 0
        self.operator = AggregatePanes(SPEC)
        self.operator.open(state)  # type: ignore[arg-type]

    def _context(self, domain: TimeDomain = TimeDomain.EVENT_TIME) -> Any:
        timers = SimpleNamespace(
            current_watermark=lambda: self.watermark,
            current_processing_time=lambda: self.now,
            register_event_time_timer=lambda at: self.state.timers.add((TimeDomain.EVENT_TIME, at)),
            register_processing_time_timer=lambda at: self.state.timers.add(
                (TimeDomain.PROCESSING_TIME, at)
            ),
        )
        return SimpleNamespace(
            timer_service=lambda: timers,
            get_current_key=lambda: self.key,
            time_domain=lambda: domain,
        )

    def send(self, second: int, page: str) -> None:
        events = pa.table({"page": [page]})
        panes = PAGES.from_events(events, np.array([second * 1000], dtype=np.int64))
        first = second // 60 * MINUTE
        self.operator.process_element((KEY, first, table_bytes(panes)), self._context())

    def visit(self, second: int, page: str, offset: int) -> None:
        events = pa.table({"page": [page], "source_offset": [offset]})
        made = VISITS.from_events(events, np.array([second * 1000], dtype=np.int64))
        parcel = (VISITS_KEY, VISITS.first_due(made.to_batches()[0]), table_bytes(made))
        self.operator.process_element(parcel, self._context())

    def come(self, second: int, page: str, side: int) -> None:
        """An event of one side of the join comes."""
        events = pa.table({"page": [page]})
        own = JoinInput(PAIRS, side)
        made = own.from_events(events, np.array([second * 1000], dtype=np.int64))
        parcel = (PAIRS_KEY, own.first_due(made.to_batches()[0]), table_bytes(made))
        self.operator.process_element(parcel, self._context())

    def count(self, second: int, event_id: str) -> None:
        """An event to be counted comes."""
        events = pa.table({"page": ["/"], "event_id": [event_id]})
        made = STONES.from_events(events, np.array([second * 1000], dtype=np.int64))
        parcel = (STONES_KEY, STONES.first_due(made.to_batches()[0]), table_bytes(made))
        self.operator.process_element(parcel, self._context())

    def ask(self, second: int, page: str) -> None:
        """An event to be ranked comes."""
        made = RANKS.from_events(pa.table({"page": [page]}), np.array([second * 1000]))
        parcel = (RANKS_KEY, RANKS.first_due(made.to_batches()[0]), table_bytes(made))
        self.operator.process_element(parcel, self._context())

    def advance(self, domain: TimeDomain, to: int) -> list[str]:
        """Fire the timers due at `to` and return the keys of the rows written."""
        if domain == TimeDomain.EVENT_TIME:
            self.watermark = to
        else:
            self.now = to
        keys = []
        for timer in sorted(t for t in self.state.timers if t[0] == domain and t[1] <= to):
            self.state.timers.discard(timer)
            rows = self.operator.on_timer(timer[1], self._context(domain))
            keys += [key.decode() for row in rows for key in row[1]]
        return keys


def test_a_restart_between_folding_and_writing_loses_no_row() -> None:
    state = State()
    before = Task(state)
    before.send(5, "/closed")
    before.send(65, "/open")
    closed = before.advance(TimeDomain.EVENT_TIME, MINUTE - 1)
    assert closed == ['["1970-01-01T00:00:00Z","/closed"]']
    assert state.fresh == []

    after = Task(state)

    written = after.advance(TimeDomain.PROCESSING_TIME, 10_000)
    # The closed window is not written again: of its panes some may be gone.
    assert written == ['["1970-01-01T00:01:00Z","/open"]']
    assert after.advance(TimeDomain.PROCESSING_TIME, 20_000) == []


def test_rows_of_what_takes_long_to_fold_come_less_often() -> None:
    task = Task(State())
    task.operator._pace.took(KEY, 250)
    task.send(65, "/open")
    clock = sorted(at for domain, at in task.state.timers if domain == TimeDomain.PROCESSING_TIME)
    assert clock[0] == 2_500, "ten times as long as a merge takes, not each second"


def test_early_rows_wait_while_event_time_runs_ahead_of_the_clock() -> None:
    task = Task(State())
    task.send(65, "/open")
    task.advance(TimeDomain.EVENT_TIME, MINUTE - 1)
    task.send(65, "/open")
    task.watermark = MINUTE + 20_000

    assert task.advance(TimeDomain.PROCESSING_TIME, 1_000) == []
    # Time stands still: it has caught up, and the row comes without another event.
    found = [task.advance(TimeDomain.PROCESSING_TIME, now) for now in range(1_100, 6_000, 100)]
    assert [rows for rows in found if rows] == [['["1970-01-01T00:01:00Z","/open"]']]


def test_windows_that_close_faster_than_the_clock_are_written_together() -> None:
    task = Task(State())
    task.now = 60_000
    # A merge that takes 150 ms is done again after 1.5 s.
    own = task.operator._encoded
    task.operator._encoded = lambda *rows: (setattr(task, "now", task.now + 150), own(*rows))[1]  # type: ignore[method-assign, func-returns-value]
    task.send(30, "/0")
    task.advance(TimeDomain.EVENT_TIME, 30_000)
    written = []
    for minute in range(1, 41):
        task.now += 100
        task.send(60 * minute + 30, f"/{minute}")
        written.append(task.advance(TimeDomain.EVENT_TIME, minute * MINUTE + 30_000))
        written[-1] += task.advance(TimeDomain.PROCESSING_TIME, task.now)
    until = task.now + 6_000
    while task.now < until:
        written.append(task.advance(TimeDomain.PROCESSING_TIME, task.now + 100))
    assert 2 <= len([keys for keys in written if keys]) <= 6
    closed = [key for keys in written for key in keys]
    wanted = {f'["1970-01-01T00:{minute:02}:00Z","/{minute}"]' for minute in range(41)}
    # That of the fortieth minute is an early one.
    assert sorted(closed) == sorted(wanted)


def test_what_is_not_due_asks_for_no_merge_while_the_job_catches_up() -> None:
    task = Task(State(), VISITS_KEY)
    task.now = 60_000
    task.visit(30, "/first", 0)
    task.watermark = 0
    task.visit(31, "/first", 1)
    assert task.advance(TimeDomain.EVENT_TIME, VISITS.closes(31_000))
    before = set(task.state.timers)
    task.visit(7_200, "/next", 2)
    (asked,) = task.state.timers - before
    assert asked == (TimeDomain.EVENT_TIME, VISITS.closes(7_200_000))


def test_a_lost_timer_is_asked_for_again_once_it_is_overdue() -> None:
    state = State()
    task = Task(state)
    task.send(65, "/early")
    state.timers.clear()
    task.now = 5_000
    task.send(66, "/early")
    assert state.timers == set()
    task.now = 20_000
    task.send(67, "/early")
    assert task.advance(TimeDomain.PROCESSING_TIME, 21_000) == ['["1970-01-01T00:01:00Z","/early"]']

    task.now = 60_000
    task.send(130, "/closing")
    state.timers.clear()
    task.watermark = 3 * MINUTE
    task.send(200, "/next")
    closed = task.advance(TimeDomain.EVENT_TIME, 4 * MINUTE - 1)
    assert '["1970-01-01T00:02:00Z","/closing"]' in closed
    assert '["1970-01-01T00:03:00Z","/next"]' in closed


def test_a_session_goes_on_over_a_restart_and_is_written_once_when_it_closes() -> None:
    state = State()
    before = Task(state, VISITS_KEY)
    before.now = 60_000
    before.visit(30, "/long", 0)
    before.visit(60, "/short", 1)
    # Both would close when the watermark is here, but for what has come by then.
    first = VISITS.closes(30_000)
    before.visit(20 * 60, "/long", 2)
    assert before.advance(TimeDomain.EVENT_TIME, first) == []
    assert state.fresh == []

    after = Task(state, VISITS_KEY)
    after.now = 120_000

    assert after.advance(TimeDomain.EVENT_TIME, VISITS.closes(60_000)) == [
        '["/short","1970-01-01T00:01:00Z"]'
    ]
    # Within a second nothing is merged again; then it is, without any further event.
    assert after.advance(TimeDomain.EVENT_TIME, VISITS.closes(20 * MINUTE)) == []
    assert after.advance(TimeDomain.PROCESSING_TIME, 121_000) == [
        '["/long","1970-01-01T00:00:30Z"]'
    ]
    after.now = 180_000
    assert after.advance(TimeDomain.EVENT_TIME, 10 * 60 * MINUTE) == []
    assert {domain for domain, _ in state.timers} == {TimeDomain.PROCESSING_TIME}


def test_a_pair_is_written_within_a_second_though_no_time_passes_and_over_a_restart() -> None:
    state = State()
    before = Task(state, PAIRS_KEY)
    before.now = 60_300
    before.come(5, "/a", LEFT)
    assert before.advance(TimeDomain.PROCESSING_TIME, 61_000) == []
    assert state.fresh == []

    after = Task(state, PAIRS_KEY)
    after.now = 70_500
    after.come(7, "/a", RIGHT)
    assert after.advance(TimeDomain.PROCESSING_TIME, 71_000) == ['["/a",2000]']
    assert after.advance(TimeDomain.PROCESSING_TIME, 99_000) == []


def test_what_stays_alone_is_written_when_it_expires_though_a_restart_forgot_its_timer() -> None:
    state = State()
    before = Task(state, PAIRS_KEY)
    before.come(5, "/alone", LEFT)
    before.come(6, "/paired", LEFT)
    before.come(6, "/paired", RIGHT)
    assert before.advance(TimeDomain.PROCESSING_TIME, 1_000) == ['["/paired",0]']
    state.timers = {one for one in state.timers if one[0] == TimeDomain.PROCESSING_TIME}

    after = Task(state, PAIRS_KEY)
    after.watermark = PAIRS.expiry(0) - 1
    assert after.advance(TimeDomain.PROCESSING_TIME, 20_000) == []
    assert after.advance(TimeDomain.EVENT_TIME, PAIRS.expiry(0)) == []
    assert after.advance(TimeDomain.PROCESSING_TIME, 21_000) == ['["/alone"]']
    assert state.panes == {}


def test_a_count_goes_on_over_a_restart() -> None:
    state = State()
    before = Task(state, STONES_KEY)
    before.now = 60_000
    for second, event_id in ((3, "c"), (1, "a"), (2, "b")):
        before.count(second, event_id)
    assert before.advance(TimeDomain.EVENT_TIME, STONES.closes(0) - 1) == []
    assert before.advance(TimeDomain.EVENT_TIME, STONES.closes(0)) == ['["/",2,"b"]']

    after = Task(state, STONES_KEY)
    after.now = 120_000
    after.watermark = before.watermark
    after.count(70, "d")
    assert after.advance(TimeDomain.EVENT_TIME, STONES.closes(MINUTE)) == ['["/",4,"d"]']


def test_ranks_are_told_once_their_hour_is_over_and_a_restart_tells_no_others() -> None:
    state = State()
    before = Task(state, RANKS_KEY)
    before.now = 60_000
    for second, page in ((3, "/b"), (1, "/a"), (2, "/b"), (4, "/c"), (3_600, "/next")):
        before.ask(second, page)
    # The hour's parcels are merged long before it is over.
    assert before.advance(TimeDomain.EVENT_TIME, MINUTE - 1 + LATENESS) == []
    assert state.fresh == []
    over = RANKS.closes(0)
    before.now = 120_000
    assert before.advance(TimeDomain.EVENT_TIME, over) == ['[1,"/b",2]', '[2,"/a",1]']

    after = Task(state, RANKS_KEY)
    after.now = 180_000
    after.ask(5, "/c")
    assert after.advance(TimeDomain.EVENT_TIME, over) == []
    after.now = 240_000
    assert after.advance(TimeDomain.EVENT_TIME, over + 60 * MINUTE) == ['[1,"/next",1]']


def test_a_checkpoint_without_its_newest_timers_silences_no_bucket() -> None:
    state = State()
    task = Task(state)
    task.send(65, "/0")
    assert task.advance(TimeDomain.PROCESSING_TIME, 1_000) == ['["1970-01-01T00:01:00Z","/0"]']
    for pause in (3_000, 9_000, 10_000, 11_000, 60_000):
        task.advance(TimeDomain.PROCESSING_TIME, task.now + pause)
        kept = set(state.timers)
        task.send(66, f"/{pause}")
        state.timers = kept
        restarted = Task(state)
        found = restarted.advance(TimeDomain.PROCESSING_TIME, task.now + 20_000)
        assert found == [f'["1970-01-01T00:01:00Z","/{pause}"]']
        task = restarted


def test_a_clock_that_jumps_asks_for_two_spare_timers() -> None:
    task = Task(State())
    for now in (0, 7_200_000, 3_600_000):
        task.state.timers.clear()
        task.now = now
        task.send(65, "/jump")
        spare = {at for _, at in task.state.timers} - {now + 1_000, 2 * MINUTE - 1}
        assert spare == {now + 10_000, now + 20_000}


def test_a_clock_that_is_set_back_holds_up_no_row() -> None:
    task = Task(State())
    task.now = 7_200_000
    task.send(65, "/open")
    task.now = 3_600_000
    task.send(65, "/open")
    assert task.advance(TimeDomain.PROCESSING_TIME, 3_601_000) == [
        '["1970-01-01T00:01:00Z","/open"]'
    ]

    visits = Task(State(), VISITS_KEY)
    visits.now = 7_200_000
    visits.visit(30, "/first", 0)
    visits.advance(TimeDomain.EVENT_TIME, VISITS.closes(30_000))
    visits.now = 3_600_000
    visits.visit(60 * 60, "/second", 1)
    assert visits.advance(TimeDomain.EVENT_TIME, VISITS.closes(60 * MINUTE)) == [
        '["/second","1970-01-01T01:00:00Z"]'
    ]


def test_a_spare_timer_does_not_read_sessions_of_which_none_is_due() -> None:
    task = Task(State(), VISITS_KEY)
    task.now = 60_000
    task.visit(30, "/open", 0)
    task.visit(20 * 60, "/open", 1)
    task.advance(TimeDomain.EVENT_TIME, VISITS.closes(30_000))
    # What is not there can't be read.
    task.state.panes.clear()
    assert task.advance(TimeDomain.PROCESSING_TIME, 120_000) == []


def test_what_comes_to_an_expired_pane_replaces_no_row_also_after_a_restart() -> None:
    state = State()
    task = Task(state)
    for second in (5, 6, 7):
        task.send(second, "/a")
    assert task.advance(TimeDomain.EVENT_TIME, 30 * MINUTE) == ['["1970-01-01T00:00:00Z","/a"]']
    assert state.panes == {}

    # A source that had been silent knows nothing of how far time is.
    task.now = 60_000
    task.send(8, "/a")
    task.send(1_801, "/a")
    assert _written(task, 31 * MINUTE) == ['["1970-01-01T00:30:00Z","/a"]']

    after = Task(state)
    after.send(9, "/a")
    assert _written(after, 1) == []
    assert state.fresh == []
    assert set(state.panes) == {30 * MINUTE}


def test_a_bucket_whose_first_events_come_too_late_writes_no_row_also_after_a_restart() -> None:
    state = State()
    task = Task(state)
    task.watermark = 30 * MINUTE
    task.send(5, "/silent")

    assert _written(Task(state), 1) == []
    assert _written(task, 31 * MINUTE) == []
    assert state.panes == {}


def test_what_comes_to_a_session_that_is_over_makes_no_other() -> None:
    task = Task(State(), VISITS_KEY)
    task.visit(30, "/a", 0)
    assert _written(task, VISITS.closes(30_000)) == ['["/a","1970-01-01T00:00:30Z"]']

    # Two that are over as well, one of them just within the gap, and one that is not.
    task.visit(31, "/a", 1)
    task.visit(1_830, "/a", 2)
    task.visit(7_200, "/b", 3)
    assert _written(task, VISITS.closes(31_000)) == []
    assert _written(task, VISITS.closes(7_200_000)) == ['["/b","1970-01-01T02:00:00Z"]']


def _written(task: Task, watermark: int) -> list[str]:
    """Return the keys of the rows that are written once time is at `watermark` and stands still."""
    written = task.advance(TimeDomain.EVENT_TIME, watermark)
    for _ in range(100):
        written += task.advance(TimeDomain.PROCESSING_TIME, task.now + 100)
    return written
