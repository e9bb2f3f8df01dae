"""Run a job again and again, one thing changed each time, and put the figures side by side."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from bench.machine import Machine, keep_json
from bench.oracle import window_rows
from bench.rows import await_rows, newest
from bench.ten_seconds import STREAM
from bench.throughput import (
    OPTIONS,
    Launch,
    Measured,
    borrowed_namespace,
    fill_stream,
    run_over,
)
from bench.workload import Workload, batches
from deploy.console import ERR, print_table
from deploy.settings import PROJECT_ROOT, Settings
from jobs.views import WINDOW_START, Job, WindowView
from schemas.streams import Stream

OUTPUT = PROJECT_ROOT / "build" / "bench"
SCRIPT = PROJECT_ROOT / "bench" / "variants.py"

Batches = Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]


@dataclass(frozen=True)
class Filling:
    """What a stream's topic is filled with; points with equal ones share it."""

    workload: Workload
    stream: Stream = STREAM
    change: Batches = iter

    def batches(self) -> Iterable[pa.RecordBatch]:
        """Yield the events."""
        return self.change(batches(self.workload))


@dataclass(frozen=True)
class Point:
    """One run: its place in a series, the job of `variants` and what it reads."""

    series: str
    label: str
    job: Job
    views: tuple[str, ...]
    filling: Filling
    options: Mapping[str, str | float] = field(default_factory=dict)


@dataclass(frozen=True)
class Figure:
    """What a point came to, on which machine and commit, and when."""

    series: str
    label: str
    machine: Machine
    measured: Measured
    keys: int | None = None
    """Different keys in the fullest window of its views."""


@dataclass
class Topic:
    """A topic that is filled, and the rows that views must have over it."""

    settings: Settings
    filling: Filling
    _rows: dict[str, pd.DataFrame] = field(default_factory=dict)

    def rows(self, view: WindowView) -> pd.DataFrame:
        """Return the rows that `view` must have; no point of a topic changes what they are."""
        if view.name not in self._rows:
            self._rows[view.name] = window_rows(view, self.filling.batches())
        return self._rows[view.name]

    def keys(self, views: Sequence[str]) -> int:
        """Return how many rows the fullest window of those views has, once they are known."""
        windows = (self._rows[name][WINDOW_START.name].value_counts() for name in views)
        return int(max(counts.max() for counts in windows))

    def run(self, point: Point, version: int) -> Measured:
        """Run the point and check the rows of all its views."""
        job = point.job.within(self.settings.namespace)
        views = [v for v in job.views if isinstance(v, WindowView) and v.name in point.views]
        wanted = [(view, self.rows(view)) for view in views]

        def check() -> tuple[int, bool]:
            found = [
                await_rows(partial(newest, self.settings, view, version), rows)
                for view, rows in wanted
            ]
            return sum(count for count, _ in found), all(right for _, right in found)

        options = {**OPTIONS, "case": point.job.name, **point.options}
        launch = Launch(point.job, SCRIPT, point.views, options, version)
        return run_over(self.settings, launch, self.filling.workload.events, check)


def run_points(
    settings: Settings, points: Sequence[Point], *, warm_up: bool = True
) -> Iterator[Figure]:
    """Run each point, those over equal topics over one, after a run that only warms up."""
    for filling, group in groupby(points, lambda point: point.filling):
        with borrowed_namespace(settings) as there:
            topic, chosen = Topic(there, filling), list(group)
            stream = replace(filling.stream, namespace=there.namespace)
            fill_stream(topic.settings, stream, filling.batches(), filling.workload.events)
            if warm_up:
                ERR.print("Warming up …")
                topic.run(chosen[0], 1)
                warm_up = False
            for version, point in enumerate(chosen, 2):
                yield _figure_of(topic, point, version)


def _figure_of(topic: Topic, point: Point, version: int) -> Figure:
    ERR.print(f"{point.series}, {point.label}: {' '.join(point.views)} …")
    measured = topic.run(point, version)
    ERR.print(
        f"    {measured.steady:,} events/s, {measured.cpu_seconds_per_million} CPU "
        f"seconds a million; right: {measured.right}"
    )
    keys = topic.keys(point.views)
    return Figure(point.series, point.label, Machine.here(), measured, keys)


COLUMNS = {
    "events/s": "steady",
    "CPU s per million": "cpu_seconds_per_million",
    "state, MB": "state_megabytes",
    "to last row, s": "result_seconds",
    "rows": "rows",
    "right": "right",
}


def report(figures: Sequence[Figure]) -> None:
    """Print a table for each series."""
    for series in dict.fromkeys(figure.series for figure in figures):
        rows = [
            (f.label, f.keys, *(getattr(f.measured, name) for name in COLUMNS.values()))
            for f in figures
            if f.series == series
        ]
        print_table(series, ("", "keys a window", *COLUMNS), rows)


def keep(figures: Sequence[Figure], path: Path) -> list[Figure]:
    """Write the figures to `path`, in the place of those of the same points; return all."""
    new = {(figure.series, figure.label): figure for figure in figures}
    there = {(figure.series, figure.label): figure for figure in _kept(path)}
    everything = list((there | new).values())
    keep_json(path, figures[-1].machine, figures=[asdict(figure) for figure in everything])
    return everything


def _kept(path: Path) -> list[Figure]:
    if not path.exists():
        return []
    found = json.loads(path.read_text())["figures"]
    # Nobody knows what one that doesn't say so was measured on.
    return [_figure(**one) for one in found if "machine" in one]


def _figure(machine: dict[str, Any], measured: dict[str, Any], **facts: Any) -> Figure:
    return Figure(**facts, machine=Machine(**machine), measured=Measured(**measured))
