"""The experiments' views, computed anew in plain Python."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

from bench.generators import Event, World
from bench.generators import experiments as users

JOB = "experiments"
START = 1_767_600_000_000  # 2026-01-05T08:00:00Z
HOUR = 3_600_000
CLOSING = "~closing"

_FULL_HOUR = START + 2 * HOUR
# 51 s later, an SQL query's watermark is between the times at which Flink's interval join would
# give up the two exposures of `_pairs`: it takes half the interval more than it has to.
_HALF = _FULL_HOUR + HOUR * 3 // 2 + 51_000

_FIGURES = ("exposed_users", "converted_users", "conversion_rate")
COLUMNS = {
    "experiment_results": ("experiment", "variant", *_FIGURES, "standard_error"),
    "experiment_results_per_hour": (
        "experiment",
        "variant",
        "window_start",
        "window_end",
        *_FIGURES,
    ),
    "experiment_goals": ("experiment", "variant", "goal", "converted_users"),
}
WHERE = dict.fromkeys(COLUMNS, f"experiment <> '{CLOSING}'")


def events() -> World:
    """Return some eighteen hundred events of six hundred users, and those of `_pairs`."""
    world = users.generate(seed=19, count=1_800, start_ms=START)
    pairs = _pairs()
    return {
        name: sorted(_halved(found + pairs.get(name, []), name), key=lambda e: e["event_time"])
        for name, found in world.items()
    }


def _pairs() -> World:
    """Return two exposures each of 150 users, just before and after a full hour.

    Some arrive in the wrong order.
    """
    return {
        "exposures": [
            {
                **users.exposure(_FULL_HOUR + after, f"pair-{number}", "button", "blue"),
                "event_id": f"pair-{number}-{after}",
            }
            for number in range(150)
            for after in (-100, 1_900)
        ]
    }


def _halved(found: list[Event], stream: str) -> list[Event]:
    """Return `found` with events at `_HALF` in every partition, and none soon before or after.

    There, where the first half of what is sent ends, the watermark stands for a while.
    """
    found = [event for event in found if abs(event["event_time"] - _HALF) > 12_000]
    earlier = sum(event["event_time"] < _HALF for event in found)
    made = []
    for number in range(abs(len(found) - 2 * earlier) + 100):
        if stream == "exposures":
            event = users.exposure(_HALF, f"half-{number}", "half", "only")
        else:
            event = users.conversion(_HALF, f"half-{number}", "signup")
        made.append({**event, "event_id": f"half-{stream}-{number}"})
    return found + made


def closing(stream: str, time_ms: int) -> dict[str, Any]:
    """Return an event of a user and an experiment of its own."""
    if stream == "exposures":
        made = users.exposure(time_ms, CLOSING, CLOSING, CLOSING)
    else:
        made = users.conversion(time_ms, CLOSING, CLOSING)
    return {**made, "event_id": CLOSING}


def expected(world: World) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows of each view."""
    times: dict[str, list[int]] = defaultdict(list)
    for conversion in world["conversions"]:
        times[conversion["user_id"]].append(conversion["event_time"])

    def converted(event: Event) -> bool:
        return any(0 <= at - event["event_time"] <= HOUR for at in times[event["user_id"]])

    users_of: dict[tuple[Any, ...], tuple[set[str], set[str]]]
    users_of = defaultdict(lambda: (set(), set()))
    for event in world["exposures"]:
        start, variant = event["event_time"] // HOUR * HOUR, (event["experiment"], event["variant"])
        for key in (variant, (*variant, start, start + HOUR)):
            users_of[key][0].add(event["user_id"])
            if converted(event):
                users_of[key][1].add(event["user_id"])
    rows = [(*key, len(e), len(c), len(c) / len(e)) for key, (e, c) in users_of.items()]
    return {
        "experiment_results": [(*row, _error(row[2], row[4])) for row in rows if len(row) == 5],
        "experiment_results_per_hour": [row for row in rows if len(row) == 7],
        "experiment_goals": _goals(world),
    }


def _goals(world: World) -> list[tuple[Any, ...]]:
    reached: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    seen: dict[str, list[Event]] = defaultdict(list)
    for event in world["exposures"]:
        seen[event["user_id"]].append(event)
    for conversion in world["conversions"]:
        user = conversion["user_id"]
        for event in seen[user]:
            if 0 <= conversion["event_time"] - event["event_time"] <= HOUR:
                reached[event["experiment"], event["variant"], conversion["goal"]].add(user)
    assert len({goal for _, _, goal in reached}) > 1
    return [(*key, len(users_there)) for key, users_there in reached.items()]


def _error(exposed: int, rate: float) -> float:
    return math.sqrt(rate * (1 - rate) / exposed)
