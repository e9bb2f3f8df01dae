"""The posts' view, computed anew in plain Python."""

from __future__ import annotations

from collections import Counter
from typing import Any

from bench.generators import World, posts

JOB = "posts"
START = 1_767_600_000_000  # 2026-01-05T08:00:00Z
MINUTE = 60_000
COLUMNS = {
    "trending_hashtags": (
        "window_start",
        "window_end",
        "rank",
        "hashtag",
        "posts",
        "posts_change",
        "rank_change",
    )
}
WHERE = {"trending_hashtags": "window_start < toDateTime64('2026-01-07 00:00:00', 3, 'UTC')"}


def events() -> World:
    """Return some hundred posts of forty minutes, each third of which has an empty hashtag, too."""
    world = posts.generate(seed=5, count=900, start_ms=START)
    for post in world["posts"][::3]:
        post["hashtags"] = [*post["hashtags"], ""]
    return world


def closing(stream: str, time_ms: int) -> dict[str, Any]:
    """Return a post with a hashtag of its own."""
    fields = {"event_id": "closing", "author_id": "~closing", "hashtags": ["closing"]}
    return posts.event(time_ms, **fields)


def expected(world: World) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows of each view."""
    found = world["posts"]
    first, last = found[0]["event_time"] // MINUTE, found[-1]["event_time"] // MINUTE
    rows: list[tuple[Any, ...]] = []
    before: Counter[str] = Counter()
    ranks_before: dict[str, int] = {}
    for minute in range(first - 9, last + 1):
        begin, end = minute * MINUTE, (minute + 10) * MINUTE
        inside = [e for e in found if begin <= e["event_time"] < end]
        counts = Counter(tag for e in inside for tag in {t.lower() for t in e["hashtags"] if t})
        top = sorted(counts, key=lambda tag: (-counts[tag], tag))[:10]
        ranks = {tag: rank for rank, tag in enumerate(top, 1)}
        for tag, rank in ranks.items():
            rose = ranks_before[tag] - rank if tag in ranks_before else None
            rows.append((begin, end, rank, tag, counts[tag], counts[tag] - before[tag], rose))
        before, ranks_before = counts, ranks
    return {"trending_hashtags": rows}
