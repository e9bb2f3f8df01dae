"""Hold rows that are written while they are compared between two looks at the old version.

Three looks at the same keys: at the old version; at the new one, once it has read all that the old
one had; at the old one, once that has read all that the new one had. The events behind each look
are those of the look before and more, so what more events never lessen must lie between. Pure but
for the queries, which whoever looks has answered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import pairwise
from typing import Any

from jobs.views import View
from replay.comparison import ComparedColumn, Comparison, StoredTable, still
from replay.differences import Kind
from sinks.clickhouse import Answer
from sinks.sql import identifier
from sinks.tables import PARTITION, REVISION

MOST_ROWS = 100_000
"""Of more moving rows than about so many, those are held whose keys' hashes choose them."""

Key = tuple[Any, ...]


class Course(Enum):
    """How a column changes with more events; `PLANNED` where a condition of the plan says how."""

    GROWS = auto()
    FALLS = auto()
    EITHER_WAY = auto()
    PLANNED = auto()


@dataclass(frozen=True)
class Seen:
    """A row as it was looked at: its compared values, and its partition and offset in the topic."""

    values: tuple[Any, ...]
    place: tuple[int, int]


Look = Mapping[Key, Seen]


@dataclass(frozen=True)
class Judgement:
    """How a key came out; `differs` and `loose` are columns that differ, and that nothing held."""

    kind: Kind = Kind.CHANGED
    differs: tuple[str, ...] = ()
    loose: tuple[str, ...] = ()

    @property
    def is_difference(self) -> bool:
        """Whether the key differs for sure."""
        return self.kind is not Kind.CHANGED or bool(self.differs)


@dataclass(frozen=True)
class Rule:
    """What must hold of a row: the course of each compared column, in their order.

    Without `absences` a row that one version lacks says nothing, as a condition of the plan may
    expect it.
    """

    courses: Mapping[str, Course]
    absences: bool = True

    def judge(self, before: Seen | None, new: Seen | None, after: Seen | None) -> Judgement | None:
        """Return how a key came out whose row one look found; None where nothing can be said.

        Rows are replaced and never deleted. A row that the old version had not written anew
        stood still, so the new one's is the same; of one that it had, a column that goes either way
        may have been anything meanwhile.
        """
        if new is None or after is None:
            kind = Kind.ONLY_OLD if new is None else Kind.ONLY_NEW
            return Judgement(kind) if self.absences else None
        stood = before is not None and before.place == after.place
        differs, loose = [], []
        for i, (name, course) in enumerate(self.courses.items()):
            first = None if before is None else before.values[i]
            match course:
                case Course.GROWS:
                    fits = _leads_up(first, new.values[i], after.values[i])
                case Course.FALLS:
                    fits = _leads_down(first, new.values[i], after.values[i])
                case Course.EITHER_WAY if stood:
                    fits = _same(first, new.values[i])
                case _:
                    loose.append(name)
                    continue
            if not fits:
                differs.append(name)
        if self.courses and len(loose) == len(self.courses):
            return None
        return Judgement(Kind.CHANGED, tuple(differs), tuple(loose))


# Null is what a sum or an extreme of no events is, so it only ever comes first.
def _leads_up(*values: Any) -> bool:
    pairs = pairwise(values)
    return all(_same(a, b) or a is None or (b is not None and a < b) for a, b in pairs)


def _leads_down(*values: Any) -> bool:
    pairs = pairwise(values)
    return all(_same(a, b) or a is None or (b is not None and a > b) for a, b in pairs)


def _same(a: Any, b: Any) -> bool:
    return bool(a == b or (a != a and b != b))


@dataclass(frozen=True)
class Between:
    """The sum of a column over the rows held: as first seen, in the new version, as seen last."""

    least: float
    new: float
    most: float


@dataclass(frozen=True)
class Bracketed:
    """What came of a view's moving rows.

    `rows` were held, in at least one column; of `open_rows` nothing was, or they are not in the
    sample. `loose` is by column in how many of the rows held it was not, and `sums` of those that
    were how close they were held. One of `one_in` keys was looked at.
    """

    rows: int = 0
    open_rows: int = 0
    loose: Mapping[str, int] = field(default_factory=dict)
    sums: Mapping[str, Between] = field(default_factory=dict)
    one_in: int = 1


@dataclass(frozen=True)
class Outside:
    """A key that differs, with its row in each look."""

    key: Key
    judgement: Judgement
    before: Seen | None
    new: Seen | None
    after: Seen | None


def judge_all(
    rule: Rule, before: Look, new: Look, after: Look
) -> tuple[Bracketed, tuple[Outside, ...]]:
    """Return what came of all rows of the first two looks, and those that differ."""
    rows, open_rows, loose, outside = 0, 0, Counter[str](), []
    totals: dict[str, list[float]] = {}
    for key in sorted({*before, *new}):
        seen = before.get(key), new.get(key), after.get(key)
        judgement = rule.judge(*seen)
        if judgement is None:
            open_rows += 1
            continue
        rows += 1
        loose.update(judgement.loose)
        _add_up(totals, rule, *seen)
        if judgement.is_difference:
            outside.append(Outside(key, judgement, *seen))
    sums = {name: Between(*total) for name, total in totals.items()}
    return Bracketed(rows, open_rows, dict(loose), sums), tuple(outside)


def _add_up(totals: dict[str, list[float]], rule: Rule, *looks: Seen | None) -> None:
    seen = [one for one in looks if one is not None]
    if len(seen) < len(looks):
        return
    for i, (name, course) in enumerate(rule.courses.items()):
        values = [one.values[i] for one in seen]
        if course is Course.GROWS and all(isinstance(value, int | float) for value in values):
            total = totals.setdefault(name, [0, 0, 0])
            total[:] = (a + b for a, b in zip(total, values, strict=True))


def rule_of(view: View, comparison: Comparison) -> Rule:
    """Return what must hold of the rows of `view`."""
    planned = {name for one in comparison.conditions for name in one.new}

    def course(column: ComparedColumn) -> Course:
        if column.name in planned:
            return Course.PLANNED
        if column.as_text:
            return Course.EITHER_WAY
        if column.name in view.grows:
            return Course.GROWS
        return Course.FALLS if column.name in view.falls else Course.EITHER_WAY

    courses = {column.name: course(column) for column in comparison.columns}
    return Rule(courses, not any(one.sees_both for one in comparison.conditions))


class Looks:
    """The looks at one view's moving rows, in their order; `ask` has a query answered."""

    def __init__(
        self, ask: Callable[[str], Answer], view: View, comparison: Comparison, moving: int
    ) -> None:
        self._ask = ask
        self._comparison = comparison
        self._rule = rule_of(view, comparison)
        self._moving = moving
        self._one_in = max(1, -(-moving // MOST_ROWS))
        self._before = self._look(comparison.old)
        self._new: Look = {}

    def look_at_new(self) -> None:
        """Look at the new version, which has read all that the old one had at the first look."""
        self._new = self._look(self._comparison.new)

    def judge(self) -> tuple[Bracketed, tuple[Outside, ...]]:
        """Look at the old version, which has read all that the new one had, and judge."""
        found, outside = judge_all(
            self._rule, self._before, self._new, self._look(self._comparison.old)
        )
        left_out = max(0, self._moving - found.rows - found.open_rows) if self._one_in > 1 else 0
        open_rows = found.open_rows + left_out
        return Bracketed(found.rows, open_rows, found.loose, found.sums, self._one_in), outside

    def _look(self, table: StoredTable) -> Look:
        keys, columns = len(self._comparison.key), len(self._comparison.columns)
        return {
            row[:keys]: Seen(row[keys : keys + columns], row[keys + columns :])
            for row in self._ask(look_query(self._comparison, table, self._one_in)).rows
        }


def look_query(comparison: Comparison, table: StoredTable, one_in: int) -> str:
    """Ask for the rows of `table` whose keys either version has written too lately to count.

    Columns: the key, the values of the compared columns, partition and offset in the topic. A key
    that moves goes on doing so: a later look finds those of an earlier one, and more.
    """
    key = ", ".join(identifier(name) for name in comparison.key)
    is_old = table is comparison.old
    values = [
        _value(column) if (column.in_old if is_old else column.in_new) else "NULL"
        for column in comparison.columns
    ]
    shown = ", ".join([key, *values, identifier(PARTITION), identifier(REVISION)])
    sampled = f"cityHash64(tuple({key}, 0)) % {one_in} = 0 AND " if one_in > 1 else ""
    # Sampled in both places: else the set of all moving keys would have to fit into memory.
    moving = " UNION ALL ".join(
        f"SELECT {key} FROM {identifier(one.name)} FINAL WHERE {sampled}"
        f"NOT {still(comparison, one)}"
        for one in (comparison.old, comparison.new)
    )
    # On a cluster each server would look among the keys of its own only.
    chosen = f"{sampled}({key}) GLOBAL IN ({moving})"
    return f"SELECT {shown} FROM {identifier(table.name)} FINAL WHERE {chosen}"


def _value(column: ComparedColumn) -> str:
    name = identifier(column.name)
    return f"toString({name})" if column.as_text else name
