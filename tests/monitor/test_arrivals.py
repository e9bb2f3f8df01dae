"""Since when a reader has something to read."""

from __future__ import annotations

from deploy.monitor.arrivals import Arrivals

PLACE = ("events.clicks", 0)


def seen(*ends: tuple[float, int], kept: int = 1024) -> Arrivals:
    arrivals = Arrivals(kept)
    for now, end in ends:
        arrivals.saw(PLACE, end, now)
    return arrivals


def test_a_record_is_as_old_as_the_first_end_beyond_it() -> None:
    arrivals = seen((10, 5), (20, 8), (30, 8), (40, 9))
    assert arrivals.behind_seconds(PLACE, 4, now=50) == 40
    assert arrivals.behind_seconds(PLACE, 5, now=50) == 30
    assert arrivals.behind_seconds(PLACE, 7, now=50) == 30
    assert arrivals.behind_seconds(PLACE, 8, now=50) == 10


def test_who_has_read_all_is_not_behind() -> None:
    arrivals = seen((10, 5))
    assert arrivals.behind_seconds(PLACE, 5, now=99) == 0
    assert arrivals.behind_seconds(("events.clicks", 1), 0, now=99) == 0


def test_a_topic_created_anew_begins_anew() -> None:
    arrivals = seen((10, 100), (20, 3))
    assert arrivals.behind_seconds(PLACE, 0, now=25) == 5


def test_the_long_past_is_thinned_and_the_recent_is_exact() -> None:
    arrivals = seen(*((float(second), second) for second in range(1, 102)), kept=100)
    assert arrivals.behind_seconds(PLACE, 99, now=102) == 2
    assert arrivals.behind_seconds(PLACE, 60, now=102) == 41
    assert arrivals.behind_seconds(PLACE, 0, now=102) == 100
