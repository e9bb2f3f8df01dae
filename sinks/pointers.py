"""Let one public name show one of two versions, so that many names switch at one instant. No I/O.

The table `view_pointers` says from which second on a view shows which version. A public view that
may switch reads both versions, each behind a condition that is constant within a query, so only
one of them is read. The condition compares with `initialQueryStartTime()`, which is the same
everywhere in a query: a query over two views finds both before a switch, or both after it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from sinks.sql import identifier, literal
from sinks.tables import TableColumn, column_list

POINTERS = "view_pointers"

_INTEGERS = ("Int32", "Int64")
_NUMBERS = (*_INTEGERS, "Float32", "Float64")


class VersionsDiffer(ValueError):
    """Two versions of a view that no query could read through one name."""


def create_pointers() -> str:
    """Return the statement that creates the table of pointers where it is missing."""
    columns = (
        TableColumn("view", "String", "Public name."),
        TableColumn("version", "UInt32", "The version it shows."),
        TableColumn("effective_from", "DateTime('UTC')", "For queries begun then or later."),
        TableColumn("replay", "UInt64", "The replay whose promotion or rollback this is."),
    )
    return "\n".join(
        (
            f"CREATE TABLE IF NOT EXISTS {identifier(POINTERS)}",
            column_list(columns),
            "ENGINE = MergeTree",
            "ORDER BY (`view`, `effective_from`)",
            f"COMMENT {literal('Which version of a view its public name shows, and since when.')}",
        )
    )


def point(versions: Mapping[str, int], effective_from: int, replay: int) -> str:
    """Return the statement that makes every view of `versions` show its version from then on.

    `effective_from` is in epoch seconds. All rows come to be in one insert, or none where less
    than a second is left: a query may have begun already that ought to see them.
    """
    pairs = ", ".join(f"({literal(view)}, {version})" for view, version in versions.items())
    return (
        f"INSERT INTO {identifier(POINTERS)} "
        f"SELECT p.1, p.2, toDateTime({effective_from}, 'UTC'), {replay} "
        f"FROM (SELECT arrayJoin([{pairs}]) AS p) "
        f"WHERE now64(3) < toDateTime64({effective_from} - 1, 3, 'UTC')"
    )


def newest_pointers() -> str:
    """Return the query for view, version and start (epoch s) of each view's newest pointer."""
    return (
        "SELECT view, argMax(version, effective_from), toUnixTimestamp(max(effective_from)) "
        f"FROM {identifier(POINTERS)} GROUP BY view"
    )


def effective_pointers() -> str:
    """Return the query for the version that each view shows in this query."""
    return (
        f"SELECT view, argMax(version, effective_from) FROM {identifier(POINTERS)} "
        "WHERE effective_from <= initialQueryStartTime() GROUP BY view"
    )


def switching_view(
    view: str,
    old: tuple[int, Sequence[TableColumn]],
    new: tuple[int, Sequence[TableColumn]],
    doc: str,
    *,
    shown: int | None = None,
) -> str:
    """Return the statement that lets `view` show what its pointer says.

    Without one it shows the version `shown`, which is `old` or `new`; by default `old`. Each is a
    version and its columns. A column that one version lacks is null there. Raises
    `VersionsDiffer`.
    """
    columns = joint_columns(view, old[1], new[1])
    first, second = (new, old) if shown == new[0] else (old, new)
    chosen = (
        f"(SELECT argMax(version, effective_from) FROM {identifier(POINTERS)} "
        f"WHERE view = {literal(view)} AND effective_from <= initialQueryStartTime())"
    )
    branches = (
        f"{_select(view, *first, columns)} WHERE {chosen} != {second[0]}",
        f"{_select(view, *second, columns)} WHERE {chosen} = {second[0]}",
    )
    body = "\nUNION ALL\n".join(branches)
    return _create(view, columns, body, f"Version {first[0]} or {second[0]}.", doc)


def plain_view(view: str, version: int, columns: Sequence[TableColumn], doc: str) -> str:
    """Return the statement that lets `view` show `version`, whatever its pointer says."""
    body = _select(view, version, columns, tuple(columns))
    return _create(view, tuple(columns), body, f"Version {version}.", doc)


def joint_columns(
    view: str, old: Sequence[TableColumn], new: Sequence[TableColumn]
) -> tuple[TableColumn, ...]:
    """Return the columns of both versions, the new one's first, each with a type for both."""
    before = {column.name: column for column in old}
    after = {column.name: column for column in new}
    columns = []
    for name in dict.fromkeys((*after, *before)):
        shown = after.get(name) or before[name]
        if name in before and name in after:
            kind = _common_type(f"{view}.{name}", before[name].type, after[name].type)
        else:
            kind = _nullable(shown.type)
        columns.append(TableColumn(name, kind, shown.doc))
    return tuple(columns)


def versions_in(comment: str) -> tuple[int, ...]:
    """Return the versions that a public view's comment names, the one without pointer first."""
    found = re.match(r"Version ([0-9]+)(?: or ([0-9]+))?\.", comment)
    return tuple(int(number) for number in found.groups() if number) if found else ()


def _create(view: str, columns: tuple[TableColumn, ...], body: str, versions: str, doc: str) -> str:
    return "\n".join(
        (
            f"CREATE OR REPLACE VIEW {identifier(view)}",
            column_list(columns),
            f"AS {body}",
            f"COMMENT {literal(f'{versions} {doc}'.rstrip())}",
        )
    )


def _select(
    view: str, version: int, own: Sequence[TableColumn], wanted: tuple[TableColumn, ...]
) -> str:
    present = {column.name: column.type for column in own}
    shown = ", ".join(_value(column, present.get(column.name)) for column in wanted)
    return f"SELECT {shown} FROM {identifier(f'{view}_v{version}')} FINAL"


def _value(column: TableColumn, present: str | None) -> str:
    name = identifier(column.name)
    if present is None:
        return f"CAST(NULL AS {column.type}) AS {name}"
    return name if present == column.type else f"CAST({name} AS {column.type}) AS {name}"


def _nullable(kind: str) -> str:
    return kind if kind.startswith("Nullable(") else f"Nullable({kind})"


def _common_type(subject: str, old: str, new: str) -> str:
    if old == new:
        return new
    bare = [
        kind.removeprefix("Nullable(").removesuffix(")" if "Nullable(" in kind else "")
        for kind in (old, new)
    ]
    if bare[0] == bare[1]:
        joint = bare[0]
    elif all(kind in _INTEGERS for kind in bare):
        joint = "Int64"
    elif all(kind in _NUMBERS for kind in bare):
        joint = "Float64"
    else:
        raise VersionsDiffer(
            f"{subject} was {old} and is {new}, which no query can read through one name; give "
            "the changed column a name of its own."
        )
    return f"Nullable({joint})" if "Nullable(" in old + new else joint
