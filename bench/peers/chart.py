"""Draw the answers to a question: events a second by contender."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.drawing import NOT_RIGHT, OTHERS, OURS, Bar, draw_panels
from bench.peers.figures import RIGHT, SILENT, STOPPED, Result, ranked


def draw(results: Sequence[Result], path: Path) -> None:
    """Write a chart of one question to `path`, an SVG or PNG, if any contender read something."""
    bars = [_bar(result) for result in reversed(ranked(results))]
    if any(bar.value for bar in bars):
        title = f"{results[0].question}: events a second, steady"
        draw_panels({f"{title}\nhatched: not done; red: wrong or failed": bars}, path)


def _bar(result: Result) -> Bar:
    if result.outcome == SILENT:
        return Bar(result.title, 0, label=result.verdict.partition(":")[0])
    if not result.steady:
        return Bar(result.title, 0, label=result.outcome)
    colour = OURS if result.contender == "kappa_views" else OTHERS
    if result.outcome not in (RIGHT, STOPPED):
        colour = NOT_RIGHT
    is_stopped = result.outcome == STOPPED
    return Bar(result.title, result.steady, colour, result.rate, is_hatched=is_stopped)
