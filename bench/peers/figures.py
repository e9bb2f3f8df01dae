"""What a contender's run comes to, from what was seen of it, and is it right. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

K = TypeVar("K")


@dataclass(frozen=True)
class Result:
    """One contender's answer to one question; None where a run never got so far.

    `steady` is in events per second. `result_seconds` counts from the launch to the last row.
    """

    question: str
    contender: str
    title: str
    lacks: str
    events_read: int = 0
    steady: int | None = None
    steady_over: str = ""
    cpu_seconds_per_million: float | None = None
    peak_gigabytes: float | None = None
    start_up_seconds: float | None = None
    result_seconds: float | None = None
    rows: int | None = None
    verdict: str = ""


def verdict(found: Mapping[K, object], expected: Mapping[K, object]) -> str:
    """Say whether the rows are right, and if not, how many differ."""
    if found == expected:
        return "yes"
    wrong = sum(found.get(key) != row for key, row in expected.items())
    strange = len(found.keys() - expected.keys())
    return f"no: {wrong:,} of {len(expected):,} rows wrong or missing, {strange:,} too many"
