"""Card holders who pay here and there, and thieves who pay much, far away, and often."""

from __future__ import annotations

import random
from typing import Any

from bench.generators import Event, World

_MINUTE = 60_000
_HOMES = ((52.52, 13.40), (48.86, 2.35), (40.71, -74.01), (35.68, 139.69), (-33.87, 151.21))
_THEFT, _ONLINE = 0.04, 0.15


def generate(seed: int, count: int, start_ms: int) -> World:
    """Return about `count` transactions, some ten an hour and user, with some thefts."""
    chance = random.Random(seed)
    users = max(1, count // 60)
    events: list[Event] = []
    while len(events) < count:
        user = chance.randrange(users)
        moment = start_ms + chance.randrange(6 * 60 * _MINUTE)
        if chance.random() < _THEFT:
            events += _theft(chance, user, moment)
        else:
            events.append(_payment(chance, user, moment, _HOMES[user % len(_HOMES)], 4_000))
    events.sort(key=lambda e: (e["event_time"], e["user_id"], e["amount_cents"]))
    for position, found in enumerate(events):
        found["event_id"] = f"tx-{position}"
    return {"transactions": events}


def _theft(chance: random.Random, user: int, moment: int) -> list[Event]:
    """Return a burst of payments, each theft with some signs of it and without others."""
    home = _HOMES[user % len(_HOMES)]
    places = home, chance.choice(_HOMES)
    usual = chance.choice((4_000, 90_000))
    pause = chance.choice((20_000, 75_000, 100_000))
    times = range(moment, moment + chance.randrange(1, 8) * pause, pause)
    return [_payment(chance, user, time_ms, chance.choice(places), usual) for time_ms in times]


def _payment(
    chance: random.Random, user: int, time_ms: int, place: tuple[float, float], usual: int
) -> Event:
    is_online = chance.random() < _ONLINE
    return event(
        time_ms,
        user_id=f"user-{user}",
        card_id=f"card-{user}-{chance.randrange(2)}",
        amount_cents=round(usual * chance.uniform(0.3, 2.0)),
        merchant=f"shop-{chance.randrange(50)}",
        latitude=None if is_online else round(place[0] + chance.uniform(-0.2, 0.2), 5),
        longitude=None if is_online else round(place[1] + chance.uniform(-0.2, 0.2), 5),
    )


def event(time_ms: int, **fields: Any) -> Event:
    """Return a transaction at `time_ms`; fields not given are as usual."""
    return {
        "event_id": "",
        "event_time": time_ms,
        "user_id": "",
        "card_id": "card",
        "amount_cents": 1,
        "merchant": None,
        "latitude": None,
        "longitude": None,
        **fields,
    }
