"""What a verification found: as tables for people, as JSON for programs, and as files."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from deploy.console import OUT, json_value, print_json, print_table
from deploy.settings import Settings
from replay.bracket import Bracketed
from replay.differences import Cut, Difference, DifferingRow, Expectation, Kind, Verdict

_SHOWN_SAMPLES = 5
_MAX_CELL = 80
_STYLES = {
    Verdict.EXPECTED: "green",
    Verdict.EXPLAINED: "yellow",
    Verdict.UNEXPLAINED: "red",
}


@dataclass(frozen=True)
class ColumnSum:
    """The sum of a numeric column over all rows compared."""

    column: str
    old: float
    new: float


@dataclass(frozen=True)
class Moment:
    """Differences of the windows that start in one span of time, by class."""

    start: datetime
    counts: Mapping[Verdict, int]


@dataclass(frozen=True)
class ViewReport:
    """How the two versions of one view compare.

    `old_rows` and `new_rows` are those within the cut. `counts` are keys that differ by class,
    `columns` the same by column. `problems` each block a promotion like an unexplained difference.
    `bucket_seconds` is the span of a bucket and of a `Moment`, None where buckets are no spans of
    time. `needed` are the declared columns and conditions that expected differences rest on.
    `moving_rows` were written too lately to be compared, other than those that were held between
    two looks at the old version: `bracketed` says which. `until` is the instant by which the rows
    ended that were; None where that did not matter. `scanned_rows` were read to hash the
    buckets, `drilled_rows` to find the keys in those that differ.
    """

    view: str
    old_version: int
    old_rows: int
    new_rows: int
    sums: tuple[ColumnSum, ...] = ()
    schema_changes: tuple[str, ...] = ()
    counts: Mapping[Verdict, int] = field(default_factory=dict)
    kinds: Mapping[Kind, int] = field(default_factory=dict)
    columns: Mapping[str, Mapping[Verdict, int]] = field(default_factory=dict)
    timeline: tuple[Moment, ...] = ()
    span: tuple[datetime, datetime] | None = None
    bucket_seconds: float | None = None
    buckets: int = 0
    differing_buckets: int = 0
    samples: tuple[Difference, ...] = ()
    needed: frozenset[str] = frozenset()
    problems: tuple[str, ...] = ()
    moving_rows: int = 0
    bracketed: Bracketed = field(default_factory=Bracketed)
    until: datetime | None = None
    seconds: float = 0.0
    scanned_rows: int = 0
    drilled_rows: int = 0

    @property
    def rows(self) -> int:
        """Rows compared, of the version with more, and those held while they were written."""
        return max(self.old_rows, self.new_rows) + self.bracketed.rows

    @property
    def differences(self) -> int:
        """Keys whose rows differ."""
        return sum(self.counts.values())

    @property
    def unexplained(self) -> int:
        """Keys that differ for no known reason, and problems."""
        return self.counts.get(Verdict.UNEXPLAINED, 0) + len(self.problems)

    def samples_of(self, verdict: Verdict) -> tuple[Difference, ...]:
        """Return the first differences of a class."""
        return tuple(one for one in self.samples if one.verdict is verdict)


@dataclass(frozen=True)
class VerifyReport:
    """What comparing two versions of a replay's views found.

    `unused` are expectations of the plan that no difference needed: the change they announce is
    not in the data.
    """

    replay: str
    new_version: int
    at: datetime
    cut: Cut
    expected: Expectation
    views: tuple[ViewReport, ...]
    unused: tuple[str, ...] = ()
    seconds: float = 0.0

    def count(self, verdict: Verdict) -> int:
        """Keys of a class in all views."""
        return sum(view.counts.get(verdict, 0) for view in self.views)

    @property
    def differences(self) -> int:
        """Keys whose rows differ in all views."""
        return sum(view.differences for view in self.views)

    @property
    def unexplained(self) -> int:
        """What blocks a promotion: keys that differ for no known reason, and problems."""
        return sum(view.unexplained for view in self.views)

    @property
    def rows_read(self) -> int:
        """Rows that ClickHouse read for all of it."""
        return sum(view.scanned_rows + view.drilled_rows for view in self.views)

    @property
    def versions(self) -> str:
        """Old and new version, as in `v1-v2`; several old ones where the views' differ."""
        old = sorted({view.old_version for view in self.views})
        return f"{'+'.join(f'v{version}' for version in old)}-v{self.new_version}"

    @property
    def name(self) -> str:
        """What the report's files are called; only characters that every file system takes."""
        views = self.views[0].view if len(self.views) == 1 else "views"
        plain = self.replay or f"{views}-{self.versions}"
        return re.sub(r"[^A-Za-z0-9._-]+", "_", plain).lstrip(".") or "report"

    @property
    def sentence(self) -> str:
        """The result in one sentence."""
        rows = sum(view.rows for view in self.views)
        old, _, new = self.versions.partition("-")
        versions = f"{new} against {old}"
        if self.unexplained:
            return (
                f"{self.unexplained:,} unexplained of {self.differences:,} differences in "
                f"{rows:,} rows, {versions}."
            )
        if not self.differences:
            return f"no difference in {rows:,} rows, {versions}."
        expected, explained = self.count(Verdict.EXPECTED), self.count(Verdict.EXPLAINED)
        return (
            f"nothing unexplained in {rows:,} rows, {versions}: {expected:,} differences are "
            f"expected, {explained:,} explained."
        )


def as_json(report: VerifyReport) -> dict[str, Any]:
    """Return `report` as JSON has it; numbers that JSON lacks become text."""
    return {
        "replay": report.replay,
        "old_versions": {view.view: view.old_version for view in report.views},
        "new_version": report.new_version,
        "at": json_value(report.at),
        "cut": {
            "offsets": {
                stream: {str(part): offset for part, offset in sorted(parts.items())}
                for stream, parts in report.cut.offsets.items()
            },
            "all_rows": report.cut.drained,
            "closed_before": {s: json_value(at) for s, at in report.cut.closed_before.items()},
        },
        "expected": {
            "columns": list(report.expected.columns),
            "conditions": list(report.expected.conditions),
            "unused": list(report.unused),
        },
        "counts": {verdict.value: report.count(verdict) for verdict in Verdict},
        "unexplained": report.unexplained,
        "sentence": report.sentence,
        "views": [_view_json(view) for view in report.views],
        "seconds": round(report.seconds, 3),
        "rows_read": report.rows_read,
    }


def _view_json(view: ViewReport) -> dict[str, Any]:
    return {
        "view": view.view,
        "rows": {"old": view.old_rows, "new": view.new_rows},
        "sums": {s.column: {"old": plain(s.old), "new": plain(s.new)} for s in view.sums},
        "schema_changes": list(view.schema_changes),
        "counts": _by_class(view.counts),
        "kinds": {kind.value: view.kinds.get(kind, 0) for kind in Kind},
        "columns": {name: _by_class(counts) for name, counts in view.columns.items()},
        "bucket_seconds": view.bucket_seconds,
        "buckets": view.buckets,
        "differing_buckets": view.differing_buckets,
        "timeline": [
            {"start": json_value(moment.start), **_by_class(moment.counts)}
            for moment in view.timeline
        ],
        "samples": [_difference_json(one) for one in view.samples],
        "problems": list(view.problems),
        "moving_rows": view.moving_rows,
        "bracketed": _bracketed_json(view.bracketed),
        "until": json_value(view.until),
        "seconds": round(view.seconds, 3),
        "scanned_rows": view.scanned_rows,
        "drilled_rows": view.drilled_rows,
    }


def _bracketed_json(found: Bracketed) -> dict[str, Any]:
    return {
        "rows": found.rows,
        "one_in": found.one_in,
        "not_held": dict(found.loose),
        "sums": {
            name: {"least": plain(of.least), "new": plain(of.new), "most": plain(of.most)}
            for name, of in found.sums.items()
        },
    }


def _by_class(counts: Mapping[Verdict, int]) -> dict[str, int]:
    return {verdict.value: counts.get(verdict, 0) for verdict in Verdict}


def _difference_json(one: Difference) -> dict[str, Any]:
    return {
        "class": one.verdict.value,
        "kind": one.row.pattern.kind.value,
        "key": _plain_row(one.row.key),
        "columns": list(one.row.pattern.columns),
        "old": None if one.row.old is None else _plain_row(one.row.old),
        "old_later": None if one.row.later is None else _plain_row(one.row.later),
        "new": None if one.row.new is None else _plain_row(one.row.new),
        "cause": one.cause,
        "events": [
            {
                "verdict": event.verdict,
                "version": event.version,
                "topic": event.topic,
                "partition": event.partition,
                "offset": event.offset,
                "timestamp": json_value(event.timestamp),
                "reason": event.reason,
            }
            for event in one.events
        ],
    }


def _plain_row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: plain(value) for name, value in row.items()}


def plain(value: Any) -> Any:
    """Return `value` as JSON has it; a float that is no finite number becomes its name."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json_value(value)


def print_reports(reports: Sequence[VerifyReport], as_json_text: bool = False) -> None:
    """Print `reports` as tables, or as one JSON document: the report's, or of several all."""
    if not as_json_text:
        for report in reports:
            _print_report(report)
    elif len(reports) == 1:
        print_json(as_json(reports[0]))
    else:
        unexplained = sum(report.unexplained for report in reports)
        print_json({"unexplained": unexplained, "reports": [as_json(one) for one in reports]})


def _print_report(report: VerifyReport) -> None:
    title = f"{report.replay or 'Comparison'} {report.versions}"
    print_table(title, _HEADINGS, (_view_row(view) for view in report.views))
    for view in report.views:
        _print_view(view)
    for text in report.unused:
        _print_line(f"expected and not found: {text}", "yellow")
    _print_line(f"compared: {compared_part(report.cut)}")
    style = "bold red" if report.unexplained else "bold green"
    _print_line(report.sentence, style)
    _print_line(f"{report.seconds:.1f} s, {report.rows_read:,} rows read.")


_HEADINGS = (
    "view",
    "up to",
    "rows old",
    "rows new",
    *(verdict.value for verdict in Verdict),
    "problems",
)


def compared_part(cut: Cut) -> str:
    """Return which rows were held against each other, in words."""
    closed = ", ".join(f"{stream} to {json_value(at)}" for stream, at in cut.closed_before.items())
    return "all rows" if cut.drained else f"what follows from {closed}"


def _view_row(view: ViewReport) -> tuple[Any, ...]:
    counts = (view.counts.get(verdict, 0) for verdict in Verdict)
    until = "its end" if view.until is None else view.until
    return (view.view, until, view.old_rows, view.new_rows, *counts, len(view.problems))


def _print_view(view: ViewReport) -> None:
    kinds = [f"{view.kinds[kind]:,} {kind.value}" for kind in Kind if view.kinds.get(kind)]
    if kinds:
        _print_line(f"{view.view}: {', '.join(kinds)}")
    for text in moving(view):
        _print_line(f"{view.view}: {text}")
    for change in view.schema_changes:
        _print_line(f"{view.view}: column {change}")
    for problem in view.problems:
        _print_line(f"{view.view}: {problem}", "red")
    if view.columns:
        rows = [
            (printable(name), *_by_class(counts).values()) for name, counts in view.columns.items()
        ]
        headings = ("column", *(verdict.value for verdict in Verdict))
        print_table(f"{view.view}: keys that differ, by column", headings, rows)
    for verdict in reversed(Verdict):
        samples = view.samples_of(verdict)[:_SHOWN_SAMPLES]
        if samples:
            total = view.counts[verdict]
            title = f"{view.view}: {len(samples):,} of {total:,} {verdict.value}"
            print_table(title, ("key", "difference", "why"), map(sample_cells, samples))


def moving(view: ViewReport) -> Iterator[str]:
    """Yield in words how many rows were held while they were written, and how many left out."""
    held = view.bracketed
    if held.rows:
        sums = ", ".join(
            f"{name} {number(of.new)} of {number(of.least)} to {number(of.most)}"
            for name, of in held.sums.items()
        )
        loose = ", ".join(f"{name} in {count:,}" for name, count in held.loose.items())
        yield (
            f"{held.rows:,} rows written meanwhile, held between two looks at version "
            f"{view.old_version}" + (f" ({sums})" if sums else "")
        )
        if loose:
            yield f"of these, not held: {loose}"
    if view.moving_rows:
        sampled = f"; one key in {held.one_in:,} was looked at" if held.one_in > 1 else ""
        yield f"{view.moving_rows:,} rows just written, not compared{sampled}"


def number(value: float, *, sign: bool = False) -> str:
    """Return a number as people read it."""
    plus = "+" if sign else ""
    return format(value, f"{plus}," if isinstance(value, int) else f"{plus},.3f")


def sample_cells(one: Difference) -> tuple[str, str, str]:
    """Return a difference as people read it: its key, what differs, and why."""
    key = ", ".join(f"{name}={_short(value)}" for name, value in one.row.key.items())
    return key, "; ".join(changes(one)), printable(one.cause) or "–"


def changes(one: Difference) -> Iterable[str]:
    """Yield what differs in one row, a column at a time."""
    old, new = one.row.old, one.row.new
    if old is None or new is None:
        yield one.row.pattern.kind.value
        return
    for name in one.row.pattern.columns:
        yield f"{name} {old_value(one.row, name, _short)} → {_short(new.get(name))}"


def old_value(row: DifferingRow, name: str, shown_as: Callable[[Any], str]) -> str:
    """Return the old version's value of a column, and where it moved, the one seen later too."""
    old, later = (row.old or {}).get(name), (row.later or {}).get(name)
    one = shown_as(old)
    return one if later is None or later == old else f"{one} to {shown_as(later)}"


def shown(value: Any) -> str:
    """Return a value as people read it; a float keeps every digit that makes it differ."""
    if value is None:
        return "null"
    if isinstance(value, float):
        return repr(value)
    return str(json_value(value))


def _short(value: Any) -> str:
    text = printable(shown(value))
    return text if len(text) <= _MAX_CELL else f"{text[:_MAX_CELL]}…"


def printable(text: str) -> str:
    """Return `text` with the codes of characters that a terminal obeys or that show nothing."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _print_line(text: str, style: str = "") -> None:
    OUT.print(printable(text), style=style or None, markup=False, highlight=False)


def save_report(settings: Settings, report: VerifyReport) -> Path:
    """Write `report` as a page and as JSON below the home folder; return the page's path."""
    from replay.page import page

    folder = settings.home / "reports"
    folder.mkdir(parents=True, exist_ok=True)
    document = json.dumps(as_json(report), ensure_ascii=False, indent=2)
    _replace(folder / f"{report.name}.json", document + "\n")
    path = folder / f"{report.name}.html"
    _replace(path, page(report))
    return path


def _replace(path: Path, text: str) -> None:
    # Whoever looks meanwhile sees the old report or the new one, and no half of either.
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8", errors="backslashreplace")
    partial.replace(path)
