"""Draw a comparison: events a second by contender, a panel for each question."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.drawing import NOT_RIGHT, OTHERS, OURS, Bar, draw_panels
from bench.peers.figures import Result


def draw(results: Sequence[Result], path: Path) -> None:
    """Write the chart to `path`, an SVG or PNG; who read nothing has no bar."""
    panels: dict[str, list[Bar]] = {}
    for result in sorted(results, key=lambda result: result.steady or 0):
        if result.steady:
            bar = Bar(result.title, result.steady, _colour(result))
            panels.setdefault(result.question, []).append(bar)
    titles = {
        f"{question}: events a second, steady (red: no right result)": panels[question]
        for question in dict.fromkeys(result.question for result in results)
        if question in panels
    }
    if titles:
        draw_panels(titles, path)


def _colour(result: Result) -> str:
    if result.verdict != "yes":
        return NOT_RIGHT
    return OURS if result.contender == "kappa_views" else OTHERS
