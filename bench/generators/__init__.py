"""Seeded events for every stream: what happens in a small world, a module for each.

A module has `generate(seed, count, start_ms)`, which returns about `count` events by stream name,
each stream's in the order of its event times (epoch milliseconds). Equal arguments give equal
events. `disordered` brings them into the order in which a real topic would hold them.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

Event = dict[str, Any]
World = dict[str, list[Event]]


def disordered(
    events: Iterable[Event], disorder_ms: int, seed: int, time_field: str = "event_time"
) -> list[Event]:
    """Return `events` in the order of their arrival: each comes up to `disorder_ms` late.

    Most come within a tenth of that. No event trails the newest before it by `disorder_ms`.
    """
    chance = random.Random(seed)

    def arrival(event: Event) -> float:
        bound = disorder_ms if chance.random() < 0.05 else disorder_ms / 10
        return float(event[time_field]) + chance.random() * bound

    return [event for _, event in sorted(((arrival(e), e) for e in events), key=lambda p: p[0])]
