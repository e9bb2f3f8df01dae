"""Write the SQL that compares two versions of a view's table. No I/O."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from jobs.views import WINDOW_END, WINDOW_START
from replay.differences import Condition
from sinks.sql import identifier, literal
from sinks.tables import INTERNAL_COLUMNS, PARTITION, REVISION, stored_retention
from udfs.windows import MISSED_AT

MAX_BUCKETS = 4096
MAX_RANGES = 200
WINDOW = (WINDOW_START.name, WINDOW_END.name)
_INTERNAL = frozenset(column.name for column in INTERNAL_COLUMNS)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_TIME = "DateTime64(3, 'UTC')"
_BUCKET_SIZES = tuple(
    timedelta(minutes=minutes)
    for minutes in (1, 5, 15, 60, 360, 1440, 7 * 1440, 28 * 1440, 364 * 1440)
)


class CannotVerify(Exception):
    """Two versions that can't be held against each other; the message says what to do."""


@dataclass(frozen=True)
class StoredTable:
    """A version's table as ClickHouse has it: type by column, key, and how long rows stay."""

    name: str
    types: Mapping[str, str]
    key: tuple[str, ...]
    retention: timedelta | None = None


def stored_table(
    name: str, columns: Iterable[tuple[str, str, bool]], engine: str = ""
) -> StoredTable:
    """Return table `name` out of (column, type, whether it is in the key) and its engine clause."""
    own = [(column, kind, keyed) for column, kind, keyed in columns if column not in _INTERNAL]
    return StoredTable(
        name,
        {column: kind for column, kind, _ in own},
        tuple(column for column, _, keyed in own if keyed),
        stored_retention(engine),
    )


@dataclass(frozen=True)
class ComparedColumn:
    """A column outside the key; `as_text` where its types differ or one version lacks it."""

    name: str
    as_text: bool = False
    in_old: bool = True
    in_new: bool = True


@dataclass(frozen=True)
class Bucket:
    """Rows of one version that were hashed together; `sums` are those of the numeric columns."""

    rows: int
    fingerprint: int
    sums: tuple[float, ...]


@dataclass(frozen=True)
class Comparison:
    """How the tables of one view are compared.

    `time` names the columns with the first and last instant of a row, a window's or another's.
    `after` and `until` bound the end of the rows that count; None for no bound. `size` is the span
    of a bucket; None puts rows into buckets by a hash of their key. `emitted` is by partition of
    the old and of the new version's topic the end of the rows that count; None where all do.
    """

    view: str
    old: StoredTable
    new: StoredTable
    columns: tuple[ComparedColumn, ...]
    sums: tuple[str, ...]
    time: tuple[str, str] = WINDOW
    after: datetime | None = None
    until: datetime | None = None
    size: timedelta | None = None
    conditions: tuple[Condition, ...] = ()
    emitted: tuple[Mapping[int, int], Mapping[int, int]] | None = None

    @property
    def key(self) -> tuple[str, ...]:
        """The key columns, the same in both versions."""
        return self.old.key

    @property
    def has_time(self) -> bool:
        """Whether rows say which time they are of."""
        return all(
            table.types.get(name) == _TIME for table in (self.old, self.new) for name in self.time
        )


def compared_columns(
    old: StoredTable, new: StoredTable, *, count_schema_changes: bool
) -> tuple[ComparedColumn, ...]:
    """Return the columns to compare: those of both versions, and on demand those of only one."""
    found = []
    for name in dict.fromkeys((*old.types, *new.types)):
        in_old, in_new = name in old.types, name in new.types
        if name in old.key or not (count_schema_changes or (in_old and in_new)):
            continue
        same = in_old and in_new and _bare(old.types[name]) == _bare(new.types[name])
        found.append(ComparedColumn(name, not same, in_old, in_new))
    return tuple(found)


def schema_changes(old: StoredTable, new: StoredTable) -> tuple[str, ...]:
    """Return a sentence for each column that only one version has, or has with another type."""
    found = []
    for name in dict.fromkeys((*old.types, *new.types)):
        before, after = old.types.get(name), new.types.get(name)
        if before is None:
            found.append(f"{name} is new: {after}")
        elif after is None:
            found.append(f"{name} is gone: {before}")
        elif before != after:
            found.append(f"{name} was {before}, is {after}")
    return tuple(found)


def numeric_columns(old: StoredTable, new: StoredTable) -> tuple[str, ...]:
    """Return the columns outside the key that are numbers in both versions."""
    number = re.compile(r"U?Int[0-9]+|Float[0-9]+|Decimal.*")
    return tuple(
        name
        for name, kind in old.types.items()
        if name not in old.key
        and number.fullmatch(_bare(kind))
        and number.fullmatch(_bare(new.types.get(name, "")))
    )


def span_query(comparison: Comparison, table: StoredTable) -> str:
    """Ask for rows, least and greatest start in epoch ms; parts know it without reading."""
    start = identifier(comparison.time[0])
    least, greatest = (f"toUnixTimestamp64Milli({edge}({start}))" for edge in ("min", "max"))
    return f"SELECT count(), {least}, {greatest} FROM {identifier(table.name)}"


def count_query(table: StoredTable) -> str:
    """Ask for the rows of `table`."""
    return f"SELECT count() FROM {identifier(table.name)} FINAL"


def moving_query(comparison: Comparison, table: StoredTable) -> str:
    """Ask for the rows of `table` that were written too lately to count."""
    return (
        f"SELECT count() FROM {identifier(table.name)} FINAL WHERE NOT {still(comparison, table)}"
    )


def still(comparison: Comparison, table: StoredTable) -> str:
    """Return the condition that a row of `table` is none of those written too lately."""
    if comparison.emitted is None:
        return "true"
    ends = comparison.emitted[0 if table is comparison.old else 1]
    revision, partition = identifier(REVISION), identifier(PARTITION)
    terms = (f"({partition} = {part} AND {revision} < {end})" for part, end in ends.items())
    return f"({' OR '.join(terms) or 'false'})"


def bucket_size(first_ms: int, last_ms: int) -> timedelta:
    """Return the span of a bucket that cuts the time between both into few enough of them."""
    span = timedelta(milliseconds=max(last_ms - first_ms, 1))
    for size in _BUCKET_SIZES:
        if span / size <= MAX_BUCKETS:
            return size
    return _BUCKET_SIZES[-1] * -(-span // (_BUCKET_SIZES[-1] * MAX_BUCKETS))


def bucket_query(comparison: Comparison, table: StoredTable) -> str:
    """Ask for rows, hash and sums of every bucket of `table`, in one pass over it."""
    is_old = table is comparison.old
    values = [identifier(name) for name in comparison.key]
    values += [_canonical(column, table, is_old=is_old) for column in comparison.columns]
    sums = "".join(f", sum({identifier(name)})" for name in comparison.sums)
    # One more value, since a tuple of one would be read as brackets.
    fingerprint = f"sum(cityHash64(tuple({', '.join(values)}, 0)))"
    return (
        f"SELECT {_bucket(comparison)} AS _bucket, count(), {fingerprint}{sums} "
        f"FROM {identifier(table.name)} FINAL"
        f"{_where([*_bounds(comparison), still(comparison, table)])} GROUP BY _bucket"
    )


def differing_buckets(old: Mapping[int, Bucket], new: Mapping[int, Bucket]) -> list[int]:
    """Return the buckets whose rows or hashes differ, in order."""

    def content(of: Mapping[int, Bucket], bucket: int) -> tuple[int, int]:
        found = of.get(bucket)
        return (found.rows, found.fingerprint) if found else (0, 0)

    return [b for b in sorted({*old, *new}) if content(old, b) != content(new, b)]


def chunks(buckets: Sequence[int], rows: Mapping[int, int], limit: int) -> Iterator[list[int]]:
    """Cut `buckets` into runs of about `limit` rows, and of at least one bucket each."""
    run: list[int] = []
    size = 0
    for bucket in buckets:
        if run and (size + rows[bucket] > limit or len(run) >= MAX_RANGES):
            yield run
            run, size = [], 0
        run.append(bucket)
        size += rows[bucket]
    if run:
        yield run


def row_query(comparison: Comparison, buckets: Sequence[int]) -> str:
    """Ask for the rows of `buckets` that differ, in the order of their keys.

    Columns: bucket, kind (0 changed, 1 only in old, 2 only in new), a string of 0 and 1 per
    compared column, another per condition, the key, the row's end if there is one, and the
    values of the compared columns in the old and in the new version.
    """
    key, columns = comparison.key, comparison.columns
    absent_old, absent_new = (f"isNull({side}.{identifier(key[0])})" for side in ("old", "new"))
    kind = f"multiIf({absent_new}, 1, {absent_old}, 2, 0)"
    names = (*key, comparison.time[1]) if _has_end(comparison) else key
    shown = [
        f"coalesce(old.{identifier(n)}, new.{identifier(n)}) AS _k{i}" for i, n in enumerate(names)
    ]
    shown += [f"{_value('old', c)} AS _o{i}" for i, c in enumerate(columns)]
    shown += [f"{_value('new', c)} AS _n{i}" for i, c in enumerate(columns)]
    differs = [_differs(comparison, column) for column in columns]
    holds = [f"if((\n{one.sql}\n), 1, 0)" for one in comparison.conditions]
    on = " AND ".join(f"old.{identifier(n)} = new.{identifier(n)}" for n in key)
    order = ", ".join(f"_k{i}" for i in range(len(key)))
    return (
        f"SELECT coalesce(old._bucket, new._bucket), {kind} AS _kind, "
        f"{_flags(differs)} AS _differs, {_flags(holds)} AS _holds, {', '.join(shown)} "
        f"FROM {_side(comparison, comparison.old, buckets)} AS old "
        f"FULL OUTER JOIN {_side(comparison, comparison.new, buckets)} AS new ON {on} "
        f"WHERE (_kind != 0 OR position(_differs, '1') > 0) "
        f"AND ifNull(old._still, true) AND ifNull(new._still, true) ORDER BY {order}"
    )


def condition_query(comparison: Comparison, one: Condition) -> str:
    """Ask ClickHouse whether it understands a condition; no row is read."""
    old, new = (
        f"(SELECT {_nullable(table)} FROM {identifier(table.name)} LIMIT 0)"
        for table in (comparison.old, comparison.new)
    )
    return f"SELECT if((\n{one.sql}\n), 1, 0) FROM {old} AS old CROSS JOIN {new} AS new"


def skipped_query(
    table: str,
    verdict: str,
    stream: str,
    versions: Collection[int],
    first: datetime,
    end: datetime,
    but: str = "",
) -> str:
    """Ask for the events of `stream` in a span of time that `table` has for any of `versions`.

    `but` is a query for (version, topic, partition, offset) of events that don't count.
    """
    reason = identifier("reason") if verdict == "dead" else "''"
    return (
        f"SELECT {literal(verdict)} AS verdict, version, topic, partition, offset, timestamp, "
        f"{reason} AS reason, hex(value) AS body FROM {identifier(table)} "
        f"WHERE stream = {literal(stream)} AND version IN ({', '.join(map(str, versions))}) "
        f"AND timestamp >= {_instant(first)} AND timestamp < {_instant(end)}"
        + (f" AND (version, topic, partition, offset) NOT IN ({but})" if but else "")
    )


def one_version_only(queries: Sequence[str], limit: int) -> str:
    """Ask for the events of `queries` that exactly one version skipped, `limit` at most."""
    return (
        "SELECT any(verdict), any(version) AS only, topic, partition, offset, any(timestamp), "
        f"any(reason), any(body) FROM ({' UNION ALL '.join(queries)}) "
        "GROUP BY topic, partition, offset HAVING uniqExact(version) = 1 "
        f"ORDER BY topic, partition, offset LIMIT {limit}"
    )


def dropped_query(
    accounting: str, begin: Mapping[int, int], first: datetime, end: datetime, limit: int
) -> str:
    """Ask an accounting for the panes of a span of time with events before the offsets `begin`.

    Columns: partition, pane, first and last such offset, and how many events there are at most.
    """
    part, pane = "toInt64OrNull(source_partition)", "window_start"
    before = " OR ".join(f"({part} = {p} AND first_offset < {at})" for p, at in begin.items())
    last = ", ".join(f"{part} = {p}, {at - 1}" for p, at in begin.items())
    return (
        f"SELECT {part}, {pane}, first_offset, least(last_offset, multiIf({last}, 0)) "
        f"AS last, least(events, last - first_offset + 1) FROM {identifier(accounting)} FINAL "
        f"WHERE ({before}) AND {pane} >= {_instant(first)} AND {pane} < {_instant(end)} "
        f"ORDER BY ALL LIMIT {limit}"
    )


def missed_query(accountings: Mapping[int, str], first: datetime, end: datetime, limit: int) -> str:
    """Ask accountings, by version, for the events that just one of these versions missed.

    Columns: version, partition, pane, first and last offset, how many events there are, the pane
    and how far time was in epoch milliseconds.
    """
    place, pane = f"splitByString({literal(MISSED_AT)}, source_partition)", "window_start"
    missed = " UNION ALL ".join(
        f"SELECT {version} AS version, {place} AS place, {pane}, first_offset, last_offset, events "
        f"FROM {identifier(table)} FINAL WHERE length({place}) = 3 "
        f"AND {pane} >= {_instant(first)} AND {pane} < {_instant(end)}"
        for version, table in accountings.items()
    )
    return (
        f"SELECT any(version) AS only, toInt64(place[1]) AS part, {pane}, first_offset, "
        f"any(last_offset), any(events), toUnixTimestamp64Milli({pane}), any(toInt64(place[3])) "
        f"FROM ({missed}) GROUP BY part, {pane}, first_offset "
        f"HAVING uniqExact(version) = 1 ORDER BY ALL LIMIT {limit}"
    )


def bucket_of(moment: datetime, size: timedelta) -> int:
    """Return the bucket of time that `moment` falls into."""
    return (moment - _EPOCH) // size


def bucket_start(bucket: int, size: timedelta) -> datetime:
    """Return the first instant of a bucket of time."""
    return _EPOCH + bucket * size


def _bucket(comparison: Comparison) -> str:
    if comparison.size is None:
        names = ", ".join(identifier(name) for name in comparison.key)
        return f"toInt64(cityHash64(tuple({names}, 0)) % {MAX_BUCKETS})"
    ms, size = f"toUnixTimestamp64Milli({identifier(comparison.time[0])})", comparison.size // _MS
    return f"intDiv({ms} - positiveModulo({ms}, {size}), {size})"


def _bounds(comparison: Comparison) -> list[str]:
    end = identifier(comparison.time[1])
    bounds = []
    if comparison.after is not None:
        bounds.append(f"{end} > {_instant(comparison.after)}")
    if comparison.until is not None:
        bounds.append(f"{end} <= {_instant(comparison.until)}")
    return bounds


def _where(terms: Sequence[str]) -> str:
    return f" WHERE {' AND '.join(terms)}" if terms else ""


def _within(comparison: Comparison, buckets: Sequence[int]) -> str:
    if comparison.size is None:
        return f"{_bucket(comparison)} IN ({', '.join(map(str, buckets))})"
    start, size = identifier(comparison.time[0]), comparison.size
    terms = [
        f"({start} >= {_instant(bucket_start(first, size))} "
        f"AND {start} < {_instant(bucket_start(last + 1, size))})"
        for first, last in _runs(buckets)
    ]
    return f"({' OR '.join(terms)})"


def _runs(buckets: Sequence[int]) -> list[tuple[int, int]]:
    breaks = [i for i, (a, b) in enumerate(pairwise(buckets), 1) if b != a + 1]
    edges = [0, *breaks, len(buckets)]
    return [(buckets[a], buckets[b - 1]) for a, b in pairwise(edges)]


def _side(comparison: Comparison, table: StoredTable, buckets: Sequence[int]) -> str:
    where = _where([_within(comparison, buckets), *_bounds(comparison)])
    # The inner names are those of the table, so that bounds see its own column types.
    inner = f"SELECT *, {_bucket(comparison)} AS _bucket FROM {identifier(table.name)} FINAL{where}"
    # A key counts only where neither version has just written it, which no side knows alone.
    counts = f"toNullable({still(comparison, table)}) AS _still"
    return f"(SELECT {_nullable(table)}, toNullable(_bucket) AS _bucket, {counts} FROM ({inner}))"


def _nullable(table: StoredTable) -> str:
    # A missing row then reads as null, whatever the server's join_use_nulls.
    return ", ".join(f"toNullable({identifier(n)}) AS {identifier(n)}" for n in table.types)


def _flags(terms: Sequence[str]) -> str:
    return f"concat('', {', '.join(f'toString(toUInt8({t}))' for t in terms)})" if terms else "''"


def _value(side: str, column: ComparedColumn) -> str:
    present = column.in_old if side == "old" else column.in_new
    return f"{side}.{identifier(column.name)}" if present else "NULL"


def _differs(comparison: Comparison, column: ComparedColumn) -> str:
    old = _comparable(_value("old", column), column, comparison.old)
    new = _comparable(_value("new", column), column, comparison.new)
    return f"isNull({old}) != isNull({new}) OR ifNull({old} != {new}, 0)"


def _canonical(column: ComparedColumn, table: StoredTable, *, is_old: bool) -> str:
    if not (column.in_old if is_old else column.in_new):
        return "CAST(NULL, 'Nullable(String)')"
    return _comparable(identifier(column.name), column, table)


def _comparable(value: str, column: ComparedColumn, table: StoredTable) -> str:
    """Return `value` so that equal hashes and equal values mean the same."""
    if value == "NULL":
        return "CAST(NULL, 'Nullable(String)')"
    if column.as_text:
        return f"toString({value})"
    # By its bits a float that is no number equals itself.
    bits = {"Float64": "reinterpretAsUInt64", "Float32": "reinterpretAsUInt32"}
    convert = bits.get(_bare(table.types[column.name]))
    return f"{convert}({value})" if convert else value


def _has_end(comparison: Comparison) -> bool:
    return comparison.has_time and comparison.time[1] not in comparison.key


def _bare(kind: str) -> str:
    found = re.fullmatch(r"(?:Nullable|LowCardinality)\((.*)\)", kind)
    return _bare(found[1]) if found else kind


def _instant(moment: datetime) -> str:
    return f"fromUnixTimestamp64Milli(toInt64({(moment - _EPOCH) // _MS}), 'UTC')"
