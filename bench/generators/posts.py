"""People who publish posts, whose hashtags come into fashion and go out of it."""

from __future__ import annotations

import random

from bench.generators import Event, World

_MINUTE = 60_000
_LASTING = ["News", "music", "Football", "weather"]
_FASHIONS = [f"fashion{number}" for number in range(24)]


def generate(seed: int, count: int, start_ms: int) -> World:
    """Return about `count` posts of forty minutes; each fashion holds for a quarter of an hour."""
    chance = random.Random(seed)
    events = []
    for number in range(count):
        at = chance.randrange(40 * _MINUTE)
        events.append(
            event(
                start_ms + at,
                event_id=f"post-{number}",
                author_id=f"author-{chance.randrange(max(1, count // 5))}",
                hashtags=_hashtags(chance, at / _MINUTE),
            )
        )
    return {"posts": sorted(events, key=lambda e: (e["event_time"], e["event_id"]))}


def _hashtags(chance: random.Random, minute: float) -> list[str]:
    """Return the hashtags of a post: mostly one or two, in any case, some named twice."""
    begun = int(minute / 40 * len(_FASHIONS))
    lately = _FASHIONS[max(0, begun - 8) : begun + 1]
    found = [
        chance.choice(lately if chance.random() < 0.7 else _LASTING)
        for _ in range(chance.choice((0, 1, 1, 2, 2, 4)))
    ]
    return [tag.upper() if chance.random() < 0.3 else tag for tag in found]


def event(time_ms: int, **fields: object) -> Event:
    """Return a post at `time_ms`; fields not given are as usual."""
    return {
        "event_id": "",
        "event_time": time_ms,
        "author_id": "",
        "text": "",
        "hashtags": [],
        **fields,
    }
