"""Users who see variants of experiments, and some of whom convert."""

from __future__ import annotations

import random

from bench.generators import Event, World

_MINUTE = 60_000
_HOUR = 60 * _MINUTE
_EXPERIMENTS = {"button": ("blue", "green"), "price": ("high", "low", "none")}
_CHANCES = {"blue": 0.2, "green": 0.35, "high": 0.1, "low": 0.3, "none": 0.0}


def generate(seed: int, count: int, start_ms: int) -> World:
    """Return about `count` exposures and conversions of some eight hours.

    Users come back, some see a second variant; some convert twice, without having seen anything,
    exactly an hour after, or a millisecond later.
    """
    chance = random.Random(seed)
    exposures: list[Event] = []
    conversions: list[Event] = []
    for number in range(max(1, count // 3)):
        user = f"user-{number}"
        for experiment, variants in _EXPERIMENTS.items():
            if chance.random() < 0.3:
                continue
            own = chance.choice(variants)
            moment = start_ms + chance.randrange(1, 6 * _HOUR)
            for _ in range(chance.choice((1, 1, 2, 3))):
                seen = own if chance.random() < 0.97 else chance.choice(variants)
                exposures.append(exposure(moment, user, experiment, seen))
                if chance.random() < _CHANCES[seen]:
                    conversions += _conversions(chance, moment, user)
                moment += chance.randrange(1, 2 * _HOUR)
        if chance.random() < 0.1:
            conversions.append(conversion(start_ms + chance.randrange(6 * _HOUR), user, "signup"))
    for prefix, events in (("ex", exposures), ("co", conversions)):
        for number, event in enumerate(events):
            event["event_id"] = f"{prefix}-{number}"
        events.sort(key=lambda e: (e["event_time"], e["event_id"]))
    return {"exposures": exposures, "conversions": conversions}


def exposure(time_ms: int, user_id: str, experiment: str, variant: str) -> Event:
    """Return a user's look at a variant."""
    what = {"user_id": user_id, "experiment": experiment, "variant": variant}
    return {"event_id": "", "event_time": time_ms, **what}


def conversion(time_ms: int, user_id: str, goal: str) -> Event:
    """Return a user's conversion."""
    return {"event_id": "", "event_time": time_ms, "user_id": user_id, "goal": goal}


def _conversions(chance: random.Random, seen_ms: int, user: str) -> list[Event]:
    usual = chance.randrange(40 * _MINUTE)
    waits = {
        0: (_HOUR,),
        1: (_HOUR + 1,),
        2: (0,),
        3: (-1,),
        4: (usual, usual + 2 * _MINUTE),
    }.get(chance.randrange(12), (usual,))
    return [conversion(seen_ms + wait, user, "purchase") for wait in waits]
