"""What a contender is told and what it tells; the standard library is all that its Python needs.

A contender is a module here, run as `python -m bench.peers.NAME TASK.json` in a process of its
own. It reads the topics from their beginning, reports how far it is, notes when its rows are
complete, writes them and ends.
"""

from __future__ import annotations

import csv
import json
import signal
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

NOT_WRITTEN = "not written: "
Cell = int | float | str | None
Texts = tuple[str, ...]
Rows = dict[str, dict[Texts, Texts]]
"""By view: the cells of each row by its key, as text."""


@dataclass(frozen=True)
class Contender:
    """How a contender is run and what it leaves out."""

    title: str
    lacks: str
    """In one line: event time, lateness, exactly-once, dead letters."""
    settings: str
    """In one line: what it is, and the settings that were best for it."""
    answers: tuple[str, ...] = ("W1", "W2")
    cannot: Mapping[str, str] = field(default_factory=dict)
    """Why it has no answer to the other questions; `NOT_WRITTEN` stands before what it could."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """What is special about its answer to one question."""
    mode: str = ""
    """Tells apart contenders of one module."""
    environment: str = ""
    """Folder below `.peers` whose Python runs it; the project's own where empty."""
    on_flink: bool = False
    """Whether the embedded TaskManager does the work, and so is what is measured."""

    def no_answer(self, question: str) -> str:
        """Say why it has none: that nobody wrote it is no fault of the contender's."""
        why = self.cannot[question]
        return why if why.startswith(NOT_WRITTEN) else f"can't: {why}"


@dataclass(frozen=True)
class Source:
    """A topic of events of one stream, as it stands."""

    stream: str
    topic: str
    ends: dict[str, int]
    """End offset by partition."""
    events: int
    schema: dict[str, Any]
    disorder_ms: int
    lateness_ms: int


@dataclass(frozen=True)
class Table:
    """The columns of one view that are asked for; times are epoch milliseconds.

    The rows are complete when their `weight` adds up to `total`: a column, or one for each row.
    """

    view: str
    keys: Texts
    cells: Texts
    weight: str = ""
    total: int = 0

    @property
    def columns(self) -> Texts:
        """The columns of a row, its key first."""
        return self.keys + self.cells

    def weigh(self, rows: Mapping[Texts, Texts]) -> int:
        """Return what `rows` add up to."""
        if not self.weight:
            return len(rows)
        place = self.columns.index(self.weight)
        return sum(int((key + cells)[place]) for key, cells in rows.items())


@dataclass(frozen=True)
class Task:
    """A question about some topics. What is not of windows has a `size_ms` of 0.

    Rows that begin at `end_ms` or later, or that are about what is called closing…, are not asked
    for: they are of events that only bring the watermark to where all before is settled.
    """

    question: str
    mode: str
    bootstrap: str
    registry: str
    sources: tuple[Source, ...]
    tables: tuple[Table, ...]
    size_ms: int
    slide_ms: int
    uniques: bool
    end_ms: int
    folder: str
    """A folder of the run's own; progress and rows go there too."""

    @classmethod
    def given(cls) -> Self:
        """Return the task that the command line names; being told to stop raises SystemExit."""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to stop"))
        return cls.read(Path(sys.argv[1]))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the task that `write` wrote."""
        facts = json.loads(path.read_text())
        sources = tuple(Source(**source) for source in facts.pop("sources"))
        tables = tuple(
            Table(**table | {name: tuple(table[name]) for name in ("keys", "cells")})
            for table in facts.pop("tables")
        )
        return cls(**facts, sources=sources, tables=tables)

    def write(self, path: Path) -> None:
        """Write the task for the process to read."""
        path.write_text(json.dumps(asdict(self)))

    @property
    def source(self) -> Source:
        """The first topic, which is the only one where the question is about one stream."""
        return self.sources[0]

    @property
    def table(self) -> Table:
        """The first view, which is the only one but for W7."""
        return self.tables[0]

    @property
    def events(self) -> int:
        """How many events the topics hold."""
        return sum(source.events for source in self.sources)

    @property
    def held_back_ms(self) -> int:
        """How far a watermark trails where lateness can only hold it back."""
        return self.source.disorder_ms + self.source.lateness_ms

    def report(self, read: int, worker: int = 0) -> None:
        """Note that `worker` has taken in `read` events; zero says that reading begins now."""
        with (Path(self.folder) / "progress").open("a") as file:
            file.write(f"{time.monotonic()} {worker} {read}\n")

    def complete(self, at: float = 0.0) -> None:
        """Note that all rows are made: now, or when the monotonic clock was `at`.

        Of several workers the last counts. What follows, such as ending a job or writing the rows
        down for the comparison, is not measured.
        """
        with (Path(self.folder) / "complete").open("a") as file:
            file.write(f"{at or time.monotonic()}\n")

    def say(self, words: str) -> None:
        """Add to the verdict what the rows don't tell."""
        (Path(self.folder) / "said").write_text(words)

    @property
    def said(self) -> str:
        """What the contender said beside its rows."""
        path = Path(self.folder) / "said"
        return path.read_text() if path.exists() else ""

    def write_rows(
        self, rows: Iterable[Sequence[Cell]], worker: int = 0, table: Table | None = None
    ) -> None:
        """Write a worker's rows of one view, in the order of its `columns`."""
        name = f"rows-{(table or self.table).view}-{worker}.csv"
        with (Path(self.folder) / name).open("w", newline="") as file:
            csv.writer(file).writerows([text(cell) for cell in row] for row in rows)

    def read_rows(self) -> Rows:
        """Return the rows of all workers that are asked for."""
        found: Rows = {}
        for table in self.tables:
            rows = found[table.view] = {}
            for path in Path(self.folder).glob(f"rows-{table.view}-*.csv"):
                with path.open(newline="") as file:
                    rows.update(_keyed(table, file))
        return {view: self.asked_for(rows) for view, rows in found.items()}

    def asked_for(self, rows: Mapping[Texts, Texts]) -> dict[Texts, Texts]:
        """Return `rows` without those of the closing events."""
        return {key: row for key, row in rows.items() if not any(map(self._closes, key))}

    def _closes(self, cell: str) -> bool:
        return cell.startswith("closing") or (
            bool(self.end_ms) and cell.isdigit() and int(cell) >= self.end_ms
        )


def text(cell: Cell) -> str:
    """Return a cell as it is compared: nothing for null, numbers to three places."""
    if cell is None:
        return ""
    return f"{cell:.3f}" if isinstance(cell, float) else str(cell)


def _keyed(table: Table, lines: Iterable[str]) -> Iterable[tuple[Texts, Texts]]:
    for row in csv.reader(lines):
        yield tuple(row[: len(table.keys)]), tuple(row[len(table.keys) :])


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


def read_complete(folder: Path) -> float | None:
    """Return the clock when the last worker's rows were complete, None where none said so."""
    path = folder / "complete"
    return max(map(float, path.read_text().split())) if path.exists() else None
