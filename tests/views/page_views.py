"""The page views' own views, computed anew in plain Python."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from datasketches import hll_sketch, hll_union

from bench.generators import Event, World, page_views

JOB = "page_views"
START = 1_767_600_000_000  # 2026-01-05T08:00:00Z
GAP = 30 * 60 * 1000
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
CLOSING, CLOSING_PAGE = "~closing", "/closing"

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
    "unique_users_per_hour": ("window_start", "window_end", "views", "unique_users"),
    "unique_users_per_day": ("window_start", "window_end", "views", "unique_users"),
    "page_stats": (
        "page_id",
        "views",
        "unique_users",
        "avg_duration_ms",
        "errors",
        "first_seen",
        "last_seen",
    ),
    "page_milestones": ("page_id", "views", "reached_at", "event_id"),
    "traffic_anomalies": (
        "page_id",
        "window_start",
        "window_end",
        "views",
        "baseline",
        "severity",
    ),
    "top_pages": ("window_start", "window_end", "rank", "page_id", "views"),
}
_LATEST = "toDateTime64('2026-01-07 00:00:00', 3, 'UTC')"
WHERE = {
    **{view: f"window_start < {_LATEST}" for view in COLUMNS if "window_start" in COLUMNS[view]},
    "page_view_sessions": f"user_id <> '{CLOSING}'",
    "page_stats": f"page_id <> '{CLOSING_PAGE}'",
}


def events() -> World:
    """Return some five thousand page views of three hours, and those of a page seldom read."""
    found = page_views.generate(seed=7, count=5_000, start_ms=START)["page_views"]
    return {"page_views": sorted(found + _seldom(), key=lambda event: event["event_time"])}


def _seldom() -> list[Event]:
    """Return views of a page that is read each 25 minutes, at last six times in one.

    Six is three times what was usual in the six hours before, from their first minute on: not if
    its very first minute counted, and far more than that if minutes without views did.
    """
    views = {0: 100, 50: 3, 410: 6} | dict.fromkeys(range(75, 401, 25), 1)
    return [
        page_views.event(
            START + minute * MINUTE + number * 100,
            event_id=f"seldom-{minute}-{number}",
            user_id=f"reader-{minute}-{number}",
            page_id="/seldom",
        )
        for minute, times in views.items()
        for number in range(times)
    ]


def closing(stream: str, time_ms: int) -> dict[str, Any]:
    """Return a page view of a visitor of its own."""
    return page_views.event(time_ms, user_id=CLOSING, page_id=CLOSING_PAGE, event_id="closing")


def expected(world: World) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows of each view."""
    found = world["page_views"]
    return {
        "page_views_per_minute": _windows(found, 60_000, by_page=True),
        "page_views_sliding": _windows(found, 300_000, by_page=True),
        "site_traffic_per_minute": _windows(found, 60_000, by_page=False),
        "page_view_sessions": _sessions(found),
        "unique_users_per_hour": _unique_users(found),
        "unique_users_per_day": _sketched_users(found),
        "page_stats": [_stats(page, views) for page, views in _by_page(found).items()],
        "page_milestones": _milestones(found),
        "traffic_anomalies": _anomalies(found),
        "top_pages": _top_pages(found),
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


def _by_page(found: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    pages: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in found:
        pages[event["page_id"]].append(event)
    return pages


def _unique_users(found: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    hours: dict[int, list[str]] = defaultdict(list)
    for event in found:
        hours[event["event_time"] // HOUR * HOUR].append(event["user_id"])
    return [(hour, hour + HOUR, len(users), len(set(users))) for hour, users in hours.items()]


def _sketched_users(found: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    days: dict[int, list[str]] = defaultdict(list)
    for event in found:
        days[event["event_time"] // DAY * DAY].append(event["user_id"])
    return [(day, day + DAY, len(users), _about(users)) for day, users in days.items()]


def _about(users: list[str]) -> int:
    """Return how many different `users` a sketch of two halves counts; the view's has many parts.

    What it counts must be as near to the truth as the column's doc says.
    """
    both, exact = hll_union(12), len(set(users))
    for half in (users[::2], users[1::2]):
        sketch = hll_sketch(12)
        for user in half:
            sketch.update(user)
        both.update(sketch)
    about = round(both.get_estimate())
    assert exact > 500, "so few are counted exactly"
    assert abs(about - exact) < 0.05 * exact
    return about


def _stats(page: str, views: list[dict[str, Any]]) -> tuple[Any, ...]:
    durations = [e["duration_ms"] for e in views if e["duration_ms"] is not None]
    return (
        page,
        len(views),
        len({e["user_id"] for e in views}),
        sum(durations) / len(durations) if durations else None,
        sum(e["status"] >= 500 for e in views),
        min(e["event_time"] for e in views),
        max(e["event_time"] for e in views),
    )


def _milestones(found: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for page, views in _by_page(found).items():
        views.sort(key=lambda e: (e["event_time"], e["event_id"]))
        for number in range(1_000, len(views) + 1, 1_000):
            reached = views[number - 1]
            rows.append((page, number, reached["event_time"], reached["event_id"]))
    assert max(row[1] for row in rows) == 2_000, "no page has two milestones"
    return rows


def _anomalies(found: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Return the minutes that stand out from those with views in the six hours before."""
    rows: list[tuple[Any, ...]] = []
    for page, views in _by_page(found).items():
        minutes = sorted(Counter(e["event_time"] // MINUTE * MINUTE for e in views).items())
        for start, count in minutes:
            before = [n for minute, n in minutes if start - 6 * HOUR <= minute < start]
            if len(before) < 10:
                continue
            usual = float(before[0])
            for known in before[1:]:
                usual = 0.95 * usual + 0.05 * known
            mean = round(usual, 9)
            if count >= 3 * mean:
                severity = "critical" if count > 10 * mean else "spike"
                rows.append((page, start, start + MINUTE, count, mean, severity))
    assert {row[-1] for row in rows} == {"spike", "critical"}
    assert [row[-1] for row in rows if row[0] == "/seldom"] == ["spike"]
    return rows


def _top_pages(found: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    hours: dict[int, Counter[str]] = defaultdict(Counter)
    for event in found:
        hours[event["event_time"] // HOUR * HOUR][event["page_id"]] += 1
    rows: list[tuple[Any, ...]] = []
    for hour, pages in hours.items():
        ranked = sorted(pages.items(), key=lambda page: (-page[1], page[0]))[:10]
        rows += [(hour, hour + HOUR, place, *page) for place, page in enumerate(ranked, 1)]
    return rows
