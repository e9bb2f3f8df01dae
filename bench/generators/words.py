"""Lines of text in several scripts, with punctuation."""

from __future__ import annotations

import random

from bench.generators import Event, World

_LINE = "To be or not to be that is the question Ärger straße ночь 東京 42 x2"
_WORDS = _LINE.split()
_MARKS = ["", "", "", ",", ".", "!", " —", "'s", "\n"]


def generate(seed: int, count: int, start_ms: int) -> World:
    """Return `count` lines of up to twelve words, one about each second; some have none."""
    chance = random.Random(seed)
    return {
        "words": [
            event(
                start_ms + number * 1_000 + chance.randrange(1_000),
                event_id=f"line-{number}",
                text=" ".join(
                    chance.choice(_WORDS) + chance.choice(_MARKS)
                    for _ in range(chance.randrange(13))
                ),
            )
            for number in range(count)
        ]
    }


def event(time_ms: int, **fields: object) -> Event:
    """Return a line at `time_ms`; fields not given are empty."""
    return {"event_id": "", "event_time": time_ms, "text": "", **fields}
