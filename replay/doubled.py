"""Find dead letters that were mended and sent again, and that the rules of now take as they were.

A rebuild counts the letter and what was sent for it. The letters are those of versions that are
there: what none of them refuses, the version that people see counts twice already.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from replay.control import Control
from replay.letters import Filter, Letter, Place, Workbench, find
from replay.reinjection import Reinjection
from schemas.registry import Registry
from schemas.streams import Stream
from sinks.clickhouse import ClickHouse


def doubled(
    control: Control,
    kafka: Mapping[str, Any],
    registry: Registry,
    clickhouse: ClickHouse,
    streams: Sequence[Stream],
) -> dict[str, tuple[Place, ...]]:
    """Return by stream where those letters stand; streams without any are left out."""
    found = {}
    for stream in streams:
        # Letters are sent again in the topic's own stream; others read that once more.
        sender = replace(stream, name=stream.reads or stream.name, reads="")
        places = Reinjection(control, kafka, sender).noted()
        letters = find(clickhouse, stream, Filter(places=tuple(places))) if places else []
        if taken := taken_now(Workbench(registry, stream, 0), letters):
            found[stream.name] = taken
    return found


def taken_now(bench: Workbench, letters: Collection[Letter]) -> tuple[Place, ...]:
    """Return where those of `letters` stand that the rules of now find no fault with."""
    return tuple(
        letter.place for letter in letters if not bench.fault(letter.value, letter.timestamp_ms)
    )
