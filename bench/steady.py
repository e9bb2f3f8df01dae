"""The rates of a run: in its steady part, and until its rows were complete. No I/O."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

STEADY_FROM, STEADY_TO = 0.25, 0.98
_MARKS_FOR_A_PART = 4

Marks = Sequence[tuple[float, float]]


def steady_part(marks: Marks) -> tuple[Marks, str]:
    """Return the part of the reports that counts, and its name.

    Whoever reports too seldom, such as one who takes everything as one batch, is judged by the
    whole of his reading.
    """
    last = marks[-1][1]
    part = [mark for mark in marks if STEADY_FROM * last <= mark[1] <= STEADY_TO * last]
    if len(part) >= _MARKS_FOR_A_PART:
        return part, f"{STEADY_FROM:.0%} to {STEADY_TO:.0%}"
    return marks, "all"


def rates(marks: Marks, cpu: Marks, began: float) -> dict[str, int | float | str | None]:
    """Return the fields of a `Result` that follow from reports and samples of processor time.

    `marks` are (clock, events read), `cpu` are (clock, seconds used), `began` is the launch.
    """
    advances = _advances(marks)
    if len(advances) < 2 or marks[-1][1] == 0:
        return {}
    part, name = steady_part(advances)
    (begin, first), (end, last) = part[0], part[-1]
    return {
        "events_read": round(marks[-1][1]),
        "steady": round((last - first) / (end - begin)),
        "steady_over": name,
        "steady_seconds": round(end - begin, 1),
        "cpu_seconds_per_million": round(_spent(cpu, begin, end) / (last - first) * 1e6, 2),
        "start_up_seconds": round(marks[0][0] - began, 1),
    }


def whole(marks: Marks, cpu: Marks, complete: float, events: int) -> dict[str, int | float]:
    """Return the fields of a `Result` about all `events`, from the first report to `complete`.

    What the first report says was read before is left out, for nobody saw how long it took.
    """
    if not marks or complete <= marks[0][0] or events <= marks[0][1]:
        return {}
    begin, first = marks[0]
    spent = _spent(cpu, begin, complete)
    return {
        "whole": round((events - first) / (complete - begin)),
        "whole_cpu_seconds_per_million": round(spent / (events - first) * 1e6, 2),
    }


def _spent(cpu: Marks, begin: float, end: float) -> float:
    """Return the processor seconds used between two moments."""
    clock, used = np.array(cpu, dtype=float).reshape(-1, 2).T
    # A process that has ended takes what it used with it.
    used = np.maximum.accumulate(used)
    return float(np.interp(end, clock, used) - np.interp(begin, clock, used))


def _advances(marks: Marks) -> Marks:
    """Leave out reports of a place already known: between blocks nobody knows what is read."""
    return [mark for i, mark in enumerate(marks) if i == 0 or mark[1] > marks[i - 1][1]]
