"""Visitors who come, look at some pages of a site, and go; and crowds that one page draws."""

from __future__ import annotations

import random
from typing import Any

from bench.generators import Event, World

_MINUTE = 60_000
_PAGES = [f"/articles/{number}" for number in range(1, 40)]


def generate(seed: int, count: int, start_ms: int) -> World:
    """Return about `count` page views of three hours: visits, and crowds before two pages.

    Visits are of a few pages, some users come again. Two fifths of the events are visits.
    """
    chance = random.Random(seed)
    events = _visits(chance, count * 2 // 5, start_ms)
    steady = count * 3 // 5 // 500
    # Bursts stand out by 6 and by 160 times what comes in other minutes.
    events += _crowd(chance, "/launch", start_ms, [steady] * 180, {60: 6, 150: 160})
    events += _crowd(chance, "/feed", start_ms, [steady] * 170, {})
    numbered = [e | {"event_id": f"pv-{number}"} for number, e in enumerate(events)]
    return {"page_views": sorted(numbered, key=lambda e: (e["event_time"], e["event_id"]))}


def _visits(chance: random.Random, count: int, start_ms: int) -> list[Event]:
    events: list[Event] = []
    while len(events) < count:
        user = f"user-{chance.randrange(max(1, count // 10))}"
        moment = start_ms + chance.randrange(180 * _MINUTE)
        for _ in range(min(20, int(chance.expovariate(1 / 4)) + 1)):
            page = _PAGES[min(int(chance.expovariate(1 / 6)), len(_PAGES) - 1)]
            events.append(
                event(
                    moment,
                    user_id=user,
                    page_id=page,
                    duration_ms=chance.randrange(1_000, 90_000) if chance.random() < 0.8 else None,
                    status=500 if chance.random() < 0.02 else 200,
                )
            )
            # Distinct times within a visitor's events give each visit one first and last page.
            moment += chance.randrange(1_000, 4 * _MINUTE)
    return events


def _crowd(
    chance: random.Random, page: str, start_ms: int, usual: list[int], bursts: dict[int, int]
) -> list[Event]:
    """Return a page's views by people who come once, their times in whole seconds.

    `usual` are the views of each minute, `bursts` by what some of them are multiplied.
    """
    return [
        event(
            start_ms + minute * _MINUTE + chance.randrange(60) * 1_000,
            user_id=f"{page[1:]}-{minute}-{number}",
            page_id=page,
        )
        for minute, views in enumerate(usual)
        for number in range(views * bursts.get(minute, 1))
    ]


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
