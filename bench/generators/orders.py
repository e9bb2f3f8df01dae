"""Customers of a shop who order, mostly pay within a minute, and sometimes want money back."""

from __future__ import annotations

import random
from typing import Any

from bench.generators import Event, World

_MINUTE = 60_000
_HOUR = 60 * _MINUTE
_SPAN = 28 * _HOUR
_CATEGORIES = ("books", "garden", "music", "toys")
_SEGMENTS = ("new", "regular", "gold")


def generate(seed: int, count: int, start_ms: int) -> World:
    """Return about `count` steps of orders within 28 hours, payments and changes of segments.

    Some payments come exactly a minute from their order, or a millisecond more; some are early,
    double, of no order, or never come.
    """
    chance = random.Random(seed)
    orders: list[Event] = []
    payments: list[Event] = []
    customers = [f"customer-{number}" for number in range(max(2, count // 40))]
    for number in range(max(1, count // 4)):
        placed = order(
            start_ms + chance.randrange(2 * _MINUTE, _SPAN),
            order_id=f"order-{number}",
            customer_id=chance.choice(customers),
            category=chance.choice(_CATEGORIES),
            amount_cents=chance.randrange(100, 50_000),
        )
        orders += [placed, *_steps(chance, placed)]
        payments += _payments(chance, placed)
    for number in range(count // 150):
        moment = start_ms + chance.randrange(_SPAN)
        payments.append(payment(moment, order_id=f"unknown-{number}", paid_cents=number))
    for number, event in enumerate(payments):
        event["payment_id"] = f"payment-{number}"
    segments = [e for customer in customers[::2] for e in _segments(chance, customer, start_ms)]
    return {
        "orders": _sorted("o", orders),
        "payments": _sorted("p", payments),
        "customer_segments": _sorted("s", segments),
    }


def order(time_ms: int, **fields: Any) -> Event:
    """Return an order placed at `time_ms`; fields not given are as usual."""
    return {
        "event_id": "",
        "event_time": time_ms,
        "order_id": "",
        "customer_id": "",
        "status": "placed",
        "category": "books",
        "amount_cents": 0,
        "placed_at": time_ms,
        **fields,
    }


def payment(time_ms: int, **fields: Any) -> Event:
    """Return a payment at `time_ms`; fields not given are as usual."""
    return {
        "event_id": "",
        "event_time": time_ms,
        "payment_id": "",
        "order_id": "",
        "paid_cents": 0,
        "method": "card",
        **fields,
    }


def segment(time_ms: int, customer_id: str, name: str) -> Event:
    """Return a customer's change into segment `name` at `time_ms`."""
    return {"event_id": "", "event_time": time_ms, "customer_id": customer_id, "segment": name}


def _steps(chance: random.Random, placed: Event) -> list[Event]:
    moment, steps = placed["event_time"], []
    if chance.random() < 0.8:
        moment += chance.randrange(_HOUR, 5 * _HOUR)
        steps.append({**placed, "status": "shipped", "event_time": moment})
        if chance.random() < 0.9:
            moment += chance.randrange(5 * _HOUR)
            steps.append({**placed, "status": "delivered", "event_time": moment})
    if chance.random() < 0.15:
        moment += chance.randrange(5 * _HOUR)
        back = chance.choice((placed["amount_cents"], placed["amount_cents"] // 3))
        refund = {"status": "refunded", "event_time": moment, "amount_cents": back}
        steps.append({**placed, **refund})
    return steps


def _payments(chance: random.Random, placed: Event) -> list[Event]:
    usual = chance.randrange(_MINUTE)
    apart = {
        0: (),
        1: (_MINUTE,),
        2: (_MINUTE + 1,),
        3: (-_MINUTE,),
        4: (-_MINUTE - 1,),
        5: (-chance.randrange(_MINUTE),),
        6: (usual, usual + chance.randrange(3 * _MINUTE)),
        7: (5 * _MINUTE + usual,),
        8: (0,),
    }.get(chance.randrange(40), (usual,))
    paid = {"order_id": placed["order_id"], "paid_cents": placed["amount_cents"]}
    return [payment(placed["event_time"] + delay, **paid) for delay in apart]


def _segments(chance: random.Random, customer: str, start_ms: int) -> list[Event]:
    """Return changes of one customer, at distinct times, some within the streams' disorder."""
    moment, events = start_ms + chance.randrange(_SPAN // 2), []
    for _ in range(chance.randrange(1, 6)):
        events.append(segment(moment, customer, chance.choice(_SEGMENTS)))
        moment += chance.choice((chance.randrange(1, 5_000), chance.randrange(1, 6 * _HOUR)))
    return events


def _sorted(prefix: str, events: list[Event]) -> list[Event]:
    for number, event in enumerate(events):
        event["event_id"] = f"{prefix}-{number}"
    return sorted(events, key=lambda e: (e["event_time"], e["event_id"]))
