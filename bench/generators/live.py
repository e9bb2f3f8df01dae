"""Generated events brought to the present: one world after another, in the order of arrival.

No I/O; the module of a world's generator is found by the name of the job that reads its streams.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType

import bench.generators
from bench.generators import Event, disordered
from schemas.streams import Stream


class NoGenerator(LookupError):
    """A job whose streams nothing is generated for."""


@dataclass(frozen=True)
class Arrival:
    """One event and when it arrives, epoch milliseconds; it happened a little earlier."""

    at_ms: float
    stream: str
    event: Event


def generator_of(job: str) -> ModuleType:
    """Return the module that generates the streams of `job`, or raise `NoGenerator`."""
    names = [m.name for m in pkgutil.iter_modules(bench.generators.__path__) if m.name != "live"]
    if job in names:
        return importlib.import_module(f"bench.generators.{job}")
    near = difflib.get_close_matches(job, names, n=1)
    hint = f'did you mean "{near[0]}"?' if near else f"there are: {', '.join(sorted(names))}."
    raise NoGenerator(f'no events are generated for "{job}"; {hint}')


def arrivals(
    job: str, streams: Mapping[str, Stream], seed: int, count: int, start_ms: int, span_ms: int
) -> Iterator[Arrival]:
    """Yield about `count` events of `job`'s streams between `start_ms` and `span_ms` after it.

    The world keeps its own order and distances, stretched or pressed into the span where it is
    longer than that.
    """
    world = generator_of(job).generate(seed=seed, count=count, start_ms=start_ms)
    times = [event["event_time"] for events in world.values() for event in events]
    longest = max(times, default=start_ms) - start_ms + 1
    scale = min(1.0, span_ms / longest)
    found = []
    for name, events in world.items():
        disorder = round(streams[name].disorder.total_seconds() * 1000) - 1
        placed = [
            {**e, "event_time": start_ms + int((e["event_time"] - start_ms) * scale)}
            for e in events
        ]
        newest = 0.0
        for event in disordered(placed, disorder, seed):
            newest = max(newest, float(event["event_time"]))
            found.append(Arrival(newest, name, event))
    return iter(sorted(found, key=lambda arrival: arrival.at_ms))
