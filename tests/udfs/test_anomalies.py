"""Anomalies from parcels: however events are split and mixed, the same as by a plain loop."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.udfs.book import Book
from udfs.anomalies import AnomalyStore
from udfs.counts import OVER
from udfs.envelope import from_bytes, table_bytes

SECOND, MINUTE, HOUR = 1_000, 60_000, 3_600_000
LATENESS, DISORDER = 5 * MINUTE, 20 * SECOND
STORE = AnomalyStore(
    name="odd@anomalies",
    view="odd",
    keys=("site", "page"),
    size=MINUTE,
    pane=MINUTE,
    allowed_lateness=LATENESS,
    counted="views",
    lookback=6 * HOUR,
    spike=3,
    critical=10,
    baseline="baseline",
    severity="severity",
)
Event = tuple[int, str, str]
"""Time, site and page."""
Row = tuple[Any, ...]


def parcel(events: Sequence[Event]) -> pa.Table:
    times, *columns = zip(*events, strict=True)
    table = pa.table([pa.array(column) for column in columns], names=["site", "page"])
    return STORE.from_events(table, np.array(times, dtype=np.int64))


def advanced(book: Book, events: Sequence[Event], watermark: int) -> list[Row]:
    found: list[Row] = []
    for view, table in STORE.advance(book, [parcel(events)] if events else [], watermark):
        assert view == "odd"
        names = ["site", "page", "window_start", "window_end", "views", "baseline", "severity"]
        assert table.column_names == names
        columns = [table[name] for name in names]
        columns[2:4] = [column.cast(pa.int64()) for column in columns[2:4]]
        found += zip(*(column.to_pylist() for column in columns), strict=True)
    return found


def by_loop(events: Iterable[Event]) -> list[Row]:
    keys: dict[tuple[str, str], Counter[int]] = defaultdict(Counter)
    for moment, site, page in events:
        keys[site, page][moment // MINUTE * MINUTE] += 1
    rows: list[Row] = []
    for key, counts in keys.items():
        minutes = sorted(counts.items())
        for start, count in minutes:
            before = [n for minute, n in minutes if start - 6 * HOUR <= minute < start]
            if len(before) < 10:
                continue
            usual = float(before[0])
            for known in before[1:]:
                usual = 0.95 * usual + 0.05 * known
            usual = round(usual, 9)
            if count >= 3 * usual:
                severity = "critical" if count > 10 * usual else "spike"
                rows.append((*key, start, start + MINUTE, count, usual, severity))
    return sorted(rows)


def traffic(seed: int) -> list[Event]:
    """Return some thousand views of sixteen hours: pages read all the time, at times and by day."""
    chance = random.Random(seed)
    found: list[Event] = []
    for site, page, often in (("a", "/", 0.9), ("a", "/x", 0.2), ("b", "/", 0.05), ("b", "", 0.5)):
        for minute in range(16 * 60):
            if chance.random() < often and not (page == "/x" and 4 * 60 < minute < 11 * 60):
                count = chance.choice([1, 1, 2, 2, 3]) * chance.choice([1] * 30 + [4, 20])
                found += [
                    (minute * MINUTE + chance.randrange(MINUTE), site, page) for _ in range(count)
                ]
    return found


def reloaded(book: Book) -> Book:
    """Return the book as Flink's state has it after a restart."""
    again = Book()
    for start, table in book.tables.items():
        again.write(start, from_bytes(STORE, table_bytes(table)))
    return again


@pytest.mark.parametrize("seed", range(4))
def test_any_order_and_any_parcels_give_the_rows_of_a_loop(seed: int) -> None:
    events, chance = traffic(seed), random.Random(seed)
    chance.shuffle(events)
    edges = sorted(chance.sample(range(len(events)), 12))
    book = Book()

    for begin, end in pairwise([0, *edges, len(events)]):
        assert advanced(book, events[begin:end], -(2**62)) == []
    found = sorted(advanced(book, [], 2**60))

    expected = by_loop(events)
    assert {row[-1] for row in expected} == {"spike", "critical"}
    assert len(expected) > 50
    assert found == expected
    assert book.starts() == [OVER]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [40, 1_500])
def test_while_time_passes_each_is_told_once_late_events_and_restarts_included(
    seed: int, size: int
) -> None:
    chance = random.Random(seed)
    events = sorted(
        traffic(seed), key=lambda one: one[0] + chance.choice([0, DISORDER, LATENESS + DISORDER])
    )
    book, found, newest = Book(), list[Row](), 0
    for begin in range(0, len(events), size):
        portion = events[begin : begin + size]
        newest = max(newest, *(moment for moment, *_ in portion))
        if chance.random() < 0.2:
            book = reloaded(book)
            found += advanced(book, [], -(2**63))
        found += advanced(book, portion, newest - DISORDER)
        kept = min(start for start in book.starts() if start != OVER)
        assert kept > newest - 6 * HOUR - LATENESS - DISORDER - HOUR - MINUTE
    found += advanced(book, [], 2**60)

    assert sorted(found) == by_loop(events)
    assert len(found) == len(set(found))


def test_a_minute_is_told_once_no_event_of_it_comes_in_time_any_more() -> None:
    book = Book()
    minutes = [(minute * MINUTE, "a", "/") for minute in range(10)]
    assert advanced(book, minutes, 10 * MINUTE - 1 + LATENESS) == []
    closes = 20 * MINUTE - 1 + LATENESS
    spike = [(19 * MINUTE, "a", "/")] * 3

    assert advanced(book, spike[:2], closes - 1) == []
    assert STORE.next_deadline(book) == closes
    assert advanced(book, spike[2:], closes) == [
        ("a", "/", 19 * MINUTE, 20 * MINUTE, 3, 1.0, "spike")
    ]
    assert advanced(book, [], 2**60) == []


def test_minutes_of_just_six_hours_before_count_and_older_ones_do_not() -> None:
    usual = [(minute * MINUTE, "a", "/") for minute in range(10)]
    for start, count in ((6 * 60, 1), (6 * 60 + 1, 0)):
        book = Book()
        assert advanced(book, usual + [(start * MINUTE, "a", "/")] * 5, -(2**63)) == []
        assert len(advanced(book, [], 2**60)) == count


def test_what_a_restart_lets_through_for_a_minute_that_is_over_changes_nothing() -> None:
    book = Book()
    usual = [(minute * MINUTE, "a", "/") for minute in range(11)]
    assert advanced(book, usual, 11 * MINUTE - 1 + LATENESS) == []
    again = reloaded(book)

    assert advanced(again, usual[10:] * 50, -(2**63)) == []
    spike = [(11 * MINUTE, "a", "/")] * 4
    (row,) = advanced(again, spike, 12 * MINUTE - 1 + LATENESS)
    assert row[-2:] == (1.0, "spike")


def test_state_ends_without_any_further_event() -> None:
    book, watermark = Book(), 0
    advanced(book, [(0, "a", "/"), (HOUR, "a", "/")], 0)
    ends = []
    while (deadline := STORE.next_deadline(book)) is not None:
        assert deadline > watermark
        watermark = deadline
        ends.append(watermark)
        assert advanced(book, [], watermark) == []

    assert ends == [
        MINUTE - 1 + LATENESS,
        HOUR + MINUTE - 1 + LATENESS,
        7 * HOUR - 1 + LATENESS,
        8 * HOUR - 1 + LATENESS,
    ]
    assert book.starts() == [OVER]


def test_hours_of_a_thousand_pages_are_judged_together() -> None:
    pages, minutes = 1_000, 166
    places = np.repeat(np.arange(pages), minutes)
    starts = np.tile(np.arange(minutes) * MINUTE, pages)
    views = np.random.default_rng(4).poisson(5, len(starts)) + 1
    names = pa.array([f"/page/{page}" for page in range(pages)]).take(pa.array(places))
    sites = pa.array(["s"] * len(starts))
    book = Book()
    counts = pa.table([sites, names, pa.array(starts), pa.array(views)], schema=STORE.schema)
    ((_, rows),) = STORE.advance(book, [counts], 2**60)

    assert 0 < len(rows) < 1_000
