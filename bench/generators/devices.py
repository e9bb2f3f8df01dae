"""Devices that measure each ten seconds, miss some readings, overheat, and fall silent."""

from __future__ import annotations

import random
from typing import Any

from bench.generators import Event, World

_INTERVAL = 10_000
_HOT, _MISSED = 0.01, 0.04


def generate(seed: int, count: int, start_ms: int) -> World:
    """Return about `count` readings of twelve devices over as long as that takes them."""
    chance = random.Random(seed)
    devices = 12
    readings: list[Event] = []
    for number in range(devices):
        moment = start_ms + chance.randrange(_INTERVAL)
        end = start_ms + count // devices * _INTERVAL
        temperature = 40.0
        while moment < end:
            if chance.random() > _MISSED:
                readings.append(_reading(chance, f"device-{number:02}", moment, temperature))
            temperature += chance.uniform(-6.0, 6.3) + (55.0 - temperature) / 20
            if chance.random() < _HOT:
                moment, temperature = _overheat(chance, readings, f"device-{number:02}", moment)
            moment += _INTERVAL + chance.randrange(-300, 300)
    readings.sort(key=lambda e: (e["event_time"], e["device_id"]))
    for position, reading in enumerate(readings):
        reading["event_id"] = f"reading-{position}"
    return {"device_readings": readings}


def _overheat(
    chance: random.Random, readings: list[Event], device: str, moment: int
) -> tuple[int, float]:
    """Let a device climb in some steps, then be silent for a while; return when it is back."""
    temperature = chance.uniform(60.0, 85.0)
    for _ in range(chance.randrange(2, 6)):
        moment += _INTERVAL
        temperature += chance.uniform(0.0, 8.0)
        readings.append(_reading(chance, device, moment, temperature))
    return moment + chance.choice((0, 50_000, 59_000, 61_000, 200_000, 301_000, 900_000)), 40.0


def _reading(chance: random.Random, device: str, time_ms: int, temperature: float) -> Event:
    battery = None if device < "device-04" else round(chance.random(), 2)
    return event(time_ms, device_id=device, temperature=round(temperature, 3), battery=battery)


def event(time_ms: int, **fields: Any) -> Event:
    """Return a reading at `time_ms`; fields not given are as usual."""
    return {
        "event_id": "",
        "event_time": time_ms,
        "device_id": "",
        "temperature": 20.0,
        "battery": None,
        **fields,
    }
