"""The page views' own views, computed anew in plain Python."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from bench.generators import World, page_views

JOB = "page_views"
START = 1_767_600_000_000  # 2026-01-05T08:00:00Z
GAP = 30 * 60 * 1000
CLOSING = "~closing"

_WINDOWED = ("window_start", "window_end", "views", "unique_users", "avg_duration_ms", "errors")
COLUMNS = {
    "page_views_per_minute": ("page_id", *_WINDOWED),
    "page_views_sliding": ("page_id", *_WINDOWED),
    "site_traffic_per_minute": _WINDOWED,
    "page_view_sessions": (
        "user_id",
        "session_start",
        "session_end",
        "pages",
        "duration_ms",
        "entry_page",
        "exit_page",
        "is_bounce",
    ),
}
_LATEST = "toDateTime64('2026-01-07 00:00:00', 3, 'UTC')"
WHERE = {
    **dict.fromkeys(list(COLUMNS)[:3], f"window_start < {_LATEST}"),
    "page_view_sessions": f"user_id <> '{CLOSING}'",
}


def events() -> World:
    """Return some two thousand page views of three hours."""
    return page_views.generate(seed=7, count=2_000, start_ms=START)


def closing(stream: str, time_ms: int) -> dict[str, Any]:
    """Return a page view of a visitor of its own."""
    return page_views.event(time_ms, user_id=CLOSING, page_id="/closing", event_id="closing")


def expected(world: World) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows of each view."""
    found = world["page_views"]
    return {
        "page_views_per_minute": _windows(found, 60_000, by_page=True),
        "page_views_sliding": _windows(found, 300_000, by_page=True),
        "site_traffic_per_minute": _windows(found, 60_000, by_page=False),
        "page_view_sessions": _sessions(found),
    }


def _windows(found: list[dict[str, Any]], size: int, *, by_page: bool) -> list[tuple[Any, ...]]:
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for event in found:
        last = event["event_time"] // 60_000 * 60_000
        for start in range(last - size + 60_000, last + 1, 60_000):
            groups[(event["page_id"],) if by_page else (), start].append(event)
    rows = []
    for (page, start), members in groups.items():
        durations = [e["duration_ms"] for e in members if e["duration_ms"] is not None]
        rows.append(
            (
                *page,
                start,
                start + size,
                len(members),
                len({e["user_id"] for e in members}),
                sum(durations) / len(durations) if durations else None,
                sum(e["status"] >= 500 for e in members),
            )
        )
    return rows


def _sessions(found: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    by_user: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in found:
        by_user[event["user_id"]].append(event)
    for user, visits in by_user.items():
        session: list[dict[str, Any]] = []
        for event in [*visits, None]:
            if session and (event is None or event["event_time"] - session[-1]["event_time"] > GAP):
                first, last = session[0], session[-1]
                begin, end = first["event_time"], last["event_time"]
                pages = first["page_id"], last["page_id"]
                only = len(session) == 1
                rows.append((user, begin, end, len(session), end - begin, *pages, only))
                session = []
            if event is not None:
                session.append(event)
    return rows
