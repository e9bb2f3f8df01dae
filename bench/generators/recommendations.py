"""Users of a shop who look at items that belong together, and at some that do not."""

from __future__ import annotations

import random

from bench.generators import Event, World

_MINUTE = 60_000
_SHELVES, _ITEMS = 3, 7


def generate(seed: int, count: int, start_ms: int) -> World:
    """Return about `count` item views of three hours, most of a visit from one shelf.

    Pauses of exactly half an hour, and of a millisecond more, occur within visits.
    """
    chance = random.Random(seed)
    events: list[Event] = []
    while len(events) < count:
        user = f"user-{chance.randrange(count // 12)}"
        moment = start_ms + chance.randrange(180 * _MINUTE)
        shelf = chance.randrange(_SHELVES)
        for _ in range(chance.randrange(1, 7)):
            where = shelf if chance.random() < 0.9 else chance.randrange(_SHELVES)
            item = f"item-{where}-{min(int(chance.expovariate(0.6)), _ITEMS - 1)}"
            events.append(event(moment, user, item, f"iv-{len(events)}"))
            usual = chance.randrange(1_000, 4 * _MINUTE)
            pauses = {0: 30 * _MINUTE, 1: 30 * _MINUTE + 1}
            moment += pauses.get(chance.randrange(20), usual)
    return {"item_views": sorted(events, key=lambda e: (e["event_time"], e["event_id"]))}


def event(time_ms: int, user_id: str, item_id: str, event_id: str) -> Event:
    """Return a user's look at an item."""
    what = {"user_id": user_id, "item_id": item_id}
    return {"event_id": event_id, "event_time": time_ms, **what}
