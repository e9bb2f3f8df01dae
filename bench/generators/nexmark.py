"""Nexmark's auction: people who join, auctions that open, bids on them; seeded and vectorised.

After the generator of Apache Beam and of Flink's Nexmark: of each 50 events the first is a person,
the next three are auctions, the rest bids. Half of the bids are for a hot auction and three of four
by a hot bidder, who change as ids go on; three of four auctions are a hot seller's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Int64s = npt.NDArray[np.int64]

OF_EACH = 50
FIRST_ID = 1000
SHARES = {"persons": (0, 1), "auctions": (1, 4), "bids": (4, OF_EACH)}
"""Which of each `OF_EACH` events are of that kind, from and to."""

_HOT_EACH = 100
_HOT_AUCTION, _HOT_BIDDER, _HOT_SELLER = 1 / 2, 3 / 4, 3 / 4
_AUCTIONS_AT_ONCE, _PEOPLE_AT_ONCE = 100, 1000
_BATCH_EPOCHS = 2_000
_STATES = pa.array(["AZ", "CA", "ID", "OR", "WA", "WY"])
_CITIES = pa.array(["Phoenix", "Palo Alto", "Boise", "Portland", "Bend", "Redmond", "Kent"])
_ITEM = "https://www.nexmark.com/item.htm?query="
_CHANNELS = pa.array(["Google", "Facebook", "Baidu", "Apple"])


@dataclass(frozen=True)
class Auction:
    """An auction of about `events` events in all, `per_second` of event time; equal ones agree."""

    events: int
    per_second: float = 10_000.0
    seed: int = 1
    start_ms: int = 1_767_600_000_000

    @property
    def epochs(self) -> int:
        """How often a person, three auctions and 46 bids come."""
        return max(1, self.events // OF_EACH)

    @property
    def end_ms(self) -> int:
        """A time that no event reaches."""
        return self.start_ms + int(self.epochs * OF_EACH * 1000 / self.per_second) + 1

    def count(self, kind: str) -> int:
        """Return how many events of `kind` there are."""
        first, end = SHARES[kind]
        return self.epochs * (end - first)


def batches(auction: Auction, kind: str) -> Iterator[pa.RecordBatch]:
    """Yield the events of `kind`, "persons", "auctions" or "bids", in the order of their times."""
    first, end = SHARES[kind]
    make = {"persons": _persons, "auctions": _auctions, "bids": _bids}[kind]
    for begin in range(0, auction.epochs, _BATCH_EPOCHS):
        epochs = np.arange(begin, min(begin + _BATCH_EPOCHS, auction.epochs), dtype=np.int64)
        numbers = (epochs[:, None] * OF_EACH + np.arange(first, end)).reshape(-1)
        chance = np.random.default_rng((auction.seed, first, begin))
        columns = {"event_time": pa.array(_times(auction, numbers))}
        yield pa.RecordBatch.from_pydict(columns | make(chance, numbers))


def _times(auction: Auction, numbers: Int64s) -> Int64s:
    times: Int64s = auction.start_ms + (numbers * (1000 / auction.per_second)).astype(np.int64)
    return times


def _newest_person(numbers: Int64s) -> Int64s:
    return numbers // OF_EACH


def _newest_auction(numbers: Int64s) -> Int64s:
    opened = np.clip(numbers % OF_EACH - 1, -1, 2)
    newest: Int64s = np.maximum(numbers // OF_EACH * 3 + opened, 0)
    return newest


def _one_of_last(chance: np.random.Generator, newest: Int64s, most: int) -> Int64s:
    """Return for each event one of the `most` newest."""
    back = (chance.random(len(newest)) * np.minimum(newest + 1, most)).astype(np.int64)
    found: Int64s = newest - back
    return found


def _hot_or_not(
    chance: np.random.Generator, newest: Int64s, share: float, others: Int64s
) -> Int64s:
    hot = newest // _HOT_EACH * _HOT_EACH
    chosen: Int64s = FIRST_ID + np.where(chance.random(len(newest)) < share, hot, others)
    return chosen


def _prices(chance: np.random.Generator, count: int) -> Int64s:
    """Return prices in cents, evenly spread over six orders of magnitude."""
    prices: Int64s = np.round(10 ** (chance.random(count) * 6) * 100).astype(np.int64)
    return prices


def _persons(chance: np.random.Generator, numbers: Int64s) -> dict[str, Any]:
    ids, count = FIRST_ID + _newest_person(numbers), len(numbers)
    return {
        "id": _text(ids),
        "name": _labelled("person ", ids),
        "email_address": _labelled("person", ids, "@example.com"),
        "credit_card": _labelled("4000 ", chance.integers(10**11, 10**12, count)),
        "city": _CITIES.take(pa.array(chance.integers(0, len(_CITIES), count))),
        "state": _STATES.take(pa.array(chance.integers(0, len(_STATES), count))),
    }


def _auctions(chance: np.random.Generator, numbers: Int64s) -> dict[str, Any]:
    ids, count = FIRST_ID + _newest_auction(numbers), len(numbers)
    people = _newest_person(numbers)
    others = _one_of_last(chance, people, _PEOPLE_AT_ONCE)
    initial = _prices(chance, count)
    return {
        "id": _text(ids),
        "item_name": _labelled("item ", ids),
        "initial_bid": pa.array(initial),
        "reserve": pa.array(initial + _prices(chance, count)),
        "seller": _text(_hot_or_not(chance, people, _HOT_SELLER, others)),
        "category": pa.array(10 + chance.integers(0, 5, count)),
    }


def _bids(chance: np.random.Generator, numbers: Int64s) -> dict[str, Any]:
    count, people, opened = len(numbers), _newest_person(numbers), _newest_auction(numbers)
    some_auction = _one_of_last(chance, opened, _AUCTIONS_AT_ONCE)
    some_person = _one_of_last(chance, people, _PEOPLE_AT_ONCE)
    return {
        "auction": _text(_hot_or_not(chance, opened, _HOT_AUCTION, some_auction)),
        "bidder": _text(_hot_or_not(chance, people, _HOT_BIDDER, some_person)),
        "price": pa.array(_prices(chance, count)),
        "channel": _CHANNELS.take(pa.array(chance.integers(0, len(_CHANNELS), count))),
        "url": _labelled(_ITEM, chance.integers(0, 1000, count)),
    }


def _text(numbers: Int64s) -> pa.Array:
    return pa.array(numbers).cast(pa.string())


def _labelled(prefix: str, numbers: Int64s, suffix: str = "") -> pa.Array:
    return pc.binary_join_element_wise(prefix, _text(numbers), suffix, "")
