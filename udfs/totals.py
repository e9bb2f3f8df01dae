"""Totals by key of all events ever, over Arrow: events to parcels, those merged into runs. No I/O.

What is kept is two logs of sorted runs, and a merge appends to both: what each key gained, and the
members that are new, which are fingerprints of a key with a distinct value. The newest runs are
merged while the one before is less than twice as large, so a row is written O(log n) times, as in
any log-structured merge tree. A key's totals are all that its runs have of it, and a member is new
where no run has it: both are found by binary search in memory, and no run is read from the state
but to be remembered again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from udfs import runs
from udfs.fingerprints import fingerprinted
from udfs.groups import Groups, groups_of
from udfs.measures import CountDistinct, Earliest, Latest, TotalsMeasure
from udfs.panes import EVENTS, Partial, final, int64s, partials_of, text
from udfs.runs import Int64s, Prints, Run
from udfs.windows import PaneBook

MOST_MEMBERS = 1 << 20
"""Members of a run from which it is merged no more: 16 MiB, which Flink takes as one value."""

_MEMBERS = "members"
_EVENT_TIME = "event time"
_EARLIEST = Partial("earliest", "min", "value", _EVENT_TIME)
_LATEST = Partial("latest", "max", "value", _EVENT_TIME)


@dataclass(frozen=True)
class TotalsStore:
    """The totals of one view by key, and the distinct values of each key.

    In a book runs of keys have the ids 0, 1, 2 and so on, runs of members -1, -2, -3.
    """

    name: str
    view: str
    dimensions: tuple[str, ...]
    measures: tuple[tuple[str, TotalsMeasure], ...]

    @cached_property
    def distinct(self) -> tuple[str, ...]:
        """Fields whose distinct values are counted."""
        fields = (m.field for _, m in self.measures if isinstance(m, CountDistinct))
        return tuple(dict.fromkeys(fields))

    @cached_property
    def partials(self) -> tuple[Partial, ...]:
        """All partial aggregates of the view, each once."""
        wanted = (partial for _, measure in self.measures for partial in _partials_of(measure))
        return tuple(dict.fromkeys((EVENTS, *wanted)))

    @cached_property
    def schema(self) -> pa.Schema:
        """Arrow schema of parcels and runs.

        A parcel has a row a key: partial aggregates, how many distinct values there are of each
        field, and the members of all of these, field by field. In a run of keys the numbers are
        those of the members that were new, which a run of members has all in one row.
        """
        return pa.schema(
            [
                *((name, pa.string()) for name in self.dimensions),
                *((name, pa.int64()) for name, _ in self._merges),
                (_MEMBERS, pa.binary()),
            ]
        )

    @property
    def layout(self) -> str:
        """What state must be written by to be read again."""
        return f"runs {self.schema.to_string()}"

    @cached_property
    def _merges(self) -> tuple[tuple[str, str], ...]:
        """The columns that are folded, and how."""
        partials = ((partial.name, partial.merge) for partial in self.partials)
        return (*partials, *((_distinct(name), "sum") for name in self.distinct))

    def first_due(self, parcel: pa.RecordBatch) -> int:
        """Return 0: nothing is due by event time."""
        return 0

    def due(self, first: int) -> int | None:
        """Return None: what comes is merged after a pause, however far time has come."""
        return None

    def next_deadline(self, book: PaneBook) -> int | None:
        """Return None: nothing ends."""
        return None

    def from_events(self, events: pa.Table, timestamps: Int64s) -> pa.Table:
        """Fold `events`, whose event times are epoch milliseconds, into a parcel."""
        timed = events.append_column(_EVENT_TIME, pa.array(timestamps))
        columns = {name: text(events[name]).fill_null("") for name in self.dimensions}
        groups = groups_of(pa.table(columns), self.dimensions)
        heads = groups.first(pa.table(columns), self.dimensions).columns
        partials = {partial.name: partial.of_events(timed) for partial in self.partials}
        merges = [(partial.name, partial.merge) for partial in self.partials]
        folded = groups.fold(pa.table(partials), merges)
        counts, members = self._members(events, groups.codes, runs.prints_of(heads))
        return pa.table([*heads, *folded, *counts, members], schema=self.schema)

    def _members(
        self, events: pa.Table, group: Int64s, keys: Prints
    ) -> tuple[list[pa.Array], pa.Array]:
        """Return how many members each of `keys` has, by field, and these.

        `group` is the place of each event's key among them.
        """
        found = [
            _members_of(fingerprinted(events, name), number, group, keys)
            for number, name in enumerate(self.distinct)
        ]
        if not found:
            return [], pa.nulls(len(keys[0]), pa.binary())
        owner, high, low = (np.concatenate(part) for part in zip(*found, strict=True))
        order = np.argsort(owner, kind="stable")
        counts = [np.bincount(owner, minlength=len(keys[0])) for owner, _, _ in found]
        members = runs.to_binary((high[order], low[order]), np.sum(counts, axis=0))
        return [pa.array(count) for count in counts], members

    def advance(
        self, book: PaneBook, fresh: Sequence[pa.Table], remembered: dict[int, Run]
    ) -> Iterable[tuple[str, pa.Table]]:
        """Merge `fresh` parcels into the book; yield (view, rows) of the keys that they have.

        `remembered` are the book's runs by id, as far as they are known; it has all of them after.
        """
        if not fresh:
            return
        parcels = pa.concat_tables(fresh).combine_chunks()
        if not len(parcels):
            return
        for number in book.starts():
            if number not in remembered:
                remembered[number] = self._run(number, book.read(number))
        keys = [run for number, run in remembered.items() if number >= 0]
        members = [run for number, run in remembered.items() if number < 0]
        gained, new = self._gained(parcels, members)
        yield self.view, self.rows(self._totals(gained, keys))
        self._append(book, remembered, gained)
        if len(new):
            self._append(book, remembered, new)

    def _run(self, number: int, table: pa.Table | None) -> Run:
        assert table is not None
        if number < 0:
            return Run(*runs.from_binary(table[_MEMBERS]))
        return Run(*self._key_prints(table), table)

    def _key_prints(self, table: pa.Table) -> Prints:
        return runs.prints_of([table[name] for name in self.dimensions])

    def _gained(self, parcels: pa.Table, known: Sequence[Run]) -> tuple[Run, Run]:
        """Return what each key of `parcels` gained, and the members that none of `known` has."""
        high, low = self._key_prints(parcels)
        gained = self._fold(parcels, high, low)
        fields = len(self.distinct)
        counts = [int64s(parcels, _distinct(name)) for name in self.distinct]
        each = np.array(counts, dtype=np.int64).ravel(order="F")
        owner = np.repeat(np.arange(len(each)), each)
        members, owner = _distinct_members(runs.from_binary(parcels[_MEMBERS]), owner)
        new = np.arange(len(members))
        for run in known:
            new = new[run.places(members.high[new], members.low[new]) < 0]
        if fields:
            row, field = owner[new] // fields, owner[new] % fields
            cell = gained.places(high[row], low[row]) * fields + field
            found = np.bincount(cell, minlength=fields * len(gained)).reshape(-1, fields)
            gained = self._with_counts(gained, found)
        return gained, Run(members.high[new], members.low[new])

    def _with_counts(self, gained: Run, counts: Int64s) -> Run:
        """Return `gained` with other numbers of distinct values, a column a field."""
        rows = gained.rows
        assert rows is not None
        for number, name in enumerate(self.distinct):
            place = rows.schema.get_field_index(_distinct(name))
            rows = rows.set_column(place, rows.schema.field(place), pa.array(counts[:, number]))
        return Run(gained.high, gained.low, rows)

    def _totals(self, gained: Run, keys: Sequence[Run]) -> pa.Table:
        """Return the totals of the keys in `gained`, which has what the runs `keys` lack."""
        found = [gained]
        for run in keys:
            places = run.places(gained.high, gained.low)
            there = places >= 0
            if there.any():
                assert run.rows is not None
                rows = run.rows.take(pa.array(places[there]))
                found.append(Run(gained.high[there], gained.low[there], rows))
        return self._folded(found).rows

    def _folded(self, found: Sequence[Run]) -> Run:
        """Return a run of the keys in all of `found`."""
        if len(found) == 1:
            return found[0]
        table = pa.concat_tables([run.rows for run in found])
        high = np.concatenate([run.high for run in found])
        return self._fold(table, high, np.concatenate([run.low for run in found]))

    def _fold(self, table: pa.Table, high: Int64s, low: Int64s) -> Run:
        """Fold the rows of `table`, whose keys have these fingerprints, to a row a key."""
        order = runs.ascending(high, low)
        high, low = high[order], low[order]
        begins = runs.begins(high, low)
        first = np.flatnonzero(begins)
        ordered = table.take(pa.array(order))
        heads = [ordered[name].take(pa.array(first)) for name in self.dimensions]
        folded = Groups(np.cumsum(begins) - 1, first).fold(ordered, self._merges)
        rows = [*heads, *folded, pa.nulls(len(first), pa.binary())]
        return Run(high[first], low[first], pa.table(rows, schema=self.schema).combine_chunks())

    def _append(self, book: PaneBook, remembered: dict[int, Run], run: Run) -> None:
        """Add `run` to the log of its kind, merged with the newest ones that it outgrows."""
        of_members = run.rows is None
        log = sorted((n for n in remembered if (n < 0) == of_members), key=abs)
        first, step = (-1, -1) if of_members else (0, 1)
        number = log[-1] + step if log else first
        while log and _is_outgrown(remembered[log[-1]], run):
            older = remembered.pop(log[-1])
            run = runs.merged(older, run) if of_members else self._folded([older, run])
            book.remove(log.pop())
        remembered[number] = run
        book.write(number, self._table(run))

    def _table(self, run: Run) -> pa.Table:
        """Return `run` as the book has it."""
        if run.rows is not None:
            return run.rows
        columns = [pa.array([""]) for _ in self.dimensions] + [pa.array([0]) for _ in self._merges]
        members = runs.to_binary((run.high, run.low), np.array([len(run)]))
        return pa.table([*columns, members], schema=self.schema)

    def rows(self, totals: pa.Table) -> pa.Table:
        """Return the rows of `totals`: dimensions and measures."""
        columns = [totals[name] for name in self.dimensions]
        columns += [_measured(measure, totals) for _, measure in self.measures]
        return pa.table(columns, names=[*self.dimensions, *(name for name, _ in self.measures)])


def _members_of(
    values: tuple[pa.Array, pa.Array], number: int, group: Int64s, keys: Prints
) -> tuple[Int64s, Int64s, Int64s]:
    """Return the members that values of the `number`-th field make: key's place, both halves.

    `values` are their fingerprints.
    """
    if values[0].null_count:
        there = np.flatnonzero(np.asarray(values[0].is_valid()))
        group, values = group[there], tuple(half.take(pa.array(there)) for half in values)
    # Of two numbers that are evenly spread the sum is: sums are the same as seldom as fingerprints.
    salts = runs.prints_of_words(*keys, np.full(len(keys[0]), number))
    high, low = (np.asarray(half) + salt[group] for half, salt in zip(values, salts, strict=True))
    # Where first halves are the same, some members stay twice: a merge finds them.
    order = np.argsort(high)
    group, high, low = group[order], high[order], low[order]
    once = runs.begins(high, low)
    return group[once], high[once], low[once]


def _distinct_members(prints: Prints, owner: Int64s) -> tuple[Run, Int64s]:
    """Return each of the members once, and its owner."""
    order = runs.ascending(*prints)
    high, low = (half[order] for half in prints)
    once = runs.begins(high, low)
    return Run(high[once], low[once]), owner[order][once]


def _is_outgrown(older: Run, newer: Run) -> bool:
    if newer.rows is None and len(older) + len(newer) > MOST_MEMBERS:
        return False
    return len(older) < 2 * len(newer)


def _partials_of(measure: TotalsMeasure) -> tuple[Partial, ...]:
    match measure:
        case Earliest():
            return (_EARLIEST,)
        case Latest():
            return (_LATEST,)
    return partials_of(measure)


def _measured(measure: TotalsMeasure, folded: pa.Table) -> Any:
    match measure:
        case CountDistinct(field=name):
            return folded[_distinct(name)]
        case Earliest() | Latest():
            (partial,) = _partials_of(measure)
            return folded[partial.name].cast(pa.timestamp("ms"))
    return final(measure, folded)


def _distinct(field: str) -> str:
    return f"distinct {field}"
