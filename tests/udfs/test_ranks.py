"""The most viewed of each window: however events are split, the same as by a plain loop."""

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
from udfs.counts import OVER
from udfs.envelope import from_bytes, table_bytes
from udfs.panes import split
from udfs.ranks import RankStore

SECOND, MINUTE, HOUR = 1_000, 60_000, 3_600_000
LATENESS, DISORDER = 5 * MINUTE, 20 * SECOND
STORE = RankStore(
    name="top_pages@ranks",
    view="top_pages",
    keys=("site", "page"),
    size=HOUR,
    pane=MINUTE,
    allowed_lateness=LATENESS,
    counted="views",
    rank="rank",
    top=3,
)
END = HOUR - 1 + LATENESS
"""The watermark from which the first window is over."""
Event = tuple[int, str, str]
"""Time, site and page."""
Row = tuple[Any, ...]


def parcel(events: Sequence[Event]) -> pa.Table:
    times, *columns = zip(*events, strict=True)
    table = pa.table([pa.array(column) for column in columns], names=["site", "page"])
    made = STORE.from_events(table, np.array(times, dtype=np.int64))
    ((bucket, batch),) = split(STORE, made, 8)
    assert bucket == 0
    return pa.Table.from_batches([batch])


def advanced(book: Book, events: Sequence[Event], watermark: int) -> list[Row]:
    found: list[Row] = []
    for view, table in STORE.advance(book, [parcel(events)] if events else [], watermark):
        assert view == "top_pages"
        columns = [table[name] for name in table.column_names]
        columns[:2] = [column.cast(pa.int64()) for column in columns[:2]]
        found += zip(*(column.to_pylist() for column in columns), strict=True)
        names = ["window_start", "window_end", "rank", "site", "page", "views"]
        assert table.column_names == names
    return found


def by_loop(events: Iterable[Event]) -> list[Row]:
    hours: dict[int, Counter[tuple[str, str]]] = defaultdict(Counter)
    for time, *key in events:
        hours[time // HOUR * HOUR][key[0], key[1]] += 1
    return [
        (hour, hour + HOUR, place, *key, count)
        for hour, counts in sorted(hours.items())
        for place, (key, count) in enumerate(
            sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:3], 1
        )
    ]


def traffic(seed: int, count: int = 2_000) -> list[Event]:
    chance = random.Random(seed)
    pages = ["", "/", "/a", "/ä", "/b", "/z"]
    return [
        (chance.randrange(6 * HOUR), chance.choice("ab"), chance.choice(pages))
        for _ in range(count)
    ]


@pytest.mark.parametrize("seed", range(6))
def test_any_order_and_any_parcels_give_the_rows_of_a_loop(seed: int) -> None:
    events, chance = traffic(seed), random.Random(seed)
    edges = sorted(chance.sample(range(len(events)), 12))
    book, found = Book(), list[Row]()

    for begin, end in pairwise([0, *edges, len(events)]):
        found += advanced(book, events[begin:end], -(2**62))
    assert found == []
    found = advanced(book, [], 2**60)

    expected = by_loop(events)
    assert len(expected) == 18
    assert found == expected
    assert book.starts() == [OVER]


@pytest.mark.parametrize("seed", range(4))
def test_while_time_passes_each_window_is_told_once_late_events_and_restarts_included(
    seed: int,
) -> None:
    chance = random.Random(seed)
    # Some come within the allowed lateness, after much that is newer.
    events = sorted(
        traffic(seed), key=lambda one: one[0] + chance.choice([0, DISORDER, LATENESS + DISORDER])
    )
    book, found, newest = Book(), list[Row](), 0
    for begin in range(0, len(events), 25):
        portion = events[begin : begin + 25]
        newest = max(newest, *(time for time, *_ in portion))
        if chance.random() < 0.2:
            book = reloaded(book)
            found += advanced(book, [], -(2**63))
        found += advanced(book, portion, newest - DISORDER)
    found += advanced(book, [], 2**60)

    assert found == by_loop(events)


def reloaded(book: Book) -> Book:
    """Return the book as Flink's state has it after a restart."""
    again = Book()
    for start, table in book.tables.items():
        again.write(start, from_bytes(STORE, table_bytes(table)))
    return again


def test_of_equals_the_lesser_is_the_first() -> None:
    pages = ["/b", "/B", "/ä", "/a", "/a"]
    assert [row[2:] for row in advanced(Book(), [(0, "s", page) for page in pages], END)] == [
        (1, "s", "/a", 2),
        (2, "s", "/B", 1),
        (3, "s", "/b", 1),
    ]


def test_a_window_is_told_once_no_event_of_it_comes_in_time_any_more() -> None:
    book = Book()
    assert advanced(book, [(HOUR - 1, "s", "/")], END - 1) == []
    assert STORE.next_deadline(book) == END
    assert advanced(book, [(HOUR - 1, "s", "/"), (HOUR, "s", "/next")], END) == [
        (0, HOUR, 1, "s", "/", 2)
    ]
    assert STORE.next_deadline(book) == END + HOUR
    assert book.starts() == [OVER, HOUR]


def test_what_a_restart_lets_through_for_a_window_that_is_over_changes_nothing() -> None:
    book = Book()
    assert len(advanced(book, [(0, "s", "/")], END)) == 1
    again = reloaded(book)

    assert advanced(again, [(5, "s", "/"), (HOUR, "s", "/next")], -(2**63)) == []
    assert again.starts() == [OVER, HOUR]
    assert advanced(again, [], END + HOUR) == [(HOUR, 2 * HOUR, 1, "s", "/next", 1)]


def test_a_batch_leaves_as_a_row_a_window_and_key() -> None:
    made = parcel([(7 + n, "s", "/") for n in range(1_000)] + [(HOUR, "s", "/")])

    assert len(made) == 2
    first = STORE.first_due(made.to_batches()[0])
    assert first == 7
    # Merged once the minute of its first event is over: an hour's parcels would be many.
    assert STORE.due(first) == MINUTE - 1 + LATENESS
