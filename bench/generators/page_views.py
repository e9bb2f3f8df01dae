"""Visitors who come, look at some pages of a site, and go."""

from __future__ import annotations

import random
from typing import Any

from bench.generators import Event, World

_MINUTE = 60_000
_PAGES = [f"/articles/{number}" for number in range(1, 40)]


def generate(seed: int, count: int, start_ms: int) -> World:
    """Return about `count` page views of three hours: visits of a few pages, some users again."""
    chance = random.Random(seed)
    events: list[Event] = []
    while len(events) < count:
        user = f"user-{chance.randrange(count // 10)}"
        moment = start_ms + chance.randrange(180 * _MINUTE)
        for _ in range(min(20, int(chance.expovariate(1 / 4)) + 1)):
            page = _PAGES[min(int(chance.expovariate(1 / 6)), len(_PAGES) - 1)]
            events.append(
                event(
                    moment,
                    user_id=user,
                    page_id=page,
                    event_id=f"pv-{len(events)}",
                    duration_ms=chance.randrange(1_000, 90_000) if chance.random() < 0.8 else None,
                    status=500 if chance.random() < 0.02 else 200,
                )
            )
            moment += chance.randrange(1_000, 4 * _MINUTE)
    # Distinct times within a visitor's events give each visit one first and one last page.
    return {"page_views": sorted(events, key=lambda e: (e["event_time"], e["event_id"]))}


def event(time_ms: int, **fields: Any) -> Event:
    """Return a page view at `time_ms`; fields not given are as usual."""
    return {
        "event_id": "",
        "event_time": time_ms,
        "user_id": "",
        "page_id": "",
        "duration_ms": None,
        "status": 200,
        "method": "GET",
        "bytes_sent": None,
        "country": None,
        "referrer": None,
        "user_agent": None,
        **fields,
    }
