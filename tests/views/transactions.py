"""The views of transactions, computed anew in plain Python."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from bench.generators import Event, World, transactions

JOB = "transactions"
START = 1_767_600_000_000  # 2026-01-05T08:00:00Z
CLOSING = "~closing"
BY_ARRIVAL = True
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000

_ALERT = ("transaction_id", "user_id", "card_id", "event_time", "amount_cents", "score", "reasons")
COLUMNS = {
    "user_spending": (
        "user_id",
        "window_start",
        "window_end",
        "transactions",
        "total_cents",
        "average_cents",
    ),
    "fraud_alerts": _ALERT,
    "card_blocks": ("card_id", "transaction_id", "user_id", "event_time", "score", "reasons"),
}
WHERE = {"user_spending": f"user_id <> '{CLOSING}'"}


def events() -> World:
    """Return some three thousand transactions of six hours, and some users made for a purpose.

    Two pause before; forty pay twice at once, where it matters which payment arrives first.
    """
    world = transactions.generate(seed=5, count=3_000, start_ms=START)
    came_back = [event for days in (90, 91) for event in _with_pause(days)]
    at_once = [event for number in range(40) for event in _at_once(number)]
    return {
        "transactions": sorted(
            came_back + at_once + world["transactions"], key=lambda event: event["event_time"]
        )
    }


def _at_once(number: int) -> list[Event]:
    """Return a user's small payments, and two large ones 400 ms apart, here and then far away.

    In this order neither has two signs of fraud; the other way round both have.
    """
    user, home, away = f"user-at-once-{number}", (52.5, 13.4), (40.7, -74.0)
    payments = [(START + n * MINUTE * 10, 1_000, home) for n in range(5)]
    payments += [(START + HOUR, 50_000, home), (START + HOUR + 400, 40_000, away)]
    return _payments(user, payments)


def _with_pause(days: int) -> list[Event]:
    """Return a user's small payments, a pause of `days`, and large ones here and far away.

    The last two would both be of an unusual amount, had the pause not been; the very last is one
    by those after the pause alone. Days later come two more, of which the second is unusual by the
    last twenty: the world's first payment may come again before them, too late, and is no pause.
    """
    user, home, away = f"user-away-{days}", (52.5, 13.4), (40.7, -74.0)
    begin = START - 95 * DAY
    small = [(begin + n * MINUTE * 10, 1_000, home) for n in range(30)]
    back = small[-1][0] + days * DAY
    large = [(0, 50_000, home), (20, 60_000, away), (40, 900_000, home)]
    payments = small + [(back + minutes * MINUTE, cents, at) for minutes, cents, at in large]
    payments += [(START + 5 * HOUR, 100_000, home), (START + 5 * HOUR + MINUTE, 300_000, away)]
    return _payments(user, payments)


def _payments(user: str, payments: list[tuple[int, int, tuple[float, float]]]) -> list[Event]:
    """Return a user's payments of (time, cents, place)."""
    return [
        transactions.event(
            time_ms,
            event_id=f"{user}-{number}",
            user_id=user,
            card_id=f"card-{user}",
            amount_cents=cents,
            latitude=place[0],
            longitude=place[1],
        )
        for number, (time_ms, cents, place) in enumerate(payments)
    ]


def closing(stream: str, time_ms: int) -> dict[str, Any]:
    """Return a transaction of a user of its own."""
    return transactions.event(time_ms, user_id=CLOSING, event_id="closing")


def expected(world: World) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows of each view; scores follow the order in which the events are sent."""
    arrived = world["transactions"]
    alerts = list(_alerts(arrived))
    in_time = all(a["event_time"] <= b["event_time"] for a, b in pairwise(arrived))
    swapped = {row[1] for row in alerts if "at-once" in row[1]}
    assert not swapped if in_time else 2 < len(swapped) < 38
    assert {row[-1] for row in alerts} >= {"amount, distance", "amount, distance, frequency"}
    away = {row[0] for row in alerts if "away" in row[1]}
    assert away == {"user-away-90-31", "user-away-90-32", "user-away-90-34", "user-away-91-32"}
    return {
        "user_spending": _spending(world["transactions"]),
        "fraud_alerts": alerts,
        "card_blocks": [(row[2], row[0], row[1], row[3], *row[5:]) for row in alerts],
    }


def _spending(found: list[Event]) -> list[tuple[Any, ...]]:
    groups: dict[tuple[str, int], list[int]] = defaultdict(list)
    for event in found:
        last = event["event_time"] // MINUTE * MINUTE
        for start in range(last - 4 * MINUTE, last + 1, MINUTE):
            groups[event["user_id"], start].append(event["amount_cents"])
    return [
        (user, start, start + 5 * MINUTE, len(cents), sum(cents), sum(cents) / len(cents))
        for (user, start), cents in groups.items()
    ]


def _alerts(arrived: Iterable[Event]) -> Iterable[tuple[Any, ...]]:
    histories: dict[str, list[Event]] = defaultdict(list)
    for event in arrived:
        history = histories[event["user_id"]]
        newest = max((earlier["event_time"] for earlier in history[-4:]), default=0)
        if event["event_time"] - newest > 90 * DAY:
            history.clear()
        signs = {
            "amount": (4, _is_much(event, history)),
            "distance": (5, _is_far(event, history)),
            "frequency": (3, _is_often(event, history)),
        }
        tenths = sum(weight for weight, applies in signs.values() if applies)
        if tenths > 8:
            reasons = ", ".join(name for name, (_, applies) in signs.items() if applies)
            fields = ("event_id", *_ALERT[1:5])
            yield (*(event[name] for name in fields), tenths / 10, reasons)
        history.append(event)


def _is_much(event: Event, history: list[Event]) -> bool:
    last = [earlier["amount_cents"] for earlier in history[-20:]]
    return bool(last) and event["amount_cents"] > 5 * sum(last) / len(last)


def _is_far(event: Event, history: list[Event]) -> bool:
    places = [earlier for earlier in history if earlier["latitude"] is not None]
    if not places or event["latitude"] is None:
        return False
    before = places[-1]
    if abs(event["event_time"] - before["event_time"]) > HOUR:
        return False
    return _kilometres(before, event) > 1000


def _kilometres(one: Event, other: Event) -> float:
    """Return the great circle's length by the angle between the two points' vectors."""
    vectors = []
    for place in (one, other):
        north, east = math.radians(place["latitude"]), math.radians(place["longitude"])
        flat = math.cos(north)
        vectors.append((flat * math.cos(east), flat * math.sin(east), math.sin(north)))
    cosine = sum(a * b for a, b in zip(*vectors, strict=True))
    return 6371 * math.acos(max(-1.0, min(1.0, cosine)))


def _is_often(event: Event, history: list[Event]) -> bool:
    five = history[-4:]
    return len(five) == 4 and abs(event["event_time"] - five[0]["event_time"]) <= 5 * MINUTE
