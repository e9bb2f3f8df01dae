"""The recommendations' views, computed anew in plain Python."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from bench.generators import World
from bench.generators import recommendations as shop

JOB = "recommendations"
START = 1_767_600_000_000  # 2026-01-05T08:00:00Z
MINUTE = 60_000
CLOSING = "~closing"

COLUMNS = {
    "related_items": (
        "item_id",
        "window_start",
        "window_end",
        "place",
        "related_item_id",
        "common_viewers",
    ),
}


def events() -> World:
    """Return twelve hundred item views of some three hours."""
    return shop.generate(seed=23, count=1_200, start_ms=START)


def closing(stream: str, time_ms: int) -> dict[str, Any]:
    """Return a look at an item of its own, which nothing is seen with."""
    return shop.event(time_ms, CLOSING, CLOSING, CLOSING)


def expected(world: World) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows of each view."""
    found = world["item_views"]
    viewers: dict[tuple[int, str], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for seen in found:
        last = seen["event_time"] // (15 * MINUTE) * 15 * MINUTE
        for other in found:
            if (
                other["user_id"] == seen["user_id"]
                and other["item_id"] != seen["item_id"]
                and abs(other["event_time"] - seen["event_time"]) <= 30 * MINUTE
            ):
                for start in range(last - 45 * MINUTE, last + 1, 15 * MINUTE):
                    viewers[start, seen["item_id"]][other["item_id"]].add(seen["user_id"])
    rows = []
    for (start, item), related in viewers.items():
        ranked = sorted((-len(users), name) for name, users in related.items())[:5]
        for place, (count, name) in enumerate(ranked, 1):
            rows.append((item, start, start + 60 * MINUTE, place, name, -count))
    return {"related_items": rows}
