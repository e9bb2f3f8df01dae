"""Viewers who play a title, report each half minute, and stop or see it to the end."""

from __future__ import annotations

import random
from typing import Any

from bench.generators import Event, World

_MINUTE = 60_000
_DEVICES = ("phone", "tablet", "tv", "web")
_COUNTRIES = ("DE", "FR", "NL")


def generate(seed: int, count: int, start_ms: int) -> World:
    """Return about `count` reports of sessions begun within two hours; some never end."""
    chance = random.Random(seed)
    events: list[Event] = []
    session = 0
    while len(events) < count:
        session += 1
        length = chance.randrange(2, 20) * _MINUTE
        share = chance.choice((1.0, 0.9, chance.random()))
        same = {
            "session_id": f"session-{session}",
            "title_id": f"title-{min(int(chance.expovariate(0.4)), 9)}",
            "device": chance.choice(_DEVICES),
            "country": chance.choice(_COUNTRIES),
        }
        moment = begin = start_ms + chance.randrange(120 * _MINUTE)
        end = begin + int(length * share)
        while moment + 30_000 < end:
            moment += 30_000 + (90_000 if chance.random() < 0.05 else 0)
            events.append(event(moment, watched_ms=30_000, **same))
        if chance.random() < 0.9:
            rest, percent = max(0, end - moment), round(share * 100)
            moment = max(moment, end)
            events.append(event(moment, watched_ms=rest, completed_percent=percent, **same))
    for number, made in enumerate(events):
        made["event_id"] = f"pb-{number}"
    return {"playbacks": sorted(events, key=lambda e: (e["event_time"], e["event_id"]))}


def event(time_ms: int, **fields: Any) -> Event:
    """Return a report at `time_ms`; fields not given are as usual."""
    return {
        "event_id": "",
        "event_time": time_ms,
        "session_id": "",
        "title_id": "",
        "device": "tv",
        "country": "DE",
        "watched_ms": 0,
        "completed_percent": None,
        **fields,
    }
