"""How far streams are read: by stream's name and partition the offset of the next event. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping

Offsets = Mapping[str, Mapping[int, int]]


def read_by_both(one: Offsets, other: Offsets) -> dict[str, dict[int, int]]:
    """Return up to where both have read."""
    return _combined(min, one, other)


def read_by_any(one: Offsets, other: Offsets) -> dict[str, dict[int, int]]:
    """Return up to where at least one has read."""
    return _combined(max, one, other)


def _combined(
    choose: Callable[[int, int], int], one: Offsets, other: Offsets
) -> dict[str, dict[int, int]]:
    return {
        stream: {
            part: choose(one.get(stream, {}).get(part, 0), other.get(stream, {}).get(part, 0))
            for part in sorted({*one.get(stream, {}), *other.get(stream, {})})
        }
        for stream in dict.fromkeys([*one, *other])
    }
