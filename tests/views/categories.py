"""The categories' views, computed anew in plain Python."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from typing import Any

from bench.generators import Event, World, page_views
from bench.generators import categories as site

JOB = "categories"
START = 1_767_600_000_000  # 2026-01-05T08:00:00Z
MINUTE, HOUR = 60_000, 3_600_000
CLOSING, CLOSING_PAGE = "~closing", "/closing"
DIMENSIONS = frozenset({"pages"})

COLUMNS = {
    "current_categories": ("page_id", "category", "since"),
    "category_traffic_per_minute": (
        "category",
        "window_start",
        "window_end",
        "views",
        "unique_users",
    ),
}
WHERE = {
    "category_traffic_per_minute": "window_start < toDateTime64('2026-01-07 00:00:00', 3, 'UTC')",
}


def events() -> World:
    """Return some four thousand requests of three hours, and pages that are filed anew."""
    found, odd = site.generate(seed=19, count=4_000, start_ms=START), _refiled()
    return {
        name: sorted(found[name] + odd[name], key=lambda event: event["event_time"])
        for name in found
    }


def _refiled() -> World:
    """Return pages that are asked for just before, between and after two changes of category.

    The changes are so near that some arrive in the wrong order; a visitor sees each page in both.
    """
    world: World = {"pages": [], "page_requests": []}
    changed = START + 3 * HOUR
    for number in range(30):
        name = f"/refiled/{number}"
        for after, category in ((0, "drafts"), (300, "published")):
            change = site.page(changed + after, name, category, event_id=f"{name}-{after}")
            world["pages"].append(change)
        for after in (-100, -1, 0, 299, 300, HOUR):
            request = page_views.event(
                changed + after,
                event_id=f"{name}-{after}",
                user_id=f"reader-{number // 2}",
                page_id=name,
            )
            world["page_requests"].append(request)
    return world


def closing(stream: str, time_ms: int) -> dict[str, Any]:
    """Return a request for a page of its own; pages, being dimensions, are not closed."""
    assert stream == "page_requests"
    return page_views.event(time_ms, event_id=CLOSING, user_id=CLOSING, page_id=CLOSING_PAGE)


def expected(world: World) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows of each view."""
    histories: dict[str, list[Event]] = defaultdict(list)
    for change in world["pages"]:
        histories[change["page_id"]].append(change)
    traffic = _traffic(world["page_requests"], histories)
    assert {"unknown", "drafts", "published", "news"} <= {row[0] for row in traffic}
    return {
        "current_categories": [
            (page, changes[-1]["category"], changes[-1]["event_time"])
            for page, changes in histories.items()
        ],
        "category_traffic_per_minute": traffic,
    }


def _traffic(requests: list[Event], histories: dict[str, list[Event]]) -> list[tuple[Any, ...]]:
    visitors: dict[tuple[str, int], list[str]] = defaultdict(list)
    for request in requests:
        history = histories.get(request["page_id"], [])
        held = bisect_right([change["event_time"] for change in history], request["event_time"])
        category = history[held - 1]["category"] if held else "unknown"
        minute = request["event_time"] // MINUTE * MINUTE
        visitors[category, minute].append(request["user_id"])
    return [
        (category, minute, minute + MINUTE, len(users), len(set(users)))
        for (category, minute), users in visitors.items()
    ]
