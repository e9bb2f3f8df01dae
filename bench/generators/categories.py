"""Visitors of a site whose pages are filed under categories, and now and then under others."""

from __future__ import annotations

import random
from typing import Any

from bench.generators import Event, World, page_views

_CATEGORIES = ("news", "sports", "culture", "science")
_HOUR = 3_600_000


def generate(seed: int, count: int, start_ms: int) -> World:
    """Return about `count` page views of three hours, and when pages get which category.

    Two in three pages have one, from the first hours on; half of those change it once or twice.
    """
    requests = page_views.generate(seed, count, start_ms)["page_views"]
    chance = random.Random(seed)
    changes = [
        change
        for page in sorted({request["page_id"] for request in requests})
        if chance.random() < 2 / 3
        for change in _changes(chance, page, start_ms)
    ]
    numbered = [change | {"event_id": f"p-{number}"} for number, change in enumerate(changes)]
    return {
        "pages": sorted(numbered, key=lambda e: (e["event_time"], e["event_id"])),
        "page_requests": requests,
    }


def page(time_ms: int, page_id: str, category: str, **fields: Any) -> Event:
    """Return a page's filing under `category` from `time_ms` on."""
    return {
        "event_id": "",
        "event_time": time_ms,
        "page_id": page_id,
        "category": category,
        **fields,
    }


def _changes(chance: random.Random, page_id: str, start_ms: int) -> list[Event]:
    """Return what one page is filed under, at distinct times."""
    moment, found = start_ms + chance.randrange(_HOUR), []
    for _ in range(chance.choice((1, 1, 2, 3))):
        found.append(page(moment, page_id, chance.choice(_CATEGORIES)))
        moment += chance.randrange(1, _HOUR)
    return found
