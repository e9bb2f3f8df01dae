"""The views of device readings, computed anew in plain Python."""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import Any

from bench.generators import Event, World, devices

JOB = "devices"
START = 1_767_600_000_000  # 2026-01-05T08:00:00Z
CLOSING = "~closing"
MINUTE = 60_000

COLUMNS = {
    "device_health_per_minute": (
        "device_id",
        "window_start",
        "window_end",
        "readings",
        "min_temperature",
        "max_temperature",
        "mean_temperature",
        "stddev_temperature",
        "gaps",
    ),
    "device_alerts": ("kind", "device_id", "alert_time", "temperature"),
    "devices_quiet": ("device_id", "quiet_since", "active_since", "readings"),
}
WHERE = dict.fromkeys(COLUMNS, f"device_id <> '{CLOSING}'")


def events() -> World:
    """Return some two thousand readings of twelve devices."""
    return devices.generate(seed=11, count=2_400, start_ms=START)


def closing(stream: str, time_ms: int) -> dict[str, Any]:
    """Return a reading of a device of its own."""
    return devices.event(time_ms, device_id=CLOSING, event_id="closing")


def expected(world: World) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows of each view."""
    by_device: dict[str, list[Event]] = defaultdict(list)
    for event in world["device_readings"]:
        by_device[event["device_id"]].append(event)
    found = by_device.values()
    alerts = [row for events in found for row in (*_too_hot(events), *_fell_silent(events))]
    assert {row[0] for row in alerts} == {"too_hot", "rising_then_silent"}
    return {
        "device_health_per_minute": [row for events in found for row in _health(events)],
        "device_alerts": alerts,
        "devices_quiet": [row for events in found for row in _quiet(events)],
    }


def _minutes(events: list[Event]) -> dict[int, list[Event]]:
    minutes: dict[int, list[Event]] = defaultdict(list)
    for event in events:
        minutes[event["event_time"] // MINUTE * MINUTE].append(event)
    return minutes


def _health(events: list[Event]) -> list[tuple[Any, ...]]:
    rows = []
    for start, members in _minutes(events).items():
        measured = [e["temperature"] for e in members]
        figures = min(measured), max(measured), statistics.fmean(measured)
        spread, gaps = statistics.pstdev(measured), max(0, 6 - len(measured))
        device = members[0]["device_id"]
        rows.append((device, start, start + MINUTE, len(members), *figures, spread, gaps))
    return rows


def _too_hot(events: list[Event]) -> list[tuple[Any, ...]]:
    hot = [event for event in events if event["temperature"] > 90]
    return [
        ("too_hot", first["device_id"], first["event_time"], first["temperature"])
        for members in _minutes(hot).values()
        for first in members[:1]
    ]


def _fell_silent(events: list[Event]) -> list[tuple[Any, ...]]:
    rows = []
    for members in _stretches(events, MINUTE):
        last = [event["temperature"] for event in members[-3:]]
        if len(last) == 3 and 70 < last[0] < last[1] < last[2]:
            end = members[-1]
            rows.append(("rising_then_silent", end["device_id"], end["event_time"], last[2]))
    return rows


def _quiet(events: list[Event]) -> list[tuple[Any, ...]]:
    return [
        (part[0]["device_id"], part[-1]["event_time"], part[0]["event_time"], len(part))
        for part in _stretches(events, 5 * MINUTE)
    ]


def _stretches(events: list[Event], gap: int) -> list[list[Event]]:
    """Return the events parted wherever none came for more than `gap`."""
    parts: list[list[Event]] = []
    for event in events:
        if not parts or event["event_time"] - parts[-1][-1]["event_time"] > gap:
            parts.append([])
        parts[-1].append(event)
    return parts
