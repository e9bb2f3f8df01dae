"""What a contender's run comes to, from what was seen of it, and is it right. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

from bench.peers.protocol import Rows


@dataclass(frozen=True)
class Result:
    """One contender's answer to one question; None where a run never got so far.

    `steady` is in events per second, over `steady_seconds`; `whole` is from the first event read
    to the last row. `result_seconds` counts from the launch to the last row.
    """

    question: str
    contender: str
    title: str
    lacks: str
    settings: str
    note: str = ""
    events_read: int = 0
    steady: int | None = None
    steady_over: str = ""
    steady_seconds: float | None = None
    cpu_seconds_per_million: float | None = None
    whole: int | None = None
    whole_cpu_seconds_per_million: float | None = None
    peak_gigabytes: float | None = None
    start_up_seconds: float | None = None
    result_seconds: float | None = None
    rows: int | None = None
    verdict: str = ""


def verdict(found: Rows, expected: Rows) -> str:
    """Say whether the rows are right, and if not, how many differ, and in which view."""
    if found == expected:
        return "yes"
    said = []
    for view, rows in expected.items():
        other = found.get(view, {})
        wrong = sum(other.get(key) != row for key, row in rows.items())
        strange = len(other.keys() - rows.keys())
        if wrong or strange:
            said.append(
                f"{wrong:,} of {len(rows):,} rows of {view} wrong or missing, {strange:,} too many"
            )
    return f"no: {'; '.join(said)}"
