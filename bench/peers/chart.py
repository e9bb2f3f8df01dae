"""Draw a comparison: events a second by contender, a panel for each question."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.peers.figures import Result

_OURS, _OTHERS, _NOT_RIGHT = "#1f77b4", "#9aa5b1", "#d9a3a3"


def draw(results: Sequence[Result], path: Path) -> None:
    """Write the chart to `path`, an SVG or PNG; who read nothing has no bar."""
    from matplotlib.figure import Figure

    results = [result for result in results if result.steady]
    questions = list(dict.fromkeys(result.question for result in results))
    if not questions:
        return
    count = max(sum(r.question == question for r in results) for question in questions)
    figure = Figure(figsize=(9, len(questions) * (1.2 + 0.35 * count)), layout="constrained")
    panels = figure.subplots(len(questions), squeeze=False)[:, 0]
    for question, panel in zip(questions, panels, strict=True):
        shown = [r for r in results if r.question == question]
        shown.sort(key=lambda result: result.steady or 0)
        bars = panel.barh(
            [result.title for result in shown],
            [result.steady for result in shown],
            color=[_colour(result) for result in shown],
        )
        panel.bar_label(bars, fmt="{:,.0f}", padding=3)
        panel.set_title(f"{question}: events a second, steady (red: no right result)", loc="left")
        panel.spines[["top", "right"]].set_visible(False)
        panel.xaxis.set_major_formatter("{x:,.0f}")
        panel.margins(x=0.12)
    figure.savefig(path)


def _colour(result: Result) -> str:
    if result.verdict != "yes":
        return _NOT_RIGHT
    return _OURS if result.contender == "kappa_views" else _OTHERS
