"""Compare two versions of a replay's views in ClickHouse and class every difference."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from deploy.settings import Settings
from jobs.views import ArrivalView, QueryView, View, WindowView
from replay import comparison as sql
from replay.comparison import WINDOW, CannotVerify, Comparison, StoredTable
from replay.differences import (
    Cut,
    Expectation,
    UnusableExpectation,
    ViewExpectation,
    expectations,
    fitting,
)
from replay.report import VerifyReport, ViewReport
from replay.skipped import SkippedReader
from replay.view_comparison import ViewComparison
from sinks.clickhouse import ClickHouse
from sinks.cluster import LOCAL, keyed

# Rows about to expire may be gone from one table and not yet from the other.
_EXPIRY_MARGIN = timedelta(hours=1)
_QUERY_SECONDS = 3600
# It only reads, whoever asks.
_LIMITS = {"max_execution_time": _QUERY_SECONDS, "readonly": 1}


def verify(
    settings: Settings,
    *,
    views: Sequence[View],
    old_version: int | Mapping[str, int],
    new_version: int,
    cut: Cut,
    expected: Expectation | None = None,
    partial: bool = False,
    replay: str = "",
    now: datetime | None = None,
    count_schema_changes: bool = False,
    progress: Callable[[str], None] = lambda view: None,
    read_on: Callable[[], object] | None = None,
) -> VerifyReport:
    """Return how `views` at both versions compare over the input of `cut`.

    `old_version` is that of all views or says it by view's name. What is `expected` must fit these
    views; with `partial` what does not is of views that are compared apart, and does not count.
    Each table is read once, to hash its rows in buckets; keys are compared only in the buckets
    whose hashes differ. `now` decides which rows are about to expire; without it, it is this
    moment. `progress` is told the name of each view as its comparison begins. `read_on` returns
    once each version has read all that the other had, and its rows are loaded: with it, rows that
    are written meanwhile are held too, between two looks at the old version. Raises `CannotVerify`
    and `ClickHouseFailed`.
    """
    started, at = time.monotonic(), now or datetime.now(UTC)
    declared = expected or Expectation()
    # The reader's profile ends a query long before a large view is read.
    clickhouse = ClickHouse(settings, timeout=_QUERY_SECONDS + 60, limits=_LIMITS)
    as_reader = ClickHouse(settings, reader=True)
    reader = SkippedReader(settings, clickhouse, cut)
    old = {
        v.name: old_version if isinstance(old_version, int) else old_version[v.name] for v in views
    }
    try:
        pairs = {v.name: _tables(clickhouse, v, old[v.name], new_version) for v in views}
        columns = {
            view: (frozenset(before.types), frozenset(after.types))
            for view, (before, after) in pairs.items()
        }
        if partial:
            declared = fitting(declared, columns)
        by_view = _expectations(declared, columns)
        comparisons = []
        for view in views:
            progress(view.name)
            compared = _comparison(view, pairs[view.name], cut, at, count_schema_changes)
            compared = replace(compared, conditions=by_view[view.name].conditions)
            between = (old[view.name], new_version)
            compare = ViewComparison(
                clickhouse, view, between, compared, by_view[view.name], reader, as_reader
            )
            compare.compare()
            comparisons.append(compare)
        moving = [one for one in comparisons if one.moving]
        if moving and read_on is not None:
            _bracket(moving, read_on)
        reports = [one.report() for one in comparisons]
    finally:
        reader.close()
        as_reader.close()
        clickhouse.close()
    return VerifyReport(
        replay=replay,
        new_version=new_version,
        at=at,
        cut=cut,
        expected=declared,
        views=tuple(reports),
        unused=unused_expectations(declared, reports),
        seconds=time.monotonic() - started,
    )


def _bracket(moving: Sequence[ViewComparison], read_on: Callable[[], object]) -> None:
    """Hold the rows that are written meanwhile; each look is later than all that it must be."""
    for one in moving:
        one.look_at_old()
    read_on()
    for one in moving:
        one.look_at_new()
    read_on()
    for one in moving:
        one.judge_moving()


def unused_expectations(declared: Expectation, reports: Iterable[ViewReport]) -> tuple[str, ...]:
    """Return the declared columns and conditions that no expected difference needed."""
    used = {one for r in reports for name in r.needed for one in (name, f"{r.view}.{name}")}
    return tuple(one for one in (*declared.columns, *declared.conditions) if one not in used)


def _tables(
    clickhouse: ClickHouse, view: View, old_version: int, new_version: int
) -> tuple[StoredTable, StoredTable]:
    names = (view.table(old_version), view.table(new_version))
    parts = [f"{name}{LOCAL}" for name in names]
    where = {"database": clickhouse.database, "names": (*names, *parts)}
    columns = clickhouse.query(
        "SELECT table, name, type, is_in_sorting_key FROM system.columns "
        "WHERE database = %(database)s AND table IN %(names)s ORDER BY table, position",
        where,
    ).rows
    engines = clickhouse.query(
        "SELECT name, engine_full FROM system.tables "
        "WHERE database = %(database)s AND name IN %(names)s",
        where,
    ).rows
    engine = dict(engines)
    for name in names:
        if name not in engine:
            raise CannotVerify(
                f"{view.name}: there is no table {name}, so nothing of this version is loaded; "
                "see kappa tables, and kappa status for its job."
            )
    in_key = {(table, column) for table, column, _, sorts in columns if sorts}
    old, new = (
        sql.stored_table(
            name,
            [
                (column, kind, (keyed(name, engine), column) in in_key)
                for table, column, kind, _ in columns
                if table == name
            ],
            engine[keyed(name, engine)],
        )
        for name in names
    )
    return old, new


def _expectations(
    declared: Expectation, columns: Mapping[str, tuple[frozenset[str], frozenset[str]]]
) -> dict[str, ViewExpectation]:
    try:
        return expectations(declared, columns)
    except UnusableExpectation as error:
        raise CannotVerify(str(error)) from error


def _comparison(
    view: View,
    tables: tuple[StoredTable, StoredTable],
    cut: Cut,
    now: datetime,
    count_schema_changes: bool,
) -> Comparison:
    old, new = tables
    columns = sql.compared_columns(old, new, count_schema_changes=count_schema_changes)
    plain = Comparison(view.name, old, new, columns, sql.numeric_columns(old, new), _time(view))
    if not plain.has_time or isinstance(view, ArrivalView):
        emitted = [cut.emitted.get(table.name) for table in tables]
        both = all(ends is not None for ends in emitted)
        return replace(plain, emitted=(emitted[0] or {}, emitted[1] or {}) if both else None)
    retentions = [table.retention for table in tables if table.retention is not None]
    after = now + _EXPIRY_MARGIN - min(retentions) if retentions else None
    return replace(plain, after=after, until=_until(view, cut))


def _time(view: View) -> tuple[str, str]:
    """Return the columns with the first and last instant of a row."""
    return view.time_columns or WINDOW


def _until(view: View, cut: Cut) -> datetime | None:
    """Return the instant by which a row must have ended to be in both versions and final."""
    closed = cut.closed_in(stream.name for stream in view.streams)
    if isinstance(view, WindowView):
        return None if cut.drained else closed
    if closed is None:
        return None
    # Sessions close at the end of a pane, and queries see a watermark that trails by one.
    pane = max(one.pane for one in view.streams)
    if not isinstance(view, QueryView):
        return closed - pane - view.settled_after
    held, passed = closed - pane, cut.passed.get(view.name)
    newest = max(cut.closed_before.get(one.name, closed) for one in view.streams) - pane
    # Mini-batches of a query without event time are told apart by watermarks of the clock.
    if passed is None or passed > newest:
        return held - view.settled_after
    return max(held, passed) - view.settled_after
