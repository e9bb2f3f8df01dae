"""Which windows late events repair, and their rows computed anew; times are passed in."""

from __future__ import annotations

from jobs.page_views import PAGE_VIEWS_PER_MINUTE, PAGE_VIEWS_SLIDING
from jobs.plan import pane_stores
from jobs.views import WindowView
from replay.late import Event, Recomputed, Sorted, rows_by_key, sort_out, spans, strangers
from schemas.streams import PAGE_VIEWS
from tests import datasets
from tests.oracle import MINUTE, SECOND
from udfs.decode import Decoder, needed_fields
from udfs.panes import PaneStore

T = datasets.EVENING


def store_of(view: WindowView) -> PaneStore:
    (store,) = pane_stores(PAGE_VIEWS, (view,))
    return store


def seen(offset: int, ms: int, user: str, page: str = "/a", duration: int | None = None) -> Event:
    event = {"event_id": str(offset), "event_time": T + ms, "user_id": user, "page_id": page}
    value = datasets.frame({**event, "duration_ms": duration}, 1)
    return Event(0, offset, T + ms, value)


def recomputed(view: WindowView, late: Sorted, taken: list[Event]) -> Recomputed:
    fields = needed_fields(PAGE_VIEWS, {"page_id", "user_id", "duration_ms", "status"})
    decoder = Decoder(PAGE_VIEWS, lambda number: datasets.V1 if number == 1 else None, fields)
    found = Recomputed(PAGE_VIEWS, store_of(view), decoder, late)
    found.take(taken)
    return found


def test_an_event_waits_until_no_partition_can_add_to_any_of_its_windows() -> None:
    event, store = seen(7, 30 * SECOND, "u"), store_of(PAGE_VIEWS_SLIDING)
    expires = T + 10 * MINUTE - 1
    assert sort_out(store, [event], (), expires - 1, None).waiting == (event,)
    assert sort_out(store, [event], (), expires, None).ready == (event,)
    assert sort_out(store, [event], {(0, 7)}, expires, None).repaired == (event,)
    assert sort_out(store, [event], (), expires, T + MINUTE).expired == (event,)


def test_spans_reach_from_a_pane_to_the_last_event_taken_in_it() -> None:
    store = store_of(PAGE_VIEWS_PER_MINUTE)
    past = 6 * MINUTE + 10 * SECOND - 1
    assert spans(PAGE_VIEWS, store, {T}) == [(T, T + past)]
    hour = 60 * MINUTE
    found = spans(PAGE_VIEWS, store, {T + hour, T + MINUTE, T})
    assert found == [(T, T + MINUTE + past), (T + hour, T + hour + past)]


def test_a_late_event_changes_the_row_of_its_own_page_and_minute_only() -> None:
    late = Sorted(
        repaired=(), ready=(seen(9, 30 * SECOND, "u", duration=4),), waiting=(), expired=()
    )
    taken = [
        seen(0, 5 * SECOND, "u", duration=2),
        seen(1, 6 * SECOND, "w"),
        seen(2, 7 * SECOND, "x", "/b"),
        seen(3, 70 * SECOND, "y"),
        seen(9, 30 * SECOND, "u", duration=4),
    ]
    found = recomputed(PAGE_VIEWS_PER_MINUTE, late, taken)
    store = found.store
    assert rows_by_key(store, found.before()) == {(T, "/a"): (2, 2, 2.0, 0)}
    assert rows_by_key(store, found.after()) == {(T, "/a"): (3, 2, 3.0, 0)}


def test_repaired_events_count_and_waiting_ones_do_not() -> None:
    late = Sorted(
        repaired=(seen(7, SECOND, "r"),),
        ready=(seen(8, 2 * SECOND, "u"),),
        waiting=(seen(9, 3 * SECOND, "v"),),
        expired=(),
    )
    found = recomputed(PAGE_VIEWS_PER_MINUTE, late, [*late.all, seen(0, 4 * SECOND, "w")])
    assert rows_by_key(found.store, found.before()) == {(T, "/a"): (2, 2, None, 0)}
    assert rows_by_key(found.store, found.after()) == {(T, "/a"): (3, 3, None, 0)}


def test_a_late_event_alone_in_its_windows_makes_new_rows() -> None:
    late = Sorted(repaired=(), ready=(seen(9, 0, "u"),), waiting=(), expired=())
    found = recomputed(PAGE_VIEWS_SLIDING, late, [])
    assert rows_by_key(found.store, found.before()) == {}
    after = rows_by_key(found.store, found.after())
    assert after == {(T - back * MINUTE, "/a"): (1, 1, None, 0) for back in range(5)}


def test_a_late_event_that_is_bad_by_now_is_refused() -> None:
    bad = Event(0, 9, T, b"\x01")
    found = recomputed(PAGE_VIEWS_PER_MINUTE, Sorted((), (bad,), (), ()), [seen(0, 0, "u")])
    assert found.refused == {(0, 9): "bad_magic"}
    assert rows_by_key(found.store, found.after()) == {}


def test_a_row_that_fits_neither_before_nor_after_is_a_stranger() -> None:
    key = (T, "/a")
    assert strangers({key: (1,)}, {key: (1,)}, {key: (2,)}) == []
    assert strangers({key: (2,)}, {key: (1,)}, {key: (2,)}) == []
    assert strangers({key: (3,)}, {key: (1,)}, {key: (2,)}) == [key]
    assert strangers({}, {}, {key: (1,)}) == []
