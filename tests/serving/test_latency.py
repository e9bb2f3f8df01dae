"""What events wait, read off two counts that only grow."""

from __future__ import annotations

from collections.abc import Iterator

from serving.latency import ArrivalCurve, Waiting
from serving.sampler import Events


def test_events_wait_from_the_middle_of_their_second_until_all_are_placed() -> None:
    curve = ArrivalCurve()
    curve.arrived(0.0, 100)
    curve.arrived(1.0, 110)
    curve.arrived(2.0, 130)
    curve.placed(3.0, 110)
    curve.placed(5.5, 130)
    assert curve.report(6.0) == Waiting(3.25, 4.0, 4.0, 0, None)


def test_events_that_are_not_placed_are_pending_and_get_older() -> None:
    curve = ArrivalCurve()
    curve.arrived(0.0, 0)
    curve.arrived(1.0, 5)
    curve.placed(2.0, 3)
    assert curve.report(4.0) == Waiting(None, None, None, 2, 3.5)


def test_events_from_before_the_first_look_count_as_pending_without_an_age() -> None:
    curve = ArrivalCurve()
    curve.arrived(0.0, 50)
    curve.placed(0.5, 20)
    assert curve.report(1.0) == Waiting(None, None, None, 30, None)


def test_nothing_is_said_to_be_placed_before_it_is_known_what_arrived() -> None:
    curve = ArrivalCurve()
    curve.placed(1.0, 20)
    assert curve.report(2.0) == Waiting(None, None, None, None, None)


def test_what_was_waited_is_forgotten_after_the_window() -> None:
    curve = ArrivalCurve(window_seconds=10)
    curve.arrived(0.0, 0)
    curve.arrived(1.0, 1)
    curve.placed(2.0, 1)
    assert curve.report(2.0).last == 1.5
    curve.placed(13.0, 1)
    assert curve.report(13.0) == Waiting(None, None, None, 0, None)


def test_a_topic_that_was_made_anew_begins_anew() -> None:
    curve = ArrivalCurve()
    curve.arrived(0.0, 100)
    curve.arrived(1.0, 120)
    curve.arrived(2.0, 5)
    curve.arrived(3.0, 7)
    curve.placed(4.0, 7)
    assert curve.report(4.0) == Waiting(1.5, 1.5, 1.5, 0, None)


def test_the_rate_is_that_of_the_last_seconds_and_its_history_that_of_each() -> None:
    clock: Iterator[float] = iter([1000.0, 1001.0, 1002.0, 1010.0, 1011.0])
    ends = iter([0, 10, 40, 40, 45])
    events = Events(lambda: {"page_views": next(ends)}, lambda: next(clock))
    for _ in range(4):
        events.arrived()
    assert events.arrived() == {
        "page_views": {
            "total": 45,
            "rate": 5.0,
            "history": [(1001, 10.0), (1002, 30.0), (1010, 0.0), (1011, 5.0)],
        }
    }


def test_looks_of_one_second_stay_two_and_a_slow_one_still_has_a_rate() -> None:
    clock: Iterator[float] = iter([1000.6, 1001.4, 1009.4])
    ends = iter([0, 8, 48])
    events = Events(lambda: {"page_views": next(ends)}, lambda: next(clock))
    assert events.arrived()["page_views"]["rate"] == 0.0
    events.arrived()
    assert events.arrived() == {
        "page_views": {"total": 48, "rate": 5.0, "history": [(1001.4, 10.0), (1009.4, 5.0)]}
    }


def test_events_that_two_jobs_read_wait_for_each_of_them() -> None:
    clock: Iterator[float] = iter([0.0, 1.0, 3.0])
    ends = iter([0, 10])
    events = Events(lambda: {"page_views": next(ends)}, lambda: next(clock))
    events.arrived()
    events.arrived()
    counts = {"version": 2, "aggregated": 9, "late": 0, "dead": 1}
    all_placed = {"median": 2.5, "longest": 2.5, "last": 2.5, "pending": 0, "oldest_pending": None}
    nothing = {"median": None, "longest": None, "last": None, "pending": 10, "oldest_pending": 2.5}
    none = {"version": 1, "aggregated": 0, "late": 0, "dead": 0}
    assert events.placed({"page_views": counts, "page_requests": none}) == {
        "page_views": {**counts, "reads": "page_views", **all_placed},
        "page_requests": {**none, "reads": "page_views", **nothing},
    }
