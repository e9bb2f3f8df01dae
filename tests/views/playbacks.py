"""The playbacks' views, computed anew in plain Python."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from bench.generators import Event, World, playbacks

JOB = "playbacks"
START = 1_767_600_000_000  # 2026-01-05T08:00:00Z
MINUTE, HOUR = 60_000, 3_600_000
CLOSING = "~closing"
TWICE = "title-twice"

_NOW = ("window_start", "window_end", "viewers", "watched_ms")
COLUMNS = {
    "titles_per_hour": (
        "title_id",
        "window_start",
        "window_end",
        "minutes_watched",
        "viewers",
        "ended",
        "completed",
        "completion_rate",
    ),
    "concurrent_viewers_per_minute": _NOW,
    "concurrent_viewers_by_device": ("device", "country", *_NOW),
}
_LATEST = "toDateTime64('2026-01-07 00:00:00', 3, 'UTC')"
WHERE = dict.fromkeys(COLUMNS, f"window_start < {_LATEST}")


def events() -> World:
    """Return some two thousand reports of two hours and a half.

    Two sessions tell of their end twice: one of the same end, one of another.
    """
    found = playbacks.generate(seed=13, count=2_000, start_ms=START)["playbacks"]
    for number, percent in enumerate((50, 50, 80, 95)):
        own = {"session_id": f"twice-{number // 2}", "title_id": TWICE, "event_id": f"end-{number}"}
        moment = START + (2 + number) * MINUTE
        found.append(playbacks.event(moment, watched_ms=15_000, completed_percent=percent, **own))
    return {"playbacks": sorted(found, key=lambda e: (e["event_time"], e["event_id"]))}


def closing(stream: str, time_ms: int) -> dict[str, Any]:
    """Return a report of a session of its own."""
    own = {"session_id": CLOSING, "title_id": CLOSING, "event_id": CLOSING}
    return playbacks.event(time_ms, **own)


def expected(world: World) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows of each view."""
    found = world["playbacks"]
    by_minute = _grouped(found, MINUTE, lambda e: ())
    by_device = _grouped(found, MINUTE, lambda e: (e["device"], e["country"]))
    by_hour = _grouped(found, HOUR, lambda e: (e["title_id"],))
    titles = [_title(key, members) for key, members in by_hour.items()]
    assert (TWICE, START, START + HOUR, 1.0, 2, 2, 1, 0.5) in titles
    return {
        "titles_per_hour": titles,
        "concurrent_viewers_per_minute": [_now(key, m) for key, m in by_minute.items()],
        "concurrent_viewers_by_device": [_now(key, m) for key, m in by_device.items()],
    }


def _grouped(
    found: list[Event], size: int, group: Callable[[Event], tuple[str, ...]]
) -> dict[tuple[Any, ...], list[Event]]:
    groups: dict[tuple[Any, ...], list[Event]] = defaultdict(list)
    for event in found:
        start = event["event_time"] // size * size
        groups[(*group(event), start, start + size)].append(event)
    return groups


def _now(key: tuple[Any, ...], members: list[Event]) -> tuple[Any, ...]:
    sessions = {e["session_id"] for e in members}
    return (*key, len(sessions), sum(e["watched_ms"] for e in members))


def _title(key: tuple[Any, ...], members: list[Event]) -> tuple[Any, ...]:
    minutes = sum(e["watched_ms"] for e in members) / MINUTE
    told = [e for e in members if e["completed_percent"] is not None]
    ended = {e["session_id"] for e in told}
    completed = {e["session_id"] for e in told if e["completed_percent"] >= 90}
    rate = len(completed) / len(ended) if ended else None
    viewers = {e["session_id"] for e in members}
    return (*key, minutes, len(viewers), len(ended), len(completed), rate)
