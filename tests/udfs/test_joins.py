"""Interval joins from parcels: however events are split and mixed, the same as by a plain loop."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise, permutations
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.udfs.book import Book
from udfs.joins import LEFT, RIGHT, Apart, JoinInput, JoinRows, JoinSide, JoinStore, Left, Right

SECOND, MINUTE = 1_000, 60_000
BEFORE, AFTER = 20 * SECOND, MINUTE
PANE = 10 * SECOND
LATENESS = 30 * SECOND
STORE = JoinStore(
    name="orders+payments",
    on="order",
    before=BEFORE,
    after=AFTER,
    pane=PANE,
    sides=(
        JoinSide(
            "orders",
            (("order", pa.string()), ("cents", pa.int64()), ("at", pa.timestamp("ms"))),
            (("status", "placed"),),
            AFTER,
            PANE,
            LATENESS,
        ),
        JoinSide(
            "payments",
            (("payment", pa.string()), ("paid", pa.int64())),
            (),
            BEFORE,
            PANE,
            LATENESS,
        ),
    ),
    views=(
        JoinRows(
            "pairs",
            None,
            (
                ("payment", Right("payment")),
                ("order", Left("order")),
                ("cents", Left("cents")),
                ("paid", Right("paid")),
                ("delay", Apart()),
            ),
        ),
        JoinRows("unpaid", LEFT, (("order", Left("order")), ("at", Left("at")))),
        JoinRows("stray", RIGHT, (("payment", Right("payment")), ("paid", Right("paid")))),
    ),
)
SCHEMAS = (
    pa.schema(
        [
            ("order", pa.string()),
            ("status", pa.string()),
            ("cents", pa.int64()),
            ("at", pa.timestamp("ms")),
        ]
    ),
    pa.schema([("order", pa.string()), ("payment", pa.string()), ("paid", pa.int64())]),
)
Event = dict[str, Any]
Found = dict[str, list[tuple[Any, ...]]]


def order(time: int, name: str = "a", status: str = "placed", cents: int | None = 5) -> Event:
    return {"side": LEFT, "time": time, "order": name, "status": status, "cents": cents}


def payment(time: int, name: str = "a", number: str = "p") -> Event:
    return {"side": RIGHT, "time": time, "order": name, "payment": number, "paid": 5}


def parcels(events: Iterable[Event]) -> list[pa.Table]:
    """Return what the decode functions of both streams make of `events`."""
    found = []
    for side in (LEFT, RIGHT):
        own = [one for one in events if one["side"] == side]
        times = np.array([one["time"] for one in own], dtype=np.int64)
        rows = [{**one, "at": one["time"]} for one in own]
        columns = {
            field.name: pa.array([row[field.name] for row in rows], field.type)
            for field in SCHEMAS[side]
        }
        found.append(JoinInput(STORE, side).from_events(pa.table(columns), times))
    return found


def collect(found: Found, rows: Iterable[tuple[JoinRows, pa.Table]]) -> None:
    for view, table in rows:
        columns = [table[name] for name, _ in view.values]
        values = [c.cast(pa.int64()) if pa.types.is_timestamp(c.type) else c for c in columns]
        found.setdefault(view.name, []).extend(
            zip(*(column.to_pylist() for column in values), strict=True)
        )


def by_loop(events: Sequence[Event]) -> Found:
    """Return the rows that two loops over all events make."""
    orders = [e for e in events if e["side"] == LEFT and e["status"] == "placed"]
    payments = [e for e in events if e["side"] == RIGHT]
    pairs = [
        (o, p)
        for o in orders
        for p in payments
        if o["order"] == p["order"] and -BEFORE <= p["time"] - o["time"] <= AFTER
    ]
    paid, told = {id(o) for o, _ in pairs}, {id(p) for _, p in pairs}
    rows: Found = {
        "pairs": [
            (p["payment"], o["order"], o["cents"], p["paid"], p["time"] - o["time"])
            for o, p in pairs
        ],
        "unpaid": [(o["order"], o["time"]) for o in orders if id(o) not in paid],
        "stray": [(p["payment"], p["paid"]) for p in payments if id(p) not in told],
    }
    return {name: sorted(found, key=repr) for name, found in rows.items() if found}


def joined(portions: Iterable[Sequence[Event]], watermarks: Iterable[int] = ()) -> Found:
    """Return the rows when events come in `portions`, time passing after each, and at the end."""
    book, found = Book(), Found()
    for portion, watermark in zip(portions, [*watermarks, *[-(2**62)] * 10_000], strict=False):
        collect(found, STORE.add(book, parcels(portion)))
        collect(found, STORE.expire(book, watermark))
    collect(found, STORE.expire(book, 2**62))
    assert book.tables == {}
    return {name: sorted(rows, key=repr) for name, rows in found.items()}


@pytest.mark.parametrize(
    ("delay", "matches"),
    [(-BEFORE - 1, False), (-BEFORE, True), (0, True), (AFTER, True), (AFTER + 1, False)],
)
def test_the_edges_of_the_interval(delay: int, matches: bool) -> None:
    at = 1_000_000
    events = [order(at), payment(at + delay)]

    found = joined([events])

    assert ("pairs" in found) is matches
    assert found == by_loop(events)


@pytest.mark.parametrize("first", [LEFT, RIGHT])
def test_a_partner_that_comes_later_in_another_parcel(first: int) -> None:
    events = [order(1_000), payment(2_000)]
    one, other = (events, events[::-1])[first]

    assert joined([[one], [other]]) == {"pairs": [("p", "a", 5, 5, 1_000)]}


def test_only_events_with_the_wanted_values_count() -> None:
    events = [order(1_000, status="shipped"), payment(1_000)]

    assert joined([events]) == {"stray": [("p", 5)]}


def test_of_two_at_one_instant_the_one_that_came_last_stays() -> None:
    (pairs, *others) = STORE.views
    store = replace(STORE, views=(replace(pairs, key=("payment",)), *others))
    own = [order(1_000, cents=1), order(1_000, cents=2), payment(1_500)]
    for portions in ([own], [own[:1], own[2:], own[1:2]], [own[2:], own[:1], own[1:2]]):
        book, found = Book(), Found()
        for portion in portions:
            collect(found, store.add(book, parcels(portion)))
        assert found["pairs"][-1][2] == 2


@pytest.mark.parametrize("came", [*permutations((10_000, 30_000, 50_000))])
@pytest.mark.parametrize("cuts", [(), (1,), (2,), (1, 2)])
def test_of_payments_with_one_key_the_newest_stays_however_they_come(
    came: tuple[int, ...], cuts: tuple[int, ...]
) -> None:
    (pairs, *others) = STORE.views
    store = replace(STORE, views=(replace(pairs, key=("payment",)), *others))
    book, found = Book(), Found()
    collect(found, store.add(book, parcels([order(0)])))
    for begin, end in pairwise([0, *cuts, 3]):
        collect(found, store.add(book, parcels([payment(at) for at in came[begin:end]])))
    assert found["pairs"][-1] == ("p", "a", 5, 5, 50_000)


def test_the_pairs_of_a_new_pair_s_key_are_written_again_in_order_of_time() -> None:
    (pairs, *others) = STORE.views
    store = replace(STORE, views=(replace(pairs, key=("payment",)), *others))
    book, found = Book(), Found()
    for event in (order(0), payment(30_000), payment(40_000, number="q"), payment(10_000)):
        collect(found, store.add(book, parcels([event])))
    assert found["pairs"] == [
        ("p", "a", 5, 5, 30_000),
        ("q", "a", 5, 5, 40_000),
        ("p", "a", 5, 5, 10_000),
        ("p", "a", 5, 5, 30_000),
    ]


def test_a_pair_is_written_again_only_for_a_new_partner_of_its_event() -> None:
    (pairs, *others) = STORE.views
    store = replace(STORE, views=(replace(pairs, key=("payment",)), *others))
    book, found = Book(), Found()
    for event in (order(1_000), payment(1_500, number="p"), payment(1_600, number="q")):
        collect(found, store.add(book, parcels([event])))
    assert [row[0] for row in found["pairs"]] == ["p", "q"]


def test_an_event_sent_twice_has_two_pairs_and_none_is_alone() -> None:
    events = [order(1_000), order(1_000), payment(1_500)]

    assert joined([[one] for one in events]) == {"pairs": [("p", "a", 5, 5, 500)] * 2}


@pytest.mark.parametrize("cut", [1, 2])
def test_of_orders_with_one_name_the_newest_is_written_last(cut: int) -> None:
    events = [order(2_000, cents=2), order(1_000, cents=1), payment(3_000)]

    book, found = Book(), Found()
    for portion in (events[:cut], events[cut:]):
        collect(found, STORE.add(book, parcels(portion)))

    assert [row[2] for row in found["pairs"]] == [1, 2]


@pytest.mark.parametrize("events", list(permutations(range(4))))
@pytest.mark.parametrize("key", ["payment", "cents"])
@pytest.mark.parametrize("cuts", [(1,), (2,), (3,), (1, 2), (1, 2, 3)])
def test_the_newest_partner_is_written_last_however_events_come(
    key: str, events: tuple[int, ...], cuts: tuple[int, ...]
) -> None:
    (pairs, *others), newest = STORE.views, {"payment": {"p": 2, "q": 1}, "cents": {1: "p", 2: "p"}}
    store = replace(STORE, views=(replace(pairs, key=(key,)), *others))
    # As far apart as they may be: 20 s before the last order, and a minute after the first.
    own = [
        order(0, cents=1),
        order(80_000, cents=2),
        payment(60_000, number="p"),
        payment(59_000, number="q"),
    ]
    came = [own[place] for place in events]
    book, found = Book(), Found()
    for begin, end in pairwise([0, *cuts, 4]):
        collect(found, store.add(book, parcels(came[begin:end])))
    # What is written last of a payment, or of an order, is what stays.
    mine, other = (0, 2) if key == "payment" else (2, 0)
    assert {row[mine]: row[other] for row in found["pairs"]} == newest[key]


def test_many_events_of_one_name_cost_only_the_pairs_that_they_make() -> None:
    """As pairs, all of one name with each other would take some gigabytes."""
    count = 20_000
    orders = [order(n % 1_000, "0") for n in range(count)]
    payments = [payment(10 * MINUTE + n % 1_000, "0", f"{n}") for n in range(count)]

    found = joined([orders + payments])

    assert {name: len(rows) for name, rows in found.items()} == {"unpaid": count, "stray": count}


def test_values_may_be_missing() -> None:
    events = [order(1_000, cents=None), payment(1_500)]

    assert joined([events])["pairs"] == [("p", "a", None, 5, 500)]


def test_what_is_alone_is_told_once_no_partner_can_come() -> None:
    book, found = Book(), Found()
    collect(found, STORE.add(book, parcels([order(5_000)])))
    # A payment of 9,999 + 60,000 ms is in time until the pane in which it lies is closed, and late.
    closes = 70_000 - 1 + LATENESS

    collect(found, STORE.expire(book, closes - 1))
    assert found == {}
    assert STORE.next_deadline(book) == closes

    collect(found, STORE.expire(book, closes))
    assert found == {"unpaid": [("a", 5_000)]}
    assert book.starts() == []
    assert STORE.next_deadline(book) is None


@pytest.mark.parametrize("seed", range(8))
def test_any_order_and_any_parcels_give_the_rows_of_a_loop(seed: int) -> None:
    chance = random.Random(seed)
    events: list[Event] = []
    for number in range(300):
        name, at = f"o{chance.randrange(120)}", chance.randrange(0, 10 * MINUTE)
        if chance.random() < 0.5:
            events.append(order(at, name, chance.choice(["placed", "placed", "shipped"]), number))
        else:
            events.append(payment(at, name, f"p{number}"))
    chance.shuffle(events)
    edges = sorted(chance.sample(range(len(events)), 15))
    portions = [events[a:b] for a, b in pairwise([0, *edges, len(events)])]

    assert joined(portions) == by_loop(events)


@pytest.mark.parametrize("seed", range(4))
def test_while_time_passes_nothing_in_time_is_missed(seed: int) -> None:
    chance = random.Random(seed)
    events = [
        (order, payment)[chance.randrange(2)](chance.randrange(10 * MINUTE), f"o{number % 60}")
        for number in range(400)
    ]
    events.sort(key=lambda one: one["time"] + chance.randrange(20 * SECOND))
    portions = [events[begin : begin + 25] for begin in range(0, len(events), 25)]
    # The watermark stays as far behind as the events are out of order.
    newest = np.maximum.accumulate([max(e["time"] for e in portion) for portion in portions])

    assert joined(portions, (newest - 20 * SECOND).tolist()) == by_loop(events)
