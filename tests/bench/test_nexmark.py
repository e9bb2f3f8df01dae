"""Nexmark: the generated auction follows its rules, and the oracle answers by hand-made rows."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from bench.generators.nexmark import FIRST_ID, SHARES, Auction, batches
from bench.nexmark import oracle
from bench.nexmark.measure import auction_for, kinds, with_closers
from bench.nexmark.queries import QUERIES
from bench.nexmark.streams import BIDS
from jobs.views import Job
from schemas.batches import BatchEncoder
from schemas.framing import header

START = 1_767_600_000_000
AUCTION = Auction(events=250_000)


def frame(kind: str, auction: Auction = AUCTION) -> pd.DataFrame:
    return pa.Table.from_batches(batches(auction, kind)).to_pandas()


def bids(*rows: tuple[int, str, str, int]) -> oracle.World:
    table = pd.DataFrame(rows, columns=["event_time", "auction", "bidder", "price"])
    return {"bids": table.assign(url="")}


def rows(table: pd.DataFrame) -> list[tuple[object, ...]]:
    return sorted(table.itertuples(index=False, name=None))


@pytest.mark.parametrize("kind", SHARES)
def test_equal_seeds_make_equal_auctions_in_the_order_of_their_times(kind: str) -> None:
    once = frame(kind)
    assert once.equals(frame(kind))
    assert len(once) == AUCTION.count(kind)
    assert once["event_time"].is_monotonic_increasing
    assert once["event_time"].between(AUCTION.start_ms, AUCTION.end_ms - 1).all()
    other = frame(kind, Auction(events=250_000, seed=2)).drop(columns=["id"], errors="ignore")
    assert not once[other.columns].equals(other)


def test_of_fifty_events_one_is_a_person_three_are_auctions_and_the_rest_bids() -> None:
    assert [AUCTION.count(kind) for kind in SHARES] == [5_000, 15_000, 230_000]


def test_ids_go_up_and_nobody_bids_for_what_is_not_open() -> None:
    auctions, persons = frame("auctions"), frame("persons")
    assert auctions["id"].astype(int).tolist() == list(range(FIRST_ID, FIRST_ID + 15_000))
    assert persons["id"].astype(int).tolist() == list(range(FIRST_ID, FIRST_ID + 5_000))
    bids = frame("bids")
    for events, name, known in (
        (bids, "auction", auctions),
        (bids, "bidder", persons),
        (auctions, "seller", persons),
    ):
        opened = known.set_index("id")["event_time"]
        assert (events[name].map(opened) <= events["event_time"]).all()


def test_half_of_the_bids_are_for_a_hot_auction_and_three_of_four_by_a_hot_bidder() -> None:
    found = frame("bids").astype({"auction": int, "bidder": int})
    hot_auction = ((found["auction"] - FIRST_ID) % 100 == 0).mean()
    hot_bidder = ((found["bidder"] - FIRST_ID) % 100 == 0).mean()
    # Of the others one of a hundred has such an id by chance.
    assert abs(hot_auction - 0.505) < 0.005
    assert abs(hot_bidder - 0.7525) < 0.005


@pytest.mark.parametrize("job", QUERIES.values(), ids=QUERIES.keys())
def test_every_query_has_events_that_its_schemas_take_and_an_oracle(job: Job) -> None:
    (view,) = job.views
    world = {kind: frame(kind) for kind in kinds(job)}
    name = next(name for name, one in QUERIES.items() if one == job)
    assert set(oracle.ANSWERS[name](world)) <= {column.name for column in view.columns}
    for stream in job.streams:
        kind = stream.name.removeprefix("nexmark_")
        batch = next(batches(AUCTION, kind))
        encoded = BatchEncoder(stream, stream.schema, header(1)).encode(batch)
        assert len(encoded.values) == len(batch)


def test_a_query_reads_as_many_events_as_asked_for_and_as_densely() -> None:
    for read in (("bids",), ("persons", "auctions")):
        auction = auction_for(read, 100_000)
        read_events = sum(auction.count(kind) for kind in read)
        assert abs(read_events - 100_000) <= 50
        seconds = (auction.end_ms - auction.start_ms) / 1000
        assert abs(read_events / seconds - 10_000) < 20


def test_closers_come_last_and_a_minute_after_all() -> None:
    found = pa.Table.from_batches(with_closers(AUCTION, "bids", BIDS)).to_pandas()
    assert len(found) == AUCTION.count("bids") + 64
    assert found["event_time"].tail(64).unique().tolist() == [AUCTION.end_ms + 60_000]
    assert found["auction"].tail(64).nunique() == 64


def test_pass_through_is_every_bid() -> None:
    world = bids((START, "a", "x", 5), (START, "a", "x", 5))
    assert rows(oracle.pass_through(world)) == [("a", "x", 5, START, "")] * 2


def test_the_hot_item_of_equals_is_the_lesser() -> None:
    world = bids((START + 1_000, "b", "x", 1), (START + 1_999, "a", "y", 1), (START, "a", "x", 1))
    starts = range(START - 8_000, START + 1, 2_000)
    assert rows(oracle.hot_items(world)) == [(s, s + 10_000, "a", 2) for s in starts]
    world = bids((START, "b", "x", 1), (START, "a", "x", 1))
    assert {row[2] for row in rows(oracle.hot_items(world))} == {"a"}


def test_an_item_counts_in_the_five_windows_that_it_is_in() -> None:
    world = bids((START, "a", "x", 1), (START + 2_000, "a", "x", 1))
    assert rows(oracle.bids_of_items(world)) == [
        (START - 8_000, START + 2_000, "a", 1),
        *((start, start + 10_000, "a", 2) for start in range(START - 6_000, START + 1, 2_000)),
        (START + 2_000, START + 12_000, "a", 1),
    ]


def test_the_highest_bid_is_told_with_whose_it_is() -> None:
    world = bids((START, "a", "x", 7), (START + 1, "b", "y", 9), (START + 2, "b", "x", 9))
    assert rows(oracle.highest_bids(world)) == [(START, START + 10_000, 9, "b", "x")]
    assert rows(oracle.highest_prices(world)) == [(START, START + 10_000, 9)]


def test_a_new_user_sells_within_the_same_ten_seconds() -> None:
    persons = pd.DataFrame(
        [(START, "1", "Ann"), (START + 9_999, "2", "Bo"), (START, "3", "Cy")],
        columns=["event_time", "id", "name"],
    )
    auctions = pd.DataFrame(
        [(START + 9_999, "1"), (START + 5, "1"), (START + 10_000, "2")],
        columns=["event_time", "seller"],
    )
    world = {"persons": persons, "auctions": auctions}
    assert rows(oracle.new_users(world)) == [("1", "Ann", START, START + 10_000)]


def test_a_session_ends_with_a_pause_of_more_than_ten_seconds() -> None:
    times = itertools.accumulate((0, 10_000, 10_001, 5))
    world = bids(*((START + time, "a", "x", 1) for time in times), (START, "a", "y", 1))
    assert rows(oracle.sessions(world)) == [
        ("x", 2, START, START + 20_000),
        ("x", 2, START + 20_001, START + 30_006),
        ("y", 1, START, START + 10_000),
    ]


def test_bidders_are_counted_by_ten_seconds() -> None:
    world = bids((START, "a", "x", 1), (START + 9_999, "b", "x", 1), (START + 10_000, "a", "x", 1))
    assert rows(oracle.bids_of_bidders(world)) == [
        (START, START + 10_000, "x", 2),
        (START + 10_000, START + 20_000, "x", 1),
    ]


def test_prices_are_spread_over_their_orders_of_magnitude() -> None:
    orders = np.log10(frame("bids")["price"])
    assert orders.between(2, 8).all()
    assert abs(orders.mean() - 5) < 0.01
