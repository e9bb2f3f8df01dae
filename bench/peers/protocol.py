"""What a contender is told and what it tells; the standard library is all that its Python needs.

A contender is a module here, run as `python -m bench.peers.NAME TASK.json` in a process of its
own. It reads the topic from its beginning, reports how far it is, writes its rows and ends.
"""

from __future__ import annotations

import csv
import json
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

Cell = int | None
Row = tuple[int, str, *tuple[Cell, ...]]


@dataclass(frozen=True)
class Contender:
    """How a contender is run and what it leaves out."""

    title: str
    lacks: str
    """In one line: event time, lateness, exactly-once, dead letters."""
    answers: tuple[str, ...] = ("W1", "W2")
    mode: str = ""
    """Tells apart contenders of one module."""
    environment: str = ""
    """Folder below `.peers` whose Python runs it; the project's own where empty."""
    on_flink: bool = False
    """Whether the embedded TaskManager does the work, and so is what is measured."""


@dataclass(frozen=True)
class Task:
    """A question about one topic: views and time per page and window, perhaps exact visitors."""

    question: str
    view: str
    mode: str
    bootstrap: str
    registry: str
    topic: str
    ends: dict[str, int]
    """End offset by partition."""
    events: int
    schema: dict[str, Any]
    size_ms: int
    slide_ms: int
    uniques: bool
    disorder_ms: int
    lateness_ms: int
    folder: str
    """A folder of the run's own; progress and rows go there too."""

    @classmethod
    def given(cls) -> Self:
        """Return the task that the command line names; being told to stop raises SystemExit."""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to stop"))
        return cls(**json.loads(Path(sys.argv[1]).read_text()))

    def write(self, path: Path) -> None:
        """Write the task for the process to read."""
        path.write_text(json.dumps(asdict(self)))

    @property
    def measures(self) -> tuple[str, ...]:
        """Columns of a row after the window's start and the page."""
        return ("views", "duration_ms", *(("unique_users",) if self.uniques else ()))

    def report(self, read: int, worker: int = 0) -> None:
        """Note that `worker` has taken in `read` events; zero says that reading begins now."""
        with (Path(self.folder) / "progress").open("a") as file:
            file.write(f"{time.monotonic()} {worker} {read}\n")

    def write_rows(self, rows: Iterable[Row], worker: int = 0) -> None:
        """Write a worker's answer: (window's start in epoch milliseconds, page, *measures)."""
        with (Path(self.folder) / f"rows-{worker}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)


def read_progress(folder: Path) -> list[tuple[float, int]]:
    """Return (clock, events read by all workers) of each report so far."""
    path = folder / "progress"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    newest: dict[str, int] = {}
    marks = []
    for at, worker, read in map(str.split, lines):
        newest[worker] = int(read)
        marks.append((float(at), sum(newest.values())))
    return marks


def read_rows(folder: Path, measures: tuple[str, ...]) -> dict[tuple[int, str], dict[str, Cell]]:
    """Return the answers of all workers by (window, page)."""
    found: dict[tuple[int, str], dict[str, Cell]] = {}
    for path in folder.glob("rows-*.csv"):
        with path.open(newline="") as file:
            for window, page, *cells in csv.reader(file):
                found[int(window), page] = dict(zip(measures, map(_cell, cells), strict=True))
    return found


def _cell(text: str) -> Cell:
    return int(text) if text else None
