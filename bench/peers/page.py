"""Write a comparison as Markdown: a table for each question, who is right first. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.peers.figures import COLUMNS, Result, ranked

_HEAD = (f"| | {' | '.join(COLUMNS)} |", f"|{'---|' * (len(COLUMNS) + 1)}")
_WHO = ("| | leaves out | settings |", "|---|---|---|")
_TERMS = (
    "Steady is the rate between 25% and 98% of the events, for so many seconds; (all) is that of "
    "the whole reading, where there were too few signs of progress between. Whole is from the "
    "first event read to the last row. Who was not done was stopped: its rate is that so far, its "
    "rows are unknown, and it stands behind those that were. CPU and memory are those of the "
    "contender's processes."
)


def page(results: Sequence[Result], texts: Mapping[str, str], events: int, machine: str) -> str:
    """Return the tables of the questions named in `texts`, each with what has no figures and why.

    Then comes what each contender leaves out, and its settings.
    """
    parts = [f"Measured on {machine}"]
    for question in dict.fromkeys(result.question for result in results):
        own = ranked([result for result in results if result.question == question])
        title = f"## {question}: {texts[question]}, {events:,} events"
        rows = [_row(result) for result in own if result.steady]
        silent = [f"- {r.title}: {r.verdict}." for r in own if not r.steady]
        notes = [f"- {r.title}: {r.note}." for r in own if r.note and r.steady]
        lists = [lines for lines in (notes, silent) if lines]
        parts += [title, "\n".join((*_HEAD, *rows)), *("\n".join(lines) for lines in lists)]
    parts += [_TERMS, "## The contenders", "\n".join((*_WHO, *_lines(results)))]
    return "\n\n".join(parts) + "\n"


def _lines(results: Sequence[Result]) -> Iterable[str]:
    return dict.fromkeys(f"| {r.title} | {r.lacks} | {r.settings} |" for r in results)


def _row(result: Result) -> str:
    cells = (_cell(value(result)) for value in COLUMNS.values())
    return f"| {' | '.join((result.title, *cells))} |"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int | float) else str(value)
