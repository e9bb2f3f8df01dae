"""What a contender's runs come to, from what was seen of them, and are they right. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.peers.protocol import Rows

RIGHT, STOPPED, WRONG, FAILED, SILENT = "right", "not done", "wrong", "failed", "no run"
_RANKS = {RIGHT: 0, STOPPED: 1}
_LAST_RANK = 2


@dataclass(frozen=True)
class Result:
    """One contender's answer to one question; None where a run never got so far.

    `outcome` is one of those above. `steady` is in events per second, over `steady_seconds`;
    `whole` is from the first event read to the last row. `result_seconds` counts from the launch
    to the last row.
    """

    question: str
    contender: str
    title: str
    lacks: str
    settings: str
    note: str = ""
    outcome: str = SILENT
    events_read: int = 0
    steady: int | None = None
    steady_over: str = ""
    steady_seconds: float | None = None
    lowest: int | None = None
    highest: int | None = None
    """Of `steady`, where there were several runs."""
    cpu_seconds_per_million: float | None = None
    whole: int | None = None
    whole_cpu_seconds_per_million: float | None = None
    peak_gigabytes: float | None = None
    start_up_seconds: float | None = None
    result_seconds: float | None = None
    rows: int | None = None
    verdict: str = ""

    @property
    def rate(self) -> str:
        """The steady rate, with what keeps it from being one like the others."""
        if self.steady is None:
            return "–"
        more = ["all"] if self.steady_over == "all" else []
        if self.lowest is not None and self.highest is not None:
            more.append(f"{self.lowest:,} to {self.highest:,}")
        words = f"{self.steady:,}" + (f" ({'; '.join(more)})" if more else "")
        return words + (f", {STOPPED}" if self.outcome == STOPPED else "")


COLUMNS: Mapping[str, Callable[[Result], Any]] = {
    "events/s, steady": lambda result: result.rate,
    "for, s": lambda result: result.steady_seconds,
    "CPU s a million": lambda result: result.cpu_seconds_per_million,
    "events/s, whole": lambda result: result.whole,
    "CPU s a million, whole": lambda result: result.whole_cpu_seconds_per_million,
    "peak, GB": lambda result: result.peak_gigabytes,
    "start-up, s": lambda result: result.start_up_seconds,
    "to last row, s": lambda result: result.result_seconds,
    "right": lambda result: result.verdict,
}


def ranked(results: Sequence[Result]) -> list[Result]:
    """Return right runs, then those that were stopped, then all others; of each the fastest first.

    The rate of one that was stopped may hold for its beginning only, and its rows nobody knows.
    """
    return sorted(results, key=lambda result: (_rank(result), -(result.steady or 0)))


def summary(runs: Sequence[Result]) -> list[Result]:
    """Return one result for each question and contender, in their order."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for run in runs:
        groups.setdefault((run.question, run.contender), []).append(run)
    return [_middle(group) for group in groups.values()]


def _middle(runs: Sequence[Result]) -> Result:
    """Return the median of the runs that went worst, with the lowest and highest rate of all."""
    # One for which there was no time left says nothing about those before it.
    runs = [run for run in runs if run.outcome != SILENT] or runs
    worst = max(map(_rank, runs))
    chosen = ranked([run for run in runs if _rank(run) == worst])
    rates = [run.steady for run in runs if run.steady]
    median = chosen[len(chosen) // 2]
    return replace(median, lowest=min(rates), highest=max(rates)) if len(rates) > 1 else median


def _rank(result: Result) -> int:
    return _RANKS.get(result.outcome, _LAST_RANK)


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
