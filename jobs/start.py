"""Where in its topics a job begins, or begins to be strict. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Start:
    """By partition, the offset to begin with and the newest timestamp (epoch ms) before it.

    Without offsets a job begins with the first of its topic.
    """

    offsets: Mapping[int, int] = field(default_factory=dict)
    newest: Mapping[int, int] = field(default_factory=dict)

    @property
    def known(self) -> tuple[tuple[int, tuple[int, int]], ...]:
        """(partition, (offset, newest timestamp before it)) of each partition with records."""
        return tuple((part, (self.offsets[part], at)) for part, at in self.newest.items())

    def as_options(self) -> dict[str, str]:
        """Return the start as options of `jobs.submit.submit`."""
        return {"start": _text(self.offsets), "newest": _text(self.newest)}


def start_from(offsets: str, newest: str) -> Start:
    """Return the start that `Start.as_options` wrote, from its two texts."""
    return Start(_numbers(offsets), _numbers(newest))


def accepted_option(ends: Mapping[str, Mapping[int, int]]) -> dict[str, str]:
    """Return the option that lets dead letters before `ends` pass, offsets by stream name."""
    entries = [f"{name}:{part}:{at}" for name, parts in ends.items() for part, at in parts.items()]
    return {"accept_dead_letters": ",".join(entries)}


def accepted_from(text: str) -> dict[str, tuple[tuple[int, int], ...]]:
    """Return what `accepted_option` wrote: (partition, offset) by stream name."""
    found: dict[str, list[tuple[int, int]]] = {}
    for entry in filter(None, text.split(",")):
        name, part, at = entry.rsplit(":", 2)
        found.setdefault(name, []).append((int(part), int(at)))
    return {name: tuple(places) for name, places in found.items()}


def _text(numbers: Mapping[int, int]) -> str:
    return ",".join(f"{part}:{number}" for part, number in numbers.items())


def _numbers(text: str) -> dict[int, int]:
    pairs = (entry.split(":") for entry in text.split(",") if entry)
    return {int(part): int(number) for part, number in pairs}
