"""The events that the comparison asks about, by stream, as Arrow batches in order of arrival."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bench.workload import BATCH_EVENTS, START, Workload, batches
from schemas.streams import ORDERS, PAGE_VIEWS, PAYMENTS, TRANSACTIONS, Stream
from schemas.values import epoch_ms

START_MS = epoch_ms(START)
MINUTE = 60_000
HOUR = 60 * MINUTE
PLACES = ((52.5, 13.4), (40.7, -74.0), (35.7, 139.7), (-33.9, 151.2), (-23.5, -46.6))
"""Where cards are used, degrees north and east; any two lie thousands of kilometres apart."""
_DISORDER_MS = 8_000
_CLOSING_EVENTS = 64

Array = np.ndarray[Any, Any]


class World(Protocol):
    """Some streams' events; equal worlds give equal events.

    From `end_ms` on come only events that settle all before; 0 where there are none such.
    """

    @property
    def streams(self) -> tuple[Stream, ...]:
        """Whose events these are."""

    @property
    def end_ms(self) -> int:
        """When what is asked about has ended."""

    def batches(self, stream: str) -> Iterator[pa.RecordBatch]:
        """Yield the events of one stream."""


@dataclass(frozen=True)
class Traffic:
    """Page views as `bench.workload` makes them, 5,000 a second."""

    events: int
    streams: tuple[Stream, ...] = (PAGE_VIEWS,)
    end_ms: int = 0

    def batches(self, stream: str) -> Iterator[pa.RecordBatch]:
        """Yield the page views."""
        return batches(Workload(events=self.events))


@dataclass(frozen=True)
class Visits:
    """Page views of 10,000 seconds by visitors who come some 13 times, mostly within 30 minutes.

    At the end one page is viewed hours later by visitors of all partitions, and all before is over.
    """

    events: int
    streams: tuple[Stream, ...] = (PAGE_VIEWS,)
    end_ms: int = START_MS + 6 * HOUR

    @property
    def workload(self) -> Workload:
        """The page views without the closing ones."""
        count = self.events - _CLOSING_EVENTS
        return Workload(
            count, users=max(1, count * 3 // 40), per_second=count / 10_000, start_ms=START_MS
        )

    def batches(self, stream: str) -> Iterator[pa.RecordBatch]:
        """Yield the page views, last the closing ones."""
        for batch in batches(self.workload):
            last = batch
            yield batch
        closing = last.slice(0, _CLOSING_EVENTS).to_pylist()
        for number, event in enumerate(closing):
            event |= {"event_id": f"closing-{number}", "user_id": f"closing-{number}"}
            event |= {"page_id": "closing", "event_time": self.end_ms}
        yield pa.RecordBatch.from_pylist(closing, schema=last.schema)


@dataclass(frozen=True)
class Shop:
    """A thousand orders a second, a payment for most within a minute, some early, late or astray.

    Every tenth order is told again when it ships, which is no order to be paid.
    """

    events: int
    streams: tuple[Stream, ...] = (ORDERS, PAYMENTS)
    end_ms: int = 0

    @property
    def orders(self) -> int:
        """How many are placed."""
        return self.events * 10 // 21

    def batches(self, stream: str) -> Iterator[pa.RecordBatch]:
        """Yield the events of orders or of payments."""
        table = self._orders() if stream == ORDERS.name else self._payments()
        return iter(table.to_batches(max_chunksize=BATCH_EVENTS))

    def _placed_at(self) -> Array:
        return START_MS + 5 * MINUTE + np.arange(self.orders, dtype=np.int64)

    def _orders(self) -> pa.Table:
        placed, number = self._placed_at(), np.arange(self.orders)
        shipped = number[::10]
        rng = np.random.default_rng(2)
        times = np.concatenate([placed, placed[shipped] + rng.integers(1, HOUR, len(shipped))])
        numbers = np.concatenate([number, shipped])
        is_placed = np.arange(len(times)) < self.orders
        columns = {
            "event_id": _labelled("order-event-", np.arange(len(times))),
            "event_time": pa.array(times),
            "order_id": _labelled("order-", numbers),
            "customer_id": _labelled("customer-", numbers % 50_000),
            "status": pc.if_else(pa.array(is_placed), "placed", "shipped"),
            "category": pa.array(["books", "garden", "music", "toys"]).take(pa.array(numbers % 4)),
            "amount_cents": pa.array(100 + numbers * 7919 % 50_000),
            "placed_at": pa.array(placed[numbers]),
        }
        return _arriving(columns, rng)

    def _payments(self) -> pa.Table:
        count = self.events - self.orders - len(range(0, self.orders, 10))
        number, rng = np.arange(count), np.random.default_rng(3)
        # The last 4 of 100 pay an order again, or none that is known.
        regular = count * 96 // 100
        order = np.where(number < regular, number, rng.integers(0, self.orders, count))
        order = np.minimum(order, self.orders - 1)
        delay = rng.integers(0, MINUTE, count)
        edge = number % 40
        for kind, exactly in enumerate((MINUTE, MINUTE + 1, -MINUTE, -MINUTE - 1, 0, 5 * MINUTE)):
            delay = np.where(edge == kind, exactly, delay)
        is_known = (number < regular) | (number % 2 == 0)
        times = self._placed_at()[order] + delay
        columns = {
            "event_id": _labelled("payment-event-", number),
            "event_time": pa.array(times),
            "payment_id": _labelled("payment-", number),
            "order_id": pc.if_else(
                pa.array(is_known), _labelled("order-", order), _labelled("unknown-", order)
            ),
            "paid_cents": pa.array(100 + order * 7919 % 50_000),
            "method": pa.array(["card", "invoice", "wallet"]).take(pa.array(number % 3)),
        }
        return _arriving(columns, rng)


@dataclass(frozen=True)
class Cards:
    """Payments by card over 20,000 seconds, a hundred for each user; some of them are thefts.

    A theft is large, or far away, or both. Each comes later than the one before it, so that the
    order of arrival is that of time.
    """

    events: int
    streams: tuple[Stream, ...] = (TRANSACTIONS,)
    end_ms: int = 0

    def batches(self, stream: str) -> Iterator[pa.RecordBatch]:
        """Yield the payments."""
        for number, first in enumerate(range(0, self.events, BATCH_EVENTS)):
            sequence = np.arange(first, min(first + BATCH_EVENTS, self.events), dtype=np.int64)
            yield self._batch(np.random.default_rng((4, number)), sequence)

    def _batch(self, rng: np.random.Generator, sequence: Array) -> pa.RecordBatch:
        count = len(sequence)
        user = rng.integers(0, max(1, self.events // 100), count)
        theft = rng.random(count)
        is_large, is_away = theft < 0.015, (theft >= 0.005) & (theft < 0.02)
        usual = rng.integers(800, 1_200, count)
        amount = np.where(is_large, rng.integers(60_000, 100_000, count), usual)
        home = user % len(PLACES)
        place = np.array(PLACES)[np.where(is_away, (home + 1) % len(PLACES), home)]
        place = place + rng.uniform(-0.2, 0.2, (count, 2))
        times = START_MS + sequence * 20_000_000 // self.events
        columns = {
            "event_id": _labelled("tx-", sequence),
            "event_time": pa.array(times),
            "user_id": _labelled("user-", user),
            "card_id": _labelled("card-", user),
            "amount_cents": pa.array(amount),
            "merchant": _labelled("shop-", sequence % 500),
            "latitude": pa.array(place[:, 0].round(4)),
            "longitude": pa.array(place[:, 1].round(4)),
        }
        return pa.RecordBatch.from_pydict(columns)


def _labelled(prefix: str, numbers: Array) -> pa.Array:
    return pc.binary_join_element_wise(prefix, pa.array(numbers).cast(pa.string()), "")


def _arriving(columns: dict[str, pa.Array], rng: np.random.Generator) -> pa.Table:
    """Order events as they arrive: most soon after they happen, none `_DISORDER_MS` later."""
    times = columns["event_time"].to_numpy()
    delay = np.minimum(rng.exponential(_DISORDER_MS / 10, len(times)), _DISORDER_MS - 1)
    return pa.table(columns).take(pa.array(np.argsort(times + delay, kind="stable")))
