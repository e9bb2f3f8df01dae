"""The words' view, computed anew in plain Python."""

from __future__ import annotations

from collections import Counter
from typing import Any

from bench.generators import World, words

JOB = "words"
START = 1_767_600_000_000  # 2026-01-05T08:00:00Z
CLOSING = "closing~"
COLUMNS = {"word_counts": ("word", "occurrences")}
WHERE = {"word_counts": f"word <> '{CLOSING[:-1]}'"}


def events() -> World:
    """Return some hundred lines."""
    return words.generate(seed=3, count=400, start_ms=START)


def closing(stream: str, time_ms: int) -> dict[str, Any]:
    """Return a line with a word of its own."""
    return words.event(time_ms, event_id="closing", text=CLOSING)


def expected(world: World) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows of each view."""
    counts: Counter[str] = Counter()
    for line in world["words"]:
        # Whatever is neither letter nor digit stands between words.
        spaced = (sign if sign.isalnum() else " " for sign in line["text"].lower())
        counts.update("".join(spaced).split())
    assert {"straße", "ночь", "東京", "42", "x2", "s"} < set(counts)
    return {"word_counts": list(counts.items())}
