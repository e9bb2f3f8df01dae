"""Class each difference between two versions: expected, explained or unexplained. No I/O."""

from __future__ import annotations

import bisect
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from replay.offsets import Offsets, read_by_any, read_by_both

NAMED_EVENTS = 3
"""How many of the events that explain a difference are named; the others are counted."""

# Sums of floating point numbers depend on the order in which they were added up.
_ROUNDING = 1e-9


class UnusableExpectation(ValueError):
    """A declared expectation that no view of the replay can be held against."""


class Kind(StrEnum):
    """How the rows of one key differ."""

    CHANGED = "changed"
    ONLY_OLD = "only in old"
    ONLY_NEW = "only in new"


class Verdict(StrEnum):
    """Whether somebody said so beforehand, the data says so, or nobody does."""

    EXPECTED = "expected"
    EXPLAINED = "explained"
    UNEXPLAINED = "unexplained"


@dataclass(frozen=True)
class Cut:
    """The input that both versions are held against: which rows must be the same in both.

    `offsets` is what both have read; empty where it is not known. What follows from events that
    lie before `closed_before`, by stream, can't change any more in either version. With `drained`
    both have read and loaded the same, so that every row of a window counts, and not only those
    that are closed. Rows that are written when they are final may even then be in one version and
    not yet in the other. `emitted` is by table and partition of its topic the end of what was
    there before either version read on: a row that neither has written since is what both make of
    the same events, and counts where no time says so. `begin` are the offsets at which the new
    version began to read; only the old one knows what was before. `passed` is by query view the
    watermark that its operators had got in both before all that follows from it was loaded: beyond
    `closed_before` where a stream that it reads is idle.
    """

    offsets: Offsets = field(default_factory=dict)
    closed_before: Mapping[str, datetime] = field(default_factory=dict)
    drained: bool = True
    emitted: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    begin: Offsets = field(default_factory=dict)
    passed: Mapping[str, datetime] = field(default_factory=dict)

    def closed_in(self, streams: Iterable[str]) -> datetime | None:
        """Return the instant before which all of `streams` are closed; None if they are empty."""
        known = (self.closed_before[name] for name in streams if name in self.closed_before)
        return min(known, default=None)


def cut_at(
    old_read: Offsets,
    new_read: Offsets,
    watermarks: Mapping[str, Mapping[int, datetime]],
    allowed_lateness: Mapping[str, timedelta],
    *,
    drained: bool = False,
    ends: Mapping[str, Mapping[int, int]] = {},
    idle_timeout: Mapping[str, timedelta] = {},
) -> Cut | None:
    """Return the cut of two versions that have read so far; None where nothing is settled yet.

    `watermarks` are by stream and partition those at the lesser of the two offsets; a partition
    that is empty up to there has none. `drained` says that nothing read is still on its way into
    the tables: with equal offsets all rows count then. A partition that both have read to where it
    ends in `ends`, and whose events end an `idle_timeout` before the stream's, keeps nothing open:
    one that fell silent long ago would leave all that came since uncompared.
    """
    offsets, most = read_by_both(old_read, new_read), read_by_any(old_read, new_read)
    begun = {stream: [p for p, end in parts.items() if end > 0] for stream, parts in most.items()}
    closed = {}
    for stream, parts in begun.items():
        marks = watermarks.get(stream, {})
        if parts and all(p in marks for p in parts):
            newest = max(marks[p] for p in parts)
            active = [
                marks[p]
                for p in parts
                if offsets[stream][p] < ends.get(stream, {}).get(p, most[stream][p] + 1)
                or newest - marks[p] <= idle_timeout.get(stream, timedelta.max)
            ]
            closed[stream] = min(active) - allowed_lateness[stream]
    if drained and offsets == most:
        return Cut(offsets, closed)
    if not closed or any(parts and stream not in closed for stream, parts in begun.items()):
        return None
    return Cut(offsets, closed, drained=False)


@dataclass(frozen=True)
class Expectation:
    """What a replay's plan says will differ.

    `columns` are names, of all views or as `view.column`. `conditions` are SQL over `old.column`
    and `new.column`, each for the views that have all columns it names.
    """

    columns: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Condition:
    """One declared condition; it speaks for the columns it names as `new.column`."""

    sql: str
    old: frozenset[str]
    new: frozenset[str]

    @property
    def sees_both(self) -> bool:
        """Whether it looks at both versions, so that it may judge a row that one of them lacks."""
        return bool(self.old and self.new)


@dataclass(frozen=True)
class ViewExpectation:
    """What the plan says of one view."""

    columns: frozenset[str] = frozenset()
    conditions: tuple[Condition, ...] = ()


_REFERENCES = re.compile(
    r"""'(?:\\.|''|[^'\\])*' | --[^\n]* | /\*.*?\*/ |
    \b(?P<side>old|new)\s*\.\s*
    (?: `(?P<tick>(?:\\.|[^`\\])+)` | "(?P<quoted>(?:\\.|[^"\\])+)" | (?P<plain>[A-Za-z_]\w*) )""",
    re.VERBOSE | re.DOTALL,
)


def condition(sql: str) -> Condition:
    """Return `sql` with the columns it names; raises `UnusableExpectation`."""
    named: dict[str, set[str]] = {"old": set(), "new": set()}
    for found in _REFERENCES.finditer(sql):
        if found["side"]:
            quoted = found["tick"] or found["quoted"]
            name = re.sub(r"\\(.)", r"\1", quoted) if quoted else found["plain"]
            named[found["side"]].add(name)
    if not named["new"]:
        raise UnusableExpectation(
            f"the condition {sql!r} names no new.<column>, so it says nothing of any difference; "
            "write it like: new.views = old.views - old.errors"
        )
    return Condition(sql, frozenset(named["old"]), frozenset(named["new"]))


def expectations(
    declared: Expectation,
    columns: Mapping[str, tuple[frozenset[str], frozenset[str]]],
) -> dict[str, ViewExpectation]:
    """Return what `declared` says of each view, given its columns in the old and new version.

    Raises `UnusableExpectation` for a column or condition that fits no view.
    """
    conditions = [condition(sql) for sql in declared.conditions]
    fits = fitting(declared, columns)
    for one in conditions:
        if one.sql not in fits.conditions:
            raise UnusableExpectation(_fits_nowhere(one, columns))
    for name in declared.columns:
        if name not in fits.columns:
            raise UnusableExpectation(_unknown_column(name, columns))
    return {
        view: ViewExpectation(
            frozenset(c for c in old | new if any(_names(n, view, {c}) for n in declared.columns)),
            tuple(one for one in conditions if one.old <= old and one.new <= new),
        )
        for view, (old, new) in columns.items()
    }


def fitting(
    declared: Expectation,
    columns: Mapping[str, tuple[frozenset[str], frozenset[str]]],
) -> Expectation:
    """Return the part of `declared` that fits any of these views, given as for `expectations`."""
    conditions = [condition(sql) for sql in declared.conditions]
    return Expectation(
        tuple(
            name
            for name in declared.columns
            if any(_names(name, view, old | new) for view, (old, new) in columns.items())
        ),
        tuple(
            one.sql
            for one in conditions
            if any(one.old <= old and one.new <= new for old, new in columns.values())
        ),
    )


def _names(name: str, view: str, columns: Iterable[str]) -> bool:
    return any(name in (column, f"{view}.{column}") for column in columns)


def _unknown_column(name: str, columns: Mapping[str, tuple[frozenset[str], frozenset[str]]]) -> str:
    known = sorted({column for old, new in columns.values() for column in old | new})
    near = difflib.get_close_matches(name.rpartition(".")[2], known, n=1)
    hint = f'did you mean "{near[0]}"?' if near else f"there are: {', '.join(known)}."
    return f'no view of {", ".join(columns)} has the expected column "{name}"; {hint}'


def _fits_nowhere(
    one: Condition, columns: Mapping[str, tuple[frozenset[str], frozenset[str]]]
) -> str:
    named = sorted({f"old.{c}" for c in one.old} | {f"new.{c}" for c in one.new})
    return (
        f"no view of {', '.join(columns)} has all columns of the condition {one.sql!r}: "
        f"{', '.join(named)}; declare it over columns of one view."
    )


@dataclass(frozen=True)
class Pattern:
    """What rows can have in common: kind, columns that differ, and which conditions hold.

    A row that one version lacks has no columns that differ.
    """

    kind: Kind
    columns: tuple[str, ...]
    holds: tuple[bool, ...] = ()


def is_expected(pattern: Pattern, expectation: ViewExpectation) -> bool:
    """Tell whether the plan covers every differing column of `pattern`.

    A column that conditions name must satisfy all of them; the others must be declared. A row that
    one version lacks takes a condition over both versions that holds, and so handles the nulls.
    """
    judged = list(zip(expectation.conditions, pattern.holds, strict=True))
    if pattern.kind is not Kind.CHANGED:
        return any(holds for one, holds in judged if one.sees_both)
    return all(_is_covered(column, judged, expectation) for column in pattern.columns)


def _is_covered(
    column: str, judged: Sequence[tuple[Condition, bool]], expectation: ViewExpectation
) -> bool:
    about = [holds for one, holds in judged if column in one.new]
    return all(about) if about else column in expectation.columns


@dataclass(frozen=True)
class SkippedEvent:
    """An event that exactly one of the versions left out of its views, as late or dead.

    `fields` are those of its fields that a key or a sum can hold; None where it can't be read.
    """

    verdict: str
    version: int
    topic: str
    partition: int
    offset: int
    timestamp: datetime
    reason: str = ""
    fields: Mapping[str, Any] | None = None

    @property
    def sentence(self) -> str:
        """What became of it and where it stands."""
        what = f"{self.verdict} ({self.reason})" if self.reason else self.verdict
        place = f"{self.topic}[{self.partition}] offset {self.offset}"
        return f"{place} is {what} in version {self.version} only"

    def touches(self, key: Mapping[str, Any]) -> bool:
        """Tell whether the event's own fields allow that it belongs to the row of `key`."""
        own = {"source_partition": self.partition, "source_offset": self.offset}
        own.update(self.fields or {})
        return all(str(key[name]) == str(own[name]) for name in key if name in own)

    def worth(self, name: str | None) -> float | None:
        """Return what the event adds to the sum of field `name`, at most one without a name.

        None where that is not known.
        """
        if name is None:
            return 1
        if self.fields is None or name not in self.fields:
            return None
        value: float | None = self.fields[name]
        return value or 0


DROPPED, MISSED = "dropped", "missed"
"""Verdicts of `DroppedEvents`."""


@dataclass(frozen=True)
class DroppedEvents(SkippedEvent):
    """Events of one pane that `version` has in no view.

    The topic dropped them before it could read them, or they came when what they belong to was
    written and forgotten. They stood between `offset` and `last_offset` and were `events` at most.
    What was in them is not known; `timestamp` is the first instant of the pane.
    """

    last_offset: int = 0
    events: int = 1

    @property
    def sentence(self) -> str:
        """Where they stood and who lacks them."""
        alone = self.offset == self.last_offset
        which = f"offset {self.offset}" if alone else f"offsets {self.offset} to {self.last_offset}"
        where = f"{self.topic}[{self.partition}] {which}"
        if self.verdict == MISSED:
            return f"{where} came too late for the windows of version {self.version}"
        return (
            f"{where} {'was' if alone else 'were'} dropped from the "
            f"topic before version {self.version} read {'it' if alone else 'them'}"
        )

    def worth(self, name: str | None) -> float | None:
        """Return how many they are at most; None for the sum of a field."""
        return self.events if name is None else None


class SkippedEvents:
    """Events that exactly one version skipped, found by the window they belong to."""

    def __init__(self, events: Iterable[SkippedEvent] = ()) -> None:
        self._events = sorted(events, key=lambda e: (e.timestamp, e.topic, e.partition, e.offset))
        self._times = [event.timestamp for event in self._events]

    def __len__(self) -> int:
        return len(self._events)

    def of(self, row: DifferingRow) -> tuple[SkippedEvent, ...]:
        """Return the events whose time falls into the row's window and whose fields fit its key."""
        if row.window is None:
            return ()
        start, end = (bisect.bisect_left(self._times, edge) for edge in row.window)
        return tuple(e for e in self._events[start:end] if e.touches(row.key))


@dataclass(frozen=True)
class DifferingRow:
    """A key whose rows differ; `old` and `new` are its values by column, None where it is absent.

    `window` is first instant and first instant after; None in a view without windows. `later` are
    the old version's values once more, where it wrote the row anew while the new one was looked at.
    """

    key: Mapping[str, Any]
    pattern: Pattern
    old: Mapping[str, Any] | None
    new: Mapping[str, Any] | None
    window: tuple[datetime, datetime] | None = None
    later: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Difference:
    """A differing row with its class and what speaks for it."""

    row: DifferingRow
    verdict: Verdict
    cause: str = ""
    events: tuple[SkippedEvent, ...] = ()


def classify(
    row: DifferingRow,
    expectation: ViewExpectation,
    skipped: SkippedEvents,
    *,
    new_version: int,
    adds_up: Mapping[str, str | None] = {},
    folds: bool = True,
) -> Difference:
    """Return `row` with its class; what the plan covers needs no further explanation.

    `adds_up` are columns to which each event adds the value of the field named, or one at most
    where none is: events explain no more than they are worth, and that the version has less which
    skipped them. With `folds` a row is there for its events only; else what is skipped may as well
    bring one about, as a payment does whose order is late.
    """
    if is_expected(row.pattern, expectation):
        return Difference(row, Verdict.EXPECTED, "; ".join(needed(row.pattern, expectation)))
    events = skipped.of(row)
    judged = list(zip(expectation.conditions, row.pattern.holds, strict=True))
    open_sums = {c: f for c, f in adds_up.items() if not _is_covered(c, judged, expectation)}
    there = _can_lack(row, events, new_version) if folds else bool(events)
    if not (there and _are_worth(row, events, open_sums, new_version)):
        return Difference(row, Verdict.UNEXPLAINED)
    named = "; ".join(event.sentence for event in events[:NAMED_EVENTS])
    more = len(events) - NAMED_EVENTS
    cause = f"{named}; and {more:,} more events" if more > 0 else named
    return Difference(row, Verdict.EXPLAINED, cause, events[:NAMED_EVENTS])


def _can_lack(row: DifferingRow, events: Sequence[SkippedEvent], new_version: int) -> bool:
    """Whether there are events that explain the row, of the version without it if one has none."""
    match row.pattern.kind:
        case Kind.ONLY_OLD:
            return any(event.version == new_version for event in events)
        case Kind.ONLY_NEW:
            return any(event.version != new_version for event in events)
    return bool(events)


def _are_worth(
    row: DifferingRow,
    events: Sequence[SkippedEvent],
    adds_up: Mapping[str, str | None],
    new_version: int,
) -> bool:
    """Whether `events`, put back where they were skipped, can make up for each difference."""
    old, new = row.old or {}, row.new or {}
    for column, name in adds_up.items():
        worth = [event.worth(name) for event in events]
        if None in worth:
            continue
        gains = [
            -(value or 0) if event.version == new_version else value or 0
            for event, value in zip(events, worth, strict=True)
        ]
        least, most = sum(g for g in gains if g < 0), sum(g for g in gains if g > 0)
        before, after = old.get(column) or 0, new.get(column) or 0
        slack = _ROUNDING * max(abs(before), abs(after))
        if not least - slack <= after - before <= most + slack:
            return False
    return True


def needed(pattern: Pattern, expectation: ViewExpectation) -> tuple[str, ...]:
    """Return the conditions and then the columns of the plan that an expected pattern rests on."""
    judged = zip(expectation.conditions, pattern.holds, strict=True)
    if pattern.kind is not Kind.CHANGED:
        return tuple(one.sql for one, holds in judged if holds and one.sees_both)
    conditions = tuple(one.sql for one, _ in judged if one.new & set(pattern.columns))
    named = {column for one in expectation.conditions for column in one.new}
    return (*conditions, *(column for column in pattern.columns if column not in named))
