"""How a series ends: its figures kept beside those of earlier runs, drawn and printed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from bench.drawing import draw_series
from bench.series import Figure, keep, report
from deploy.console import ERR, print_json


def kept(figures: Iterable[Figure], output: Path, name: str) -> list[Figure]:
    """Write each figure to `name`.json as it comes: what ends a series leaves those before."""
    found: list[Figure] = []
    for figure in figures:
        found.append(figure)
        keep(found, output / f"{name}.json")
    return found


def show(figures: Sequence[Figure], output: Path, name: str, *, as_json: bool) -> None:
    """Write `name`.json and `name`.svg to the folder `output`; print tables, or JSON."""
    everything = keep(figures, output / f"{name}.json")
    alike = [figure for figure in everything if figure.machine.is_like(figures[-1].machine)]
    draw_series(alike, output / f"{name}.svg")
    if as_json:
        print_json([asdict(figure) for figure in figures])
        return
    report(figures)
    ERR.print(f"Also in {output}/{name}.json and {name}.svg.")
