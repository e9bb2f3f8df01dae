"""Write a comparison as Markdown: a table for each question, the fastest first. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bench.peers.figures import Result

_HEAD = (
    "| | events/s, steady | for, s | CPU s a million | events/s, whole | CPU s a million, whole "
    "| peak, GB | start-up, s | to last row, s | right |",
    "|---|---|---|---|---|---|---|---|---|---|",
)
_WHO = ("| | leaves out | settings |", "|---|---|---|")
_TERMS = (
    "Steady is the rate between 25% and 98% of the events; (all) is that of the whole reading, "
    "where there were too few signs of progress between. Whole is from the first event read to the "
    "last row. CPU and memory are those of the "
    "contender's processes."
)


def page(results: Sequence[Result], texts: Mapping[str, str], events: int, machine: str) -> str:
    """Return the tables of the questions named in `texts`, each with what has no figures and why.

    Then comes what each contender leaves out, and its settings.
    """
    parts = [f"Measured on {machine}"]
    for question in dict.fromkeys(result.question for result in results):
        own = [result for result in results if result.question == question]
        own.sort(key=lambda result: -(result.steady or 0))
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
    steady = f"{result.steady:,}" + (" (all)" if result.steady_over == "all" else "")
    figures = (
        result.steady_seconds,
        result.cpu_seconds_per_million,
        result.whole,
        result.whole_cpu_seconds_per_million,
        result.peak_gigabytes,
        result.start_up_seconds,
        result.result_seconds,
    )
    cells = ("–" if figure is None else f"{figure:,}" for figure in figures)
    return "| " + " | ".join((result.title, steady, *cells, result.verdict)) + " |"
