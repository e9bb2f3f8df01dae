"""All-time totals from parcels: however events are split and mixed, the same as by a plain loop."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.udfs.book import Book
from udfs import runs, totals
from udfs.envelope import from_bytes, table_bytes
from udfs.fingerprints import fingerprints
from udfs.measures import Count, CountDistinct, Earliest, Latest, Max, Mean, Min, Sum, TotalsMeasure
from udfs.panes import split
from udfs.runs import Run, RunMemory
from udfs.totals import TotalsStore

MEASURES: dict[str, TotalsMeasure] = {
    "views": Count(),
    "users": CountDistinct("user"),
    "mean_ms": Mean("duration"),
    "errors": Count("status", ">=", 500),
    "countries": CountDistinct("country"),
    "sum_ms": Sum("duration"),
    "least_ms": Min("duration"),
    "most_ms": Max("duration"),
    "first_seen": Earliest(),
    "last_seen": Latest(),
}
STORE = TotalsStore("pages@totals", "pages", ("site", "page"), tuple(MEASURES.items()))
BY_PAGE = TotalsStore("page@totals", "page", ("page",), tuple(MEASURES.items()))
FIELDS = ("site", "page", "user", "country", "duration", "status")
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in FIELDS[:4]),
        ("duration", pa.int64()),
        ("status", pa.int32()),
    ]
)
Event = tuple[Any, ...]
"""Time and the fields."""
Row = tuple[Any, ...]


class Counting(Book):
    """A book in memory that notes what is read and written, and holds tables as bytes do."""

    def __init__(self, store: TotalsStore) -> None:
        super().__init__()
        self._store = store
        self.reads: list[int] = []
        self.writes: list[int] = []

    def read(self, pane: int) -> pa.Table | None:
        self.reads.append(pane)
        return super().read(pane)

    def write(self, pane: int, table: pa.Table) -> None:
        self.writes.append(pane)
        super().write(pane, from_bytes(self._store, table_bytes(table)))

    @property
    def runs(self) -> list[int]:
        return sorted(self.tables)


def parcel(events: Sequence[Event], store: TotalsStore = STORE) -> pa.Table:
    """Return the parcel of `events` as it arrives, having travelled as bytes."""
    rows = [dict(zip(FIELDS, event[1:], strict=True)) for event in events]
    times = np.array([event[0] for event in events], dtype=np.int64)
    made = store.from_events(pa.Table.from_pylist(rows, schema=SCHEMA), times)
    ((_, batch),) = split(store, made, 1)
    return from_bytes(store, table_bytes(pa.Table.from_batches([batch])))


def merge(
    book: Book, remembered: dict[int, Run], *portions: Sequence[Event], store: TotalsStore = STORE
) -> dict[tuple[str, ...], Row]:
    """Merge a parcel of each portion at once and return the rows by key."""
    fresh = [parcel(portion, store) for portion in portions]
    ((view, table),) = store.advance(book, fresh, remembered)
    assert view == store.view
    return rows(table, store)


def rows(table: pa.Table, store: TotalsStore = STORE) -> dict[tuple[str, ...], Row]:
    instants = {name for name in ("first_seen", "last_seen") if name in table.column_names}
    columns = [
        (table[name].cast(pa.int64()) if name in instants else table[name]).to_pylist()
        for name in table.column_names
    ]
    keys = len(store.dimensions)
    found = {row[:keys]: row[keys:] for row in zip(*columns, strict=True)}
    assert len(found) == len(table)
    return found


def by_loop(events: Iterable[Event], keys: int = 2) -> dict[tuple[str, ...], Row]:
    groups: dict[tuple[str, ...], list[Event]] = {}
    for event in events:
        groups.setdefault(event[1:3] if keys == 2 else event[2:3], []).append(event)
    found = {}
    for key, members in groups.items():
        spent = [event[5] for event in members if event[5] is not None]
        found[key] = (
            len(members),
            len({event[3] for event in members} - {None}),
            sum(spent) / len(spent) if spent else None,
            sum(event[6] >= 500 for event in members),
            len({event[4] for event in members} - {None}),
            sum(spent) if spent else None,
            min(spent, default=None),
            max(spent, default=None),
            min(event[0] for event in members),
            max(event[0] for event in members),
        )
    return found


def traffic(seed: int, count: int = 1_500, users: int = 90) -> list[Event]:
    chance = random.Random(seed)

    def event() -> Event:
        user = chance.choice([None, "", *(f"user {n}" for n in range(users))])
        page, country = chance.choice("xyz"), chance.choice([None, "de", "fr", "user 1"])
        # Nobody measures how long a page of z is looked at.
        spent = None if page == "z" or chance.random() < 0.3 else chance.randrange(-50, 900)
        return (
            chance.randrange(10**9),
            chance.choice("ab"),
            page,
            user,
            country,
            spent,
            chance.choice([200, 200, 500, 503]),
        )

    return [event() for _ in range(count)]


def split_up(events: Sequence[Event], seed: int, parts: int) -> list[Sequence[Event]]:
    chance = random.Random(seed)
    edges = sorted(chance.sample(range(1, len(events)), parts - 1))
    return [events[a:b] for a, b in pairwise([0, *edges, len(events)])]


def one(user: str | None, page: str = "x", time: int = 0) -> Event:
    return (time, "a", page, user, None, None, 200)


@pytest.mark.parametrize("seed", range(6))
def test_any_parcels_and_merges_give_the_totals_of_a_loop(seed: int) -> None:
    events, chance = traffic(seed), random.Random(seed)
    book, memory, seen = Counting(STORE), dict[int, Run](), list[Event]()
    portions = split_up(events, seed, 40)
    while portions:
        now = [portions.pop(0) for _ in range(min(len(portions), chance.randrange(1, 5)))]
        new = [event for portion in now for event in portion]
        seen += new
        if chance.random() < 0.3:
            # A restart: the state stays, memory does not.
            memory = {}
        expected, changed = by_loop(seen), by_loop(new).keys()
        assert merge(book, memory, *now) == {key: expected[key] for key in changed}
    assert len(book.writes) > 20


def test_events_without_values_and_parcels_without_events() -> None:
    book, memory = Counting(STORE), dict[int, Run]()
    assert list(STORE.advance(book, [], memory)) == []
    assert list(STORE.advance(book, [STORE.schema.empty_table()], memory)) == []
    nothing = pa.Table.from_pylist([], schema=SCHEMA)
    assert len(STORE.from_events(nothing, np.array([], dtype=np.int64))) == 0
    assert book.runs == []
    events = [(7, "a", "x", None, None, None, 200)]
    assert merge(book, memory, events) == {("a", "x"): (1, 0, None, 0, 0, None, None, None, 7, 7)}
    # Nobody new, so there is no run of members.
    assert book.runs == [0]


def test_a_key_without_a_value_is_one_of_its_own_and_texts_are_not_run_together() -> None:
    events = [
        (1, None, "x", "u", None, None, 200),
        (2, "a", "bc", "u", None, None, 200),
        (3, "ab", "c", "u", None, None, 200),
        (4, "c", "ab", "u", None, None, 200),
    ]
    found = merge(Counting(STORE), {}, events)
    assert {key: row[:2] for key, row in found.items()} == {
        ("", "x"): (1, 1),
        ("a", "bc"): (1, 1),
        ("ab", "c"): (1, 1),
        ("c", "ab"): (1, 1),
    }


def test_a_value_counts_in_each_field_and_for_each_key_once() -> None:
    events = [
        (1, "a", "x", "same", "same", None, 200),
        (1, "x", "a", "same", "same", None, 200),
        (1, "a", "x", "same", "other", None, 200),
    ]
    book, memory = Counting(STORE), dict[int, Run]()
    for _ in range(3):
        found = merge(book, memory, events, events)
    assert {key: (row[1], row[4]) for key, row in found.items()} == {
        ("a", "x"): (1, 2),
        ("x", "a"): (1, 1),
    }


def test_equal_first_halves_of_fingerprints_are_told_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def alike(column: Any) -> tuple[pa.Array, pa.Array]:
        high, low = fingerprints(column)
        nulls = np.asarray(high.is_null())
        return pa.array(np.asarray(high.fill_null(0)) % 3, mask=nulls), low

    monkeypatch.setattr(runs, "fingerprints", alike)
    monkeypatch.setattr("udfs.fingerprints.fingerprints", alike)
    events = traffic(11, 800)
    book, memory = Counting(STORE), dict[int, Run]()
    seen: list[Event] = []
    for portion in split_up(events, 11, 30):
        seen += portion
        expected = by_loop(seen)
        assert merge(book, memory, portion) == {key: expected[key] for key in by_loop(portion)}
    assert len(np.unique(memory[min(memory)].high)) < 10


def test_runs_grow_geometrically_and_what_is_older_is_not_touched() -> None:
    book, memory = Counting(STORE), dict[int, Run]()
    for number in range(150):
        before, held = book.runs, dict(book.tables)
        book.writes.clear()
        merge(book, memory, [one(f"user {number}", f"page {number}", number)])
        kept = set(before) & set(book.runs)
        assert all(book.tables[run] is held[run] for run in kept)
        # One run of keys and one of members.
        assert len(book.writes) == 2
    assert book.reads == []
    assert len(book.runs) <= 2 * 8
    for kind in (lambda run: run >= 0, lambda run: run < 0):
        sizes = [len(memory[run]) for run in sorted(memory, key=abs) if kind(run)]
        assert sum(sizes) == 150
        assert all(older >= 2 * newer for older, newer in pairwise(sizes))


def test_a_row_is_written_a_logarithm_of_times() -> None:
    class Adding(Counting):
        written = 0

        def write(self, pane: int, table: pa.Table) -> None:
            super().write(pane, table)
            self.written += table["members"].combine_chunks().buffers()[2].size if pane < 0 else 0

    book, memory = Adding(STORE), dict[int, Run]()
    for number in range(100):
        merge(book, memory, [one(f"user {number} {k}") for k in range(10)])
    assert book.written < 16 * 1_000 * 7


def test_keys_that_stay_the_same_take_no_more_state() -> None:
    book, memory = Counting(STORE), dict[int, Run]()
    for number in range(60):
        merge(book, memory, [one("u", page, number) for page in "xyz"])
    assert sum(len(run) for run in memory.values()) <= 3 + 3 + 1
    assert len(book.runs) <= 3


def test_a_run_of_so_many_members_is_merged_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(totals, "MOST_MEMBERS", 100)
    book, memory = Counting(STORE), dict[int, Run]()
    for number in range(40):
        found = merge(book, memory, [one(f"user {number} {k}") for k in range(20)])
    assert found["a", "x"][:2] == (800, 800)
    sizes = [len(memory[run]) for run in memory if run < 0]
    assert max(sizes) <= 100
    assert len(sizes) <= 20
    assert merge(book, {}, [one(f"user {n} 3") for n in range(40)])["a", "x"][1] == 800


def test_after_a_restart_each_run_is_read_once() -> None:
    book, memory = Counting(STORE), dict[int, Run]()
    for number in range(40):
        merge(book, memory, [one(f"user {number}")])
    memory, runs_before = {}, book.runs
    found = merge(book, memory, [one("user 3"), one("new")])
    assert sorted(book.reads) == runs_before
    assert found["a", "x"][:2] == (42, 41)
    book.reads.clear()
    assert merge(book, memory, [one("user 4")])["a", "x"][:2] == (43, 41)
    assert book.reads == []


def test_the_bucket_looked_at_longest_ago_is_forgotten_first_and_read_again() -> None:
    memory = RunMemory(most_bytes=5_000)
    books = [Counting(STORE) for _ in range(3)]
    for turn in range(60):
        bucket = turn % 3 if turn < 30 else turn % 2
        found = merge(books[bucket], memory.of(bucket), [one(f"user {turn} {k}") for k in range(5)])
        memory.trim()
        expected = 5 * (turn // 3 + 1) if turn < 30 else 5 * (10 + (turn - 30) // 2 + 1)
        assert found["a", "x"][:2] == (expected, expected)
        if turn == 29:
            assert sorted(memory._buckets) == [0, 1, 2]
    assert 2 not in memory._buckets
    assert len(memory._buckets) == 2
    assert books[2].reads == []
    assert merge(books[2], memory.of(2), [one("last")])["a", "x"][:2] == (51, 51)
    assert sorted(set(books[2].reads)) == sorted(books[2].reads) != []


def test_a_bucket_beyond_all_bounds_is_right_all_the_same() -> None:
    memory, book = RunMemory(most_bytes=0), Counting(STORE)
    for number in range(30):
        found = merge(book, memory.of(1), [one(f"user {number // 2}")])
        memory.trim()
        assert memory._buckets == {}
        assert found["a", "x"][:2] == (number + 1, number // 2 + 1)


def test_a_view_without_distinct_values_keeps_no_members() -> None:
    measures: tuple[tuple[str, TotalsMeasure], ...] = (("n", Count()), ("most", Max("duration")))
    store = TotalsStore("n@totals", "n", ("page",), measures)
    book, memory = Counting(store), dict[int, Run]()
    for seed in range(5):
        events = traffic(seed, 100)
        found = merge(book, memory, events, store=store)
    every = by_loop([event for seed in range(5) for event in traffic(seed, 100)], keys=1)
    assert found == {key: (row[0], row[7]) for key, row in every.items()}
    assert min(book.runs) >= 0


def test_one_dimension_alone_keys_totals_as_several_do() -> None:
    events, book, memory = traffic(3), Counting(BY_PAGE), dict[int, Run]()
    for portion in split_up(events, 3, 25):
        merge(book, memory, portion, store=BY_PAGE)
    found = merge(
        book, {}, [(1, "a", page, None, None, None, 200) for page in "xyz"], store=BY_PAGE
    )
    again = [(1, "a", page, None, None, None, 200) for page in "xyz"]
    assert found == by_loop([*events, *again], keys=1)


def test_a_member_takes_16_bytes_of_a_parcel() -> None:
    many = [one(f"user {n}") for n in range(10_000)]
    assert len(table_bytes(parcel(many + many))) < 16 * 10_000 + 1_000
