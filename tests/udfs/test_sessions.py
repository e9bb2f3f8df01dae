"""Sessions from fragments: however events are split and mixed, the same as by a plain loop."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.udfs.book import Book
from udfs.measures import Count, Duration, First, Last, Mean, Single, Sum
from udfs.panes import split
from udfs.sessions import SessionStore

MINUTE = 60_000
GAP = 30 * MINUTE
STORE = SessionStore(
    "visits@sessions",
    "visits",
    ("site", "user"),
    GAP,
    MINUTE,
    5 * MINUTE,
    (
        ("pages", Count()),
        ("errors", Count("status", ">=", 500)),
        ("spent", Sum("ms")),
        ("mean", Mean("ms")),
        ("duration_ms", Duration()),
        ("entry", First("page")),
        ("exit", Last("page")),
        ("is_bounce", Single()),
    ),
)
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("site", "user", "page")),
        ("status", pa.int32()),
        ("ms", pa.int64()),
        ("source_offset", pa.int64()),
    ]
)
Event = dict[str, Any]


def event(offset: int, at: int, user: str = "ann", page: str = "/", **more: Any) -> Event:
    facts = {"site": "s", "status": 200, "ms": None} | more
    return {"source_offset": offset, "at": at, "user": user, "page": page} | facts


def fragments(events: Sequence[Event]) -> pa.Table:
    times = np.array([one["at"] for one in events], dtype=np.int64)
    columns = [{k: v for k, v in one.items() if k != "at"} for one in events]
    return STORE.from_events(pa.Table.from_pylist(columns, schema=SCHEMA), times)


def rows(table: pa.Table) -> list[tuple[Any, ...]]:
    return plain(STORE.rows(table))


def plain(found: pa.Table) -> list[tuple[Any, ...]]:
    instants = [found[name].cast(pa.int64()) for name in ("session_start", "session_end")]
    rest = [found[name].to_pylist() for name, _ in STORE.measures]
    keys = [found[name].to_pylist() for name in STORE.dimensions]
    return sorted(zip(*keys, *(i.to_pylist() for i in instants), *rest, strict=True))


def by_loop(events: Sequence[Event]) -> list[tuple[Any, ...]]:
    """Return the rows that a loop over each user's events makes."""
    of_user = defaultdict(list)
    for one in sorted(events, key=lambda e: (e["at"], e["source_offset"])):
        of_user[one["site"], one["user"]].append(one)
    result = []
    for key, own in of_user.items():
        session: list[Event] = []
        for one in [*own, None]:
            if session and (one is None or one["at"] - session[-1]["at"] > GAP):
                spent = [e["ms"] for e in session if e["ms"] is not None]
                start, end = session[0]["at"], session[-1]["at"]
                result.append(
                    (
                        *key,
                        start,
                        end,
                        len(session),
                        sum(e["status"] >= 500 for e in session),
                        sum(spent) if spent else None,
                        sum(spent) / len(spent) if spent else None,
                        end - start,
                        session[0]["page"],
                        session[-1]["page"],
                        len(session) == 1,
                    )
                )
                session = []
            if one is not None:
                session.append(one)
    return sorted(result)


@pytest.mark.parametrize("seed", range(20))
def test_any_split_in_any_order_gives_the_sessions_of_a_loop(seed: int) -> None:
    draw = random.Random(seed)
    span = draw.choice([2, 10, 100]) * 60 * MINUTE
    events = [
        event(
            offset,
            draw.randrange(0, span, draw.choice([1, MINUTE, GAP])),
            user=f"u{draw.randrange(8)}",
            page=f"/{offset}",
            site=draw.choice(["a", "b"]),
            status=draw.choice([200, 500]),
            ms=draw.choice([None, draw.randrange(1000)]),
        )
        for offset in range(draw.randrange(1, 400))
    ]
    parts: list[list[Event]] = [[] for _ in range(draw.randrange(1, 12))]
    for one in events:
        draw.choice(parts).append(one)
    tables = [fragments(part) for part in parts if part]
    draw.shuffle(tables)
    kept = tables[0]
    for table in tables[1:]:
        kept = STORE.merge([kept, table] if draw.random() < 0.5 else [table, kept])
    assert rows(kept) == by_loop(events)
    halves = [STORE.merge([pa.Table.from_batches([part])]) for _, part in split(STORE, kept, 3)]
    assert rows(pa.concat_tables(halves)) == by_loop(events)


def test_a_pause_as_long_as_the_gap_joins_and_a_longer_one_parts() -> None:
    joined = fragments([event(0, 0), event(1, GAP)])
    parted = fragments([event(0, 0), event(1, GAP + 1)])
    assert (len(joined), len(parted)) == (1, 2)


def test_an_event_between_joins_two_sessions() -> None:
    apart = fragments([event(0, 0, page="/a"), event(1, 2 * GAP, page="/c")])
    (row,) = rows(STORE.merge([apart, fragments([event(2, GAP, page="/b")])]))
    assert row[2:5] == (0, 2 * GAP, 3)
    assert row[-3:] == ("/a", "/c", False)


def test_a_session_closes_when_no_event_in_time_can_belong_to_it() -> None:
    table = fragments([event(0, 90_000)])
    # What belongs to it has a time of 31.5 minutes at most: its pane ends before minute 32.
    last = 32 * MINUTE - 1 + 5 * MINUTE
    book = Book()
    assert list(STORE.advance(book, [table], 0)) == []
    assert STORE.next_deadline(book) == STORE.closes(90_000) == last
    assert [len(part) for part in STORE.closed(table, last - 1)] == [0, 1]
    assert [len(part) for part in STORE.closed(table, last)] == [1, 0]


def test_nothing_has_no_deadline_and_merges_to_nothing() -> None:
    nothing = STORE.merge([])
    assert (len(nothing), STORE.next_deadline(Book())) == (0, None)
    assert [len(part) for part in STORE.closed(nothing, 0)] == [0, 0]


def written(book: Book, events: Sequence[Sequence[Event]], fired: int, watermark: int) -> Any:
    """Return the rows of sessions that close when parcels of `events` come, shortened."""
    fresh = STORE.in_time(book, [fragments(parcel) for parcel in events], fired)
    found = STORE.advance(book, fresh, watermark)
    whole = [row for _, table in found for row in plain(table)]
    return [(row[1], row[2] // MINUTE, row[3] // MINUTE, row[4]) for row in whole]


def test_what_a_silent_source_brings_does_not_make_a_second_session_of_one_that_is_over() -> None:
    book = Book()
    assert written(book, [[event(0, 0)]], 0, 36 * MINUTE) == [("ann", 0, 0, 1)]
    late, other = [event(1, 20 * MINUTE)], [event(2, 20 * MINUTE, user="bob")]
    assert written(book, [late, other], 45 * MINUTE, 45 * MINUTE) == []
    assert [len(table) for table in book.tables.values()] == [0]


def test_what_comes_late_and_touches_an_open_session_is_part_of_it() -> None:
    book = Book()
    assert written(book, [[event(0, 30 * MINUTE)]], 0, 50 * MINUTE) == []
    late = [[event(1, 5 * MINUTE)], [event(2, 6 * MINUTE, user="bob")]]
    assert written(book, late, 50 * MINUTE, 200 * MINUTE) == [("ann", 5, 30, 2)]


def test_of_a_fragment_with_an_event_in_time_nothing_is_left_out() -> None:
    book = Book()
    parcel = [event(0, 20 * MINUTE), event(1, 44 * MINUTE)]
    assert written(book, [parcel], 45 * MINUTE, 200 * MINUTE) == [("ann", 20, 44, 2)]


def test_an_event_is_too_late_with_the_end_of_its_minute_s_lateness() -> None:
    last = 26 * MINUTE - 1
    parcel = [[event(0, 20 * MINUTE)]]
    assert written(Book(), parcel, last - 1, 200 * MINUTE) == [("ann", 20, 20, 1)]
    assert written(Book(), parcel, last, 200 * MINUTE) == []


@pytest.mark.parametrize("seed", range(10))
def test_with_the_disorder_that_is_allowed_nothing_is_too_late(seed: int) -> None:
    draw = random.Random(seed)
    events = [event(n, draw.randrange(300 * MINUTE), f"u{draw.randrange(9)}") for n in range(300)]
    events.sort(key=lambda one: one["at"] + draw.randrange(5 * MINUTE))
    book, found, fired = Book(), [], 0
    for begin in range(0, 300, 20):
        came = events[begin : begin + 20]
        fresh = STORE.in_time(book, [fragments(came[:9]), fragments(came[9:])], fired)
        watermark = max(fired, max(one["at"] for one in came))
        found += [row for _, table in STORE.advance(book, fresh, watermark) for row in plain(table)]
        fired = watermark
    found += [row for _, table in STORE.advance(book, [], 10**9) for row in plain(table)]
    assert sorted(found) == by_loop(events)
