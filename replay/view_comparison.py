"""Compare one view's two versions: in buckets, then key by key, then the rows that move."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import compress
from typing import Any

from jobs.views import View, WindowView
from replay import comparison as sql
from replay.bracket import Bracketed, Looks, Outside
from replay.comparison import WINDOW, Bucket, CannotVerify, Comparison, StoredTable
from replay.differences import (
    Difference,
    DifferingRow,
    Kind,
    Pattern,
    SkippedEvent,
    SkippedEvents,
    Verdict,
    ViewExpectation,
    classify,
    is_expected,
    needed,
)
from replay.report import ColumnSum, Moment, ViewReport
from replay.skipped import SkippedReader
from sinks.clickhouse import Answer, ClickHouse, ClickHouseFailed
from udfs.measures import Count, CountDistinct, Sum

CHUNK_ROWS = 100_000
SAMPLES = 20
_QUERIES = 32
_KINDS = (Kind.CHANGED, Kind.ONLY_OLD, Kind.ONLY_NEW)
_INSTANT = timedelta(milliseconds=1)


def _adds_up(view: View, compared: Comparison) -> dict[str, str | None]:
    """Return, of the columns alike in both versions, those to which each event adds something.

    With the field whose value it is, or None where it is one at most.
    """
    measures = view.measures if isinstance(view, WindowView) else {}
    found: dict[str, str | None] = {}
    for column in compared.columns:
        match measures.get(column.name):
            case _ if column.as_text:
                continue
            case Count() | CountDistinct():
                found[column.name] = None
            case Sum(field=name):
                found[column.name] = name
    return found


@dataclass
class _Tally:
    """Counts differences of one view as they come, and keeps the first of each class."""

    counts: Counter[Verdict] = field(default_factory=Counter)
    kinds: Counter[Kind] = field(default_factory=Counter)
    columns: dict[str, Counter[Verdict]] = field(default_factory=lambda: defaultdict(Counter))
    moments: dict[int, Counter[Verdict]] = field(default_factory=lambda: defaultdict(Counter))
    samples: list[Difference] = field(default_factory=list)
    needed: set[str] = field(default_factory=set)

    def count(self, verdict: Verdict, pattern: Pattern, bucket: int) -> None:
        self.counts[verdict] += 1
        self.kinds[pattern.kind] += 1
        self.moments[bucket][verdict] += 1
        for column in pattern.columns:
            self.columns[column][verdict] += 1

    def takes_samples(self, verdict: Verdict) -> bool:
        return self.counts[verdict] < SAMPLES


@dataclass(frozen=True)
class _Known:
    """A pattern as ClickHouse writes it, looked up once."""

    pattern: Pattern
    expected: bool


class ViewComparison:
    """Runs the comparison of one view and counts what it reads."""

    def __init__(
        self,
        clickhouse: ClickHouse,
        view: View,
        versions: tuple[int, int],
        compared: Comparison,
        expectation: ViewExpectation,
        reader: SkippedReader,
        as_reader: ClickHouse,
    ) -> None:
        self._clickhouse = clickhouse
        self._as_reader = as_reader
        self._view = view
        self._versions = versions
        self._compared = compared
        self._expectation = expectation
        self._reader = reader
        self._adds_up = _adds_up(view, compared)
        self._tally = _Tally()
        self._patterns: dict[tuple[int, str, str], _Known] = {}
        self._problems: list[str] = []
        self._scanned = self._drilled = self._moving = 0
        self._seconds = 0.0
        self._is_comparable = compared.old.key == compared.new.key
        self._span: tuple[datetime, datetime] | None = None
        self._old: dict[int, Bucket] = {}
        self._new: dict[int, Bucket] = {}
        self._differing: list[int] = []
        self._looks: Looks | None = None
        self._bracketed: Bracketed | None = None

    @property
    def moving(self) -> int:
        """How many rows do not count as they were just written: of the version with more."""
        return self._moving

    def compare(self) -> None:
        """Compare the rows that count."""
        started = time.monotonic()
        if self._is_comparable:
            self._check_conditions()
            self._span = self._cut_into_buckets()
            self._old, self._new = (
                self._hashed(table) for table in (self._compared.old, self._compared.new)
            )
            self._compare_buckets()
            self._moving = self._count_moving()
        self._seconds += time.monotonic() - started

    def _compare_buckets(self) -> None:
        old, new = self._old, self._new
        differing = self._differing = sql.differing_buckets(old, new)
        rows = {b: sum(of[b].rows for of in (old, new) if b in of) for b in differing}
        for chunk in sql.chunks(differing, rows, self._chunk_rows(sum(rows.values()))):
            self._drill_down(chunk)
        if differing and not self._tally.counts and self._compared.emitted is None:
            self._problems.append(
                f"{len(differing):,} buckets differed when they were hashed and no more when their "
                "rows were compared: rows still arrive; verify again."
            )

    def _chunk_rows(self, differing: int) -> int:
        """Return how many rows to compare at once, of all that may differ."""
        compared = self._compared
        if compared.size is not None and self._view.key[0] == compared.time[0]:
            return CHUNK_ROWS
        # Without the time in front of its key, each query reads the whole table.
        return min(max(CHUNK_ROWS, differing // _QUERIES), 10 * CHUNK_ROWS)

    def look_at_old(self) -> None:
        """Look at the old version's rows that are just being written."""
        self._moving = self._count_moving()
        self._looks = Looks(self._ask, self._view, self._compared, self._moving)

    def look_at_new(self) -> None:
        """Look at the new version's, once it has read as far as the old one had then."""
        if self._looks is not None:
            self._looks.look_at_new()

    def judge_moving(self) -> None:
        """Look at the old version's again, once it has read as far, and judge."""
        if self._looks is None:
            return
        self._bracketed, outside = self._looks.judge()
        self._take([self._outside(one) for one in outside])

    def report(self) -> ViewReport:
        """Return what was found."""
        if not self._is_comparable:
            return self._incomparable()
        compared, held = self._compared, self._bracketed
        moving = self._moving if held is None else held.open_rows
        old, new, size = self._old, self._new, compared.size
        rows = [sum(bucket.rows for bucket in of.values()) for of in (old, new)]
        if not any(rows) and not (held and held.rows):
            self._problems += self._uncompared(moving)
        return ViewReport(
            view=self._view.name,
            old_version=self._versions[0],
            old_rows=rows[0],
            new_rows=rows[1],
            sums=self._sums(old, new),
            schema_changes=sql.schema_changes(compared.old, compared.new),
            counts=dict(self._tally.counts),
            kinds=dict(self._tally.kinds),
            columns={name: dict(counts) for name, counts in self._tally.columns.items()},
            timeline=self._timeline(),
            span=self._span,
            bucket_seconds=None if size is None else size.total_seconds(),
            buckets=len({*old, *new}),
            differing_buckets=len(self._differing),
            samples=tuple(self._tally.samples),
            needed=frozenset(self._tally.needed),
            problems=tuple(self._problems),
            moving_rows=moving,
            bracketed=held or Bracketed(),
            until=compared.until,
            seconds=self._seconds,
            scanned_rows=self._scanned,
            drilled_rows=self._drilled,
        )

    def _incomparable(self) -> ViewReport:
        old, new = self._compared.old, self._compared.new
        rows = [self._ask(sql.count_query(table)).rows[0][0] for table in (old, new)]
        problem = (
            f"its key was ({', '.join(old.key)}) and is ({', '.join(new.key)}), so no row of one "
            "version has a counterpart in the other; compare them with kappa sql."
        )
        return ViewReport(
            view=self._view.name,
            old_version=self._versions[0],
            old_rows=rows[0],
            new_rows=rows[1],
            schema_changes=sql.schema_changes(old, new),
            problems=(problem,),
            seconds=self._seconds,
        )

    def _ask(self, query: str) -> Answer:
        return self._clickhouse.query(query)

    def _check_conditions(self) -> None:
        """Have ClickHouse read each condition before there is a difference to hold it against.

        As a reader, so that it is refused what no reader may do.
        """
        for one in self._compared.conditions:
            try:
                self._as_reader.query(sql.condition_query(self._compared, one))
            except ClickHouseFailed as error:
                if not error.code:
                    raise
                raise CannotVerify(
                    f"{self._view.name}: ClickHouse refuses the condition {one.sql!r}: {error}"
                ) from error

    def _cut_into_buckets(self) -> tuple[datetime, datetime] | None:
        """Choose the span of a bucket; return the first and last instant of the tables."""
        compared = self._compared
        if not compared.has_time or compared.time[0] not in compared.key:
            return None
        answers = [
            self._ask(sql.span_query(compared, table)) for table in (compared.old, compared.new)
        ]
        self._scanned += sum(answer.rows_read for answer in answers)
        found = [answer.rows[0] for answer in answers if answer.rows[0][0]]
        first, last = min((f[1] for f in found), default=0), max((f[2] for f in found), default=0)
        size = sql.bucket_size(first, last)
        self._compared = replace(compared, size=size)
        edges = (
            first * timedelta(milliseconds=1) // size,
            last * timedelta(milliseconds=1) // size,
        )
        return sql.bucket_start(edges[0], size), sql.bucket_start(edges[1] + 1, size)

    def _count_moving(self) -> int:
        compared = self._compared
        if compared.emitted is None:
            return 0
        tables = (compared.old, compared.new)
        return max(int(self._ask(sql.moving_query(compared, t)).rows[0][0]) for t in tables)

    def _uncompared(self, moving: int) -> list[str]:
        """Return why nothing was compared, if there is anything to compare."""
        if moving:
            return [
                f"all its {moving:,} rows were written anew while they were compared, and none of "
                "their columns could be held; declare those that more events never lessen, or "
                "verify again when fewer come."
            ]
        tables = (self._compared.old, self._compared.new)
        there = max(int(self._ask(sql.count_query(table)).rows[0][0]) for table in tables)
        if not there:
            return []
        return [
            f"none of its {there:,} rows was compared, as each may still change or is about to "
            "expire; verify again when a window is closed in both versions."
        ]

    def _hashed(self, table: StoredTable) -> dict[int, Bucket]:
        answer = self._ask(sql.bucket_query(self._compared, table))
        self._scanned += answer.rows_read
        return {
            bucket: Bucket(rows, fingerprint, tuple(sums))
            for bucket, rows, fingerprint, *sums in answer.rows
        }

    def _sums(self, old: Mapping[int, Bucket], new: Mapping[int, Bucket]) -> tuple[ColumnSum, ...]:
        totals = [
            [sum(bucket.sums[i] or 0 for bucket in of.values()) for of in (old, new)]
            for i in range(len(self._compared.sums))
        ]
        pairs = zip(self._compared.sums, totals, strict=True)
        return tuple(ColumnSum(name, before, after) for name, (before, after) in pairs)

    def _drill_down(self, chunk: Sequence[int]) -> None:
        answer = self._ask(sql.row_query(self._compared, chunk))
        self._drilled += answer.rows_read
        rows: list[tuple[int, DifferingRow]] = []
        for values in answer.rows:
            known = self._known(*values[1:4])
            if known.expected:
                # A fix may touch every row; only those that are shown are taken apart.
                if self._tally.takes_samples(Verdict.EXPECTED):
                    row = self._row(values)
                    self._tally.samples.append(self._classify(row, SkippedEvents()))
                self._tally.count(Verdict.EXPECTED, known.pattern, values[0])
            else:
                rows.append((values[0], self._row(values)))
        self._take(rows)

    def _take(self, rows: Sequence[tuple[int, DifferingRow]]) -> None:
        """Class and count rows that differ, each with its bucket."""
        skipped = self._skipped([row for _, row in rows])
        for bucket, row in rows:
            one = self._classify(row, skipped)
            if self._tally.takes_samples(one.verdict):
                self._tally.samples.append(one)
            self._tally.count(one.verdict, row.pattern, bucket)
            if one.verdict is Verdict.EXPECTED:
                self._tally.needed.update(needed(row.pattern, self._expectation))

    def _outside(self, one: Outside) -> tuple[int, DifferingRow]:
        """Return the differing row of a key that was held between two looks, and its bucket."""
        compared = self._compared
        names = [column.name for column in compared.columns]
        key = dict(zip(compared.key, one.key, strict=True))
        old, new, later = (
            None if seen is None else dict(zip(names, seen.values, strict=True))
            for seen in (one.before or one.after, one.new, one.after)
        )
        # No condition is held against a row that moves.
        holds = (False,) * len(self._expectation.conditions)
        pattern = Pattern(one.judgement.kind, one.judgement.differs, holds)
        window = self._window({**(new or {}), **(old or {}), **key}, None)
        bucket = 0 if compared.size is None else sql.bucket_of(key[compared.time[0]], compared.size)
        return bucket, DifferingRow(key, pattern, old, new, window, None if later == old else later)

    def _classify(self, row: DifferingRow, skipped: SkippedEvents) -> Difference:
        _, new_version = self._versions
        return classify(
            row,
            self._expectation,
            skipped,
            new_version=new_version,
            adds_up=self._adds_up,
            folds=isinstance(self._view, WindowView),
        )

    def _known(self, kind: int, differs: str, holds: str) -> _Known:
        found = self._patterns.get((kind, differs, holds))
        if found is None:
            names = [column.name for column in self._compared.columns]
            columns = compress(names, map(int, differs)) if kind == 0 else ()
            pattern = Pattern(_KINDS[kind], tuple(columns), tuple(flag == "1" for flag in holds))
            found = _Known(pattern, is_expected(pattern, self._expectation))
            self._patterns[(kind, differs, holds)] = found
            if found.expected:
                self._tally.needed.update(needed(pattern, self._expectation))
        return found

    def _skipped(self, rows: Sequence[DifferingRow]) -> SkippedEvents:
        windows = [row.window for row in rows if row.window]
        if not windows:
            return SkippedEvents()
        first, end = min(start for start, _ in windows), max(end for _, end in windows)
        events: list[SkippedEvent] = []
        fields = {*self._compared.key, *filter(None, self._adds_up.values())}
        for stream in self._view.streams:
            for found in (
                self._reader.between(stream, self._view.name, self._versions, first, end, fields),
                self._reader.dropped(stream, self._versions, first, end),
                self._reader.missed(stream, self._view, self._versions, first, end),
            ):
                self._drilled += found.rows_read
                if found.incomplete and found.incomplete not in self._problems:
                    self._problems.append(found.incomplete)
                events += found.events
        return SkippedEvents(events)

    def _row(self, values: Sequence[Any]) -> DifferingRow:
        pattern = self._known(*values[1:4]).pattern
        key_values, end, old, new = self._parts(values[4:])
        names = [column.name for column in self._compared.columns]
        key = dict(zip(self._compared.key, key_values, strict=True))
        before = None if pattern.kind is Kind.ONLY_NEW else dict(zip(names, old, strict=True))
        after = None if pattern.kind is Kind.ONLY_OLD else dict(zip(names, new, strict=True))
        window = self._window({**(after or {}), **(before or {}), **key}, end)
        return DifferingRow(key, pattern, before, after, window)

    def _window(
        self, values: Mapping[str, Any], end: datetime | None
    ) -> tuple[datetime, datetime] | None:
        """Return the span of the events that a row can stem from, given its values and end."""
        start, end = values.get(self._compared.time[0]), end or values.get(self._compared.time[1])
        if start is None or end is None:
            return None
        view = self._view
        if self._compared.time == WINDOW:
            return start - view.looks_back, end
        # Its two instants are those of events, in either order, and others follow so much later;
        # dropped ones are known by the pane.
        first, last = sorted((start, end))
        pane = max(stream.pane for stream in view.streams)
        return first - max(view.settled_after, pane), last + view.settled_after + _INSTANT

    def _parts(self, values: Sequence[Any]) -> tuple[Any, Any, Any, Any]:
        """Cut `values` into those of the key, the window's end, the old and the new columns."""
        keys, columns = len(self._compared.key), len(self._compared.columns)
        rest = values[-2 * columns :] if columns else ()
        end = values[keys] if len(values) > keys + 2 * columns else None
        return values[:keys], end, rest[:columns], rest[columns:]

    def _timeline(self) -> tuple[Moment, ...]:
        size = self._compared.size
        if size is None:
            return ()
        moments = sorted(self._tally.moments.items())
        return tuple(Moment(sql.bucket_start(b, size), dict(counts)) for b, counts in moments)
