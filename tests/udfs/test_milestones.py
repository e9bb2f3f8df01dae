"""Milestones from parcels: however events are split and mixed, the same as by a plain loop."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.udfs.book import Book
from udfs.milestones import TOTALS, MilestoneStore

SECOND, MINUTE, DAY = 1_000, 60_000, 86_400_000
LATENESS = 30 * SECOND
STORE = MilestoneStore(
    name="page_milestones@milestones",
    view="page_milestones",
    dimensions=("site", "page"),
    id_field="event_id",
    counted="views",
    reached="reached_at",
    every=10,
    pane=MINUTE,
    allowed_lateness=LATENESS,
    kept=DAY,
)
Event = tuple[int, str, str, str]
"""Time, site, page and id."""
Row = tuple[Any, ...]


def parcel(events: Sequence[Event]) -> pa.Table:
    times, *columns = zip(*events, strict=True) if events else ((), (), (), ())
    table = pa.table(
        [pa.array(column, pa.string()) for column in columns], names=["site", "page", "event_id"]
    )
    return STORE.from_events(table, np.array(times, dtype=np.int64))


def counted(portions: Iterable[Sequence[Event]], watermarks: Sequence[int] = ()) -> list[Row]:
    """Return the rows when events come in `portions`, time passing after each, and at the end."""
    book, found = Book(), list[Row]()
    for place, portion in enumerate(portions):
        if portion:
            STORE.add(book, [parcel(portion)])
        found += rows(STORE.close(book, watermarks[place] if watermarks else -(2**62)))
    found += rows(STORE.close(book, max(book.starts()) + DAY // 2))
    assert book.starts() == [TOTALS]
    return sorted(found)


def rows(tables: Iterable[pa.Table]) -> list[Row]:
    found: list[Row] = []
    for table in tables:
        columns = [table[name] for name in ("site", "page", "views", "reached_at", "event_id")]
        columns[3] = columns[3].cast(pa.int64())
        found += zip(*(column.to_pylist() for column in columns), strict=True)
    return found


def by_loop(events: Iterable[Event]) -> list[Row]:
    seen: Counter[tuple[str, str]] = Counter()
    found = []
    for time, site, page, event_id in sorted(events, key=lambda one: (one[0], one[3])):
        seen[site, page] += 1
        if seen[site, page] % STORE.every == 0:
            found.append((site, page, seen[site, page], time, event_id))
    return sorted(found)


def traffic(seed: int, count: int = 900) -> list[Event]:
    chance = random.Random(seed)
    return [
        (
            # Whole seconds: many events happen at one instant.
            chance.randrange(10 * 60) * SECOND,
            chance.choice("ab"),
            chance.choice("xyz"),
            f"{chance.randrange(10**9)}",
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("seed", range(6))
def test_any_order_and_any_parcels_give_the_rows_of_a_loop(seed: int) -> None:
    events, chance = traffic(seed), random.Random(seed)
    edges = sorted(chance.sample(range(len(events)), 12))
    portions = [events[a:b] for a, b in pairwise([0, *edges, len(events)])]

    expected = by_loop(events)
    assert len(expected) > 50
    assert counted(portions) == expected


@pytest.mark.parametrize("seed", range(4))
def test_while_time_passes_the_count_goes_on_from_what_is_closed(seed: int) -> None:
    chance = random.Random(seed)
    events = sorted(traffic(seed), key=lambda one: one[0] + chance.randrange(20 * SECOND))
    portions = [events[begin : begin + 25] for begin in range(0, len(events), 25)]
    newest = np.maximum.accumulate([max(time for time, *_ in portion) for portion in portions])

    assert counted(portions, (newest - 20 * SECOND).tolist()) == by_loop(events)


def test_a_milestone_is_told_once_no_older_event_can_come() -> None:
    book = Book()
    STORE.add(book, [parcel([(MINUTE + n, "a", "x", f"{n}") for n in range(10)])])
    closes = 2 * MINUTE - 1 + LATENESS

    assert rows(STORE.close(book, closes - 1)) == []
    assert STORE.next_deadline(book) == closes
    assert rows(STORE.close(book, closes)) == [("a", "x", 10, MINUTE + 9, "9")]
    assert rows(STORE.close(book, 2**62 - 1)) == []
    assert STORE.next_deadline(book) is None


def test_one_pane_may_pass_several_milestones() -> None:
    events = [(n, "a", "x", f"{n:02}") for n in range(35)]

    assert [row[2:] for row in counted([events])] == [(10, 9, "09"), (20, 19, "19"), (30, 29, "29")]


def test_a_key_without_events_for_long_is_counted_anew() -> None:
    book = Book()
    seven = [(n, "a", "x", f"{n}") for n in range(7)]
    STORE.add(book, [parcel(seven)])
    assert rows(STORE.close(book, DAY)) == []
    assert len(book.tables[TOTALS]) == 1

    STORE.add(book, [parcel(_later(seven, DAY))])
    assert rows(STORE.close(book, 2 * DAY)) == [("a", "x", 10, DAY + 2, "2")]

    STORE.add(book, [parcel(_later(seven, 4 * DAY))])
    assert rows(STORE.close(book, 3 * DAY)) == []
    assert rows(STORE.close(book, 5 * DAY)) == []


def _later(events: Sequence[Event], by: int) -> list[Event]:
    return [(time + by, site, page, event_id) for time, site, page, event_id in events]
