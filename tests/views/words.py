"""The words' view, computed anew in plain Python."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator
from typing import Any

from bench.generators import World, words

JOB = "words"
START = 1_767_600_000_000  # 2026-01-05T08:00:00Z
CLOSING = "closing~"
COLUMNS = {"word_counts": ("word", "occurrences")}
WHERE = {"word_counts": f"word <> '{CLOSING[:-1]}'"}


def events() -> World:
    """Return some hundred lines, and two of letters whose marks are signs of their own."""
    world = words.generate(seed=3, count=400, start_ms=START)
    for number, text in enumerate(("हिन्दी हिन्दी, \u0301 x\u0301!", "A\u0308rger")):
        moment = START + (401 + number) * 1_000
        world["words"].append(words.event(moment, event_id=f"marks-{number}", text=text))
    return world


def closing(stream: str, time_ms: int) -> dict[str, Any]:
    """Return a line with a word of its own."""
    return words.event(time_ms, event_id="closing", text=CLOSING)


def expected(world: World) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows of each view."""
    counts = Counter(word for line in world["words"] for word in _words(line["text"].lower()))
    assert {"straße", "ночь", "東京", "42", "x2", "s"} < set(counts)
    assert (counts["हिन्दी"], counts["a\u0308rger"], counts["x\u0301"]) == (2, 1, 1)
    return {"word_counts": list(counts.items())}


def _words(text: str) -> Iterator[str]:
    """Yield the runs of letters, digits and marks that do not begin with a mark."""
    word = ""
    for sign in [*text, " "]:
        kind = unicodedata.category(sign)[0]
        if kind in "LN" or (kind == "M" and word):
            word += sign
        elif word:
            yield word
            word = ""
