"""The orders' views, computed anew in plain Python."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from bench.generators import Event, World
from bench.generators import orders as shop

JOB = "orders"
START = 1_767_600_000_000  # 2026-01-05T08:00:00Z
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
CLOSING = "~closing"
DIMENSIONS = frozenset({"customer_segments"})

_MATCHED = ("payment_id", "order_id", "customer_id", "ordered_at", "paid_at")
COLUMNS = {
    "order_payments": (*_MATCHED, "ordered_cents", "paid_cents", "delay_ms"),
    "unmatched_orders": ("order_id", "customer_id", "ordered_at", "ordered_cents"),
    "unmatched_payments": ("payment_id", "order_id", "paid_at", "paid_cents"),
    "revenue_per_minute": ("window_start", "window_end", "payments", "revenue_cents"),
    "daily_sales": (
        "sales_day",
        "category",
        "sales_cents",
        "orders_placed",
        "refunds",
        "refunded_cents",
    ),
    "customer_orders": (
        "customer_id",
        "orders_placed",
        "total_cents",
        "average_cents",
        "last_order_at",
    ),
    "order_funnel": ("stage", "window_start", "window_end", "orders_reached"),
    "current_segments": ("customer_id", "segment", "since"),
    "sales_by_segment": ("segment", "window_start", "window_end", "orders_placed", "sales_cents"),
}
_LATEST = "toDateTime64('2026-01-08 00:00:00', 3, 'UTC')"
WHERE = {
    **dict.fromkeys(
        ("revenue_per_minute", "order_funnel", "sales_by_segment"), f"window_start < {_LATEST}"
    ),
    "order_payments": f"customer_id <> '{CLOSING}'",
    "daily_sales": f"category <> '{CLOSING}'",
    "customer_orders": f"customer_id <> '{CLOSING}'",
    "current_segments": f"customer_id <> '{CLOSING}'",
}


def events() -> World:
    """Return some two thousand four hundred events, of six hundred orders, and some odd ones.

    All events of one order in twenty are sent twice, and so are its payments.
    """
    world = shop.generate(seed=11, count=2_400, start_ms=START)
    odd = _changing_customers()
    twice = {o["order_id"] for o in world["orders"][::20] if o["status"] == "placed"}
    for name in ("orders", "payments"):
        again = [dict(e) for e in world[name] if e["order_id"] in twice]
        assert name == "payments" or any(e["status"] == "refunded" for e in again)
        odd[name] = odd.get(name, []) + again
    return {
        name: sorted(found + odd.get(name, []), key=lambda e: e["event_time"])
        for name, found in world.items()
    }


def _changing_customers() -> World:
    """Return customers who order between two changes of segment, and long after the second.

    The changes are so near that some arrive in the wrong order; of a segment no later one comes.
    """
    world: World = {"orders": [], "customer_segments": []}
    changed = START + 29 * HOUR
    for number in range(40):
        customer, orders = f"changing-{number}", (-100, 0, 150, 299, 300, 2 * HOUR)
        for after, name in ((0, "silver"), (300, "gold")):
            change = shop.segment(changed + after, customer, name)
            world["customer_segments"].append({**change, "event_id": f"{customer}-{after}"})
        for after in orders:
            placed = shop.order(
                changed + after,
                event_id=f"{customer}-{after}",
                order_id=f"{customer}-{after}",
                customer_id=customer,
                amount_cents=1_000 + number,
            )
            world["orders"].append(placed)
    return world


def closing(stream: str, time_ms: int) -> dict[str, Any]:
    """Return an event of an order, payment or customer of its own."""
    made = {
        "orders": shop.order(time_ms, order_id=CLOSING, customer_id=CLOSING, category=CLOSING),
        "payments": shop.payment(time_ms, order_id=CLOSING, payment_id=CLOSING),
        "customer_segments": shop.segment(time_ms, CLOSING, CLOSING),
    }[stream]
    return {**made, "event_id": CLOSING}


def expected(world: World) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows of each view."""
    orders = list({order["event_id"]: order for order in world["orders"]}.values())
    payments = list({p["payment_id"]: p for p in world["payments"]}.values())
    placed = {e["order_id"]: e for e in orders if e["status"] == "placed"}
    matched = [
        (placed[p["order_id"]], p)
        for p in payments
        if p["order_id"] in placed
        and abs(p["event_time"] - placed[p["order_id"]]["event_time"]) <= MINUTE
    ]
    paid_orders = {order["order_id"] for order, _ in matched}
    used_payments = {payment["payment_id"] for _, payment in matched}
    return {
        "order_payments": [_matched(order, payment) for order, payment in matched],
        "unmatched_orders": [
            (order_id, o["customer_id"], o["event_time"], o["amount_cents"])
            for order_id, o in placed.items()
            if order_id not in paid_orders
        ],
        "unmatched_payments": [
            (p["payment_id"], p["order_id"], p["event_time"], p["paid_cents"])
            for p in payments
            if p["payment_id"] not in used_payments
        ],
        "revenue_per_minute": _revenue([payment for _, payment in matched]),
        "daily_sales": _daily_sales(orders),
        "customer_orders": _customers([e for e in orders if e["status"] == "placed"]),
        "order_funnel": _funnel(orders, payments),
        "current_segments": _current(world["customer_segments"]),
        "sales_by_segment": _by_segment(list(placed.values()), world["customer_segments"]),
    }


def _matched(order: Event, payment: Event) -> tuple[Any, ...]:
    delay = payment["event_time"] - order["event_time"]
    return (
        payment["payment_id"],
        order["order_id"],
        order["customer_id"],
        order["event_time"],
        payment["event_time"],
        order["amount_cents"],
        payment["paid_cents"],
        delay,
    )


def _revenue(payments: list[Event]) -> list[tuple[Any, ...]]:
    minutes: dict[int, list[int]] = defaultdict(list)
    for payment in payments:
        minutes[payment["event_time"] // MINUTE * MINUTE].append(payment["paid_cents"])
    return [(start, start + MINUTE, len(paid), sum(paid)) for start, paid in minutes.items()]


def _daily_sales(orders: list[Event]) -> list[tuple[Any, ...]]:
    days: dict[tuple[int, str], list[Event]] = defaultdict(list)
    for event in orders:
        days[event["placed_at"] // DAY * DAY, event["category"]].append(event)
    rows = []
    for key, found in days.items():
        sales = [e["amount_cents"] for e in found if e["status"] == "placed"]
        back = [e["amount_cents"] for e in found if e["status"] == "refunded"]
        rows.append((*key, sum(sales) - sum(back), len(sales), len(back), sum(back)))
    return rows


def _customers(placed: list[Event]) -> list[tuple[Any, ...]]:
    by_customer: dict[str, list[Event]] = defaultdict(list)
    for order in placed:
        by_customer[order["customer_id"]].append(order)
    rows = []
    for customer, found in by_customer.items():
        total, newest = sum(o["amount_cents"] for o in found), max(o["event_time"] for o in found)
        rows.append((customer, len(found), total, total / len(found), newest))
    return rows


def _funnel(orders: list[Event], payments: list[Event]) -> list[tuple[Any, ...]]:
    reached: dict[tuple[str, int], set[str]] = defaultdict(set)
    for stage, event in [*((o["status"], o) for o in orders), *(("paid", p) for p in payments)]:
        reached[stage, event["event_time"] // HOUR * HOUR].add(event["order_id"])
    return [(stage, start, start + HOUR, len(ids)) for (stage, start), ids in reached.items()]


def _current(changes: list[Event]) -> list[tuple[Any, ...]]:
    newest = {change["customer_id"]: change for change in changes}
    return [(who, c["segment"], c["event_time"]) for who, c in newest.items()]


def _by_segment(placed: list[Event], changes: list[Event]) -> list[tuple[Any, ...]]:
    windows: dict[tuple[str, int], list[int]] = defaultdict(list)
    for order in placed:
        held = [
            change["segment"]
            for change in changes
            if change["customer_id"] == order["customer_id"]
            and change["event_time"] <= order["event_time"]
        ]
        key = held[-1] if held else "unknown", order["event_time"] // HOUR * HOUR
        windows[key].append(order["amount_cents"])
    return [(s, at, at + HOUR, len(paid), sum(paid)) for (s, at), paid in windows.items()]
