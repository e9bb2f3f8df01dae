"""Charts of benchmarks: bars of events a second, in panels one above the other."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.console import ERR

if TYPE_CHECKING:
    from bench.series import Figure

_MARGIN, _MARGIN_A_LETTER = 0.12, 0.026
OURS, OTHERS, NOT_RIGHT = "#1f77b4", "#9aa5b1", "#d9a3a3"


@dataclass(frozen=True)
class Bar:
    """One bar: its name, its length and its colour; `label` stands at its end, else the length."""

    name: str
    value: float
    colour: str = OURS
    label: str = ""
    is_hatched: bool = False


def draw_panels(
    panels: Mapping[str, Sequence[Bar]], path: Path, value_format: str = ",.0f"
) -> None:
    """Write a chart to `path`, an SVG or PNG, with a panel for each title, bars from below.

    Figures are worth having without: where matplotlib is not installed, that is said instead.
    """
    if importlib.util.find_spec("matplotlib") is None:
        ERR.print(f"No chart in {path}: `make bench-tools` installs what draws it.")
        return
    from matplotlib import rc_context
    from matplotlib.figure import Figure as Canvas

    count = max(map(len, panels.values()))
    canvas = Canvas(figsize=(9, len(panels) * (1.2 + 0.35 * count)), layout="constrained")
    found = canvas.subplots(len(panels), squeeze=False)[:, 0]
    for (title, bars), panel in zip(panels.items(), found, strict=True):
        names, values = [bar.name for bar in bars], [bar.value for bar in bars]
        drawn = panel.barh(names, values, color=[bar.colour for bar in bars])
        labels = [bar.label or f"{bar.value:{value_format}}" for bar in bars]
        panel.bar_label(drawn, labels, padding=3)
        for patch, bar in zip(drawn, bars, strict=True):
            patch.set(hatch="///" if bar.is_hatched else None, edgecolor="white", linewidth=0)
        panel.set_title(title, loc="left")
        panel.spines[["top", "right"]].set_visible(False)
        panel.locator_params(axis="x", nbins=5)
        panel.xaxis.set_major_formatter(f"{{x:{value_format}}}")
        panel.margins(x=max(_MARGIN, _MARGIN_A_LETTER * max(map(len, labels))))
    path.parent.mkdir(parents=True, exist_ok=True)
    # Equal figures give equal files, which a repository then does not see as changed.
    with rc_context({"svg.hashsalt": "kappa-views"}):
        canvas.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def draw_series(figures: Sequence[Figure], path: Path) -> None:
    """Write a chart of events a second, a panel for each series, its first point on top."""
    panels = {
        f"{series}: events a second, steady": [
            Bar(f.label, f.measured.steady, OURS if f.measured.right else NOT_RIGHT)
            for f in reversed(figures)
            if f.series == series
        ]
        for series in dict.fromkeys(figure.series for figure in figures)
    }
    draw_panels(panels, path)
