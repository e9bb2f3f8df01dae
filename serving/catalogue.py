"""Which views there are, as ClickHouse's own tables tell: columns, key, version. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sinks.cluster import keyed

# In this order; a view without any of them is asked by the first timestamp of its key.
_TIME_COLUMNS = ("window_start", "session_start", "event_time", "timestamp", "last_seen")
_STORED = re.compile(r"(.+)_v([0-9]+)")


@dataclass(frozen=True)
class ViewColumn:
    """One column of a view; `type` is ClickHouse's name of it."""

    name: str
    type: str
    doc: str = ""

    @property
    def plain_type(self) -> str:
        """The type without Nullable and LowCardinality."""
        found = re.fullmatch(r"(?:Nullable|LowCardinality)\((.*)\)", self.type)
        return ViewColumn(self.name, found[1]).plain_type if found else self.type

    @property
    def nullable(self) -> bool:
        """Whether a value may be missing."""
        return "Nullable(" in self.type

    @property
    def is_time(self) -> bool:
        """Whether the values are instants."""
        return self.plain_type.startswith("DateTime")


@dataclass(frozen=True)
class ViewInfo:
    """A view that people may query, and the stored table behind it.

    `version` is the one its name shows, None for what has no versions. `stored_rows` counts
    revisions that are not merged yet too.
    """

    name: str
    doc: str
    version: int | None
    versions: tuple[int, ...]
    table: str
    key: tuple[str, ...]
    columns: tuple[ViewColumn, ...]
    stored_rows: int

    @property
    def by_name(self) -> dict[str, ViewColumn]:
        """The columns by their names."""
        return {column.name: column for column in self.columns}

    @property
    def time_column(self) -> str | None:
        """The column that a time range looks at."""
        times = [column.name for column in self.columns if column.is_time]
        wanted = (*_TIME_COLUMNS, *self.key, *times)
        return next((name for name in wanted if name in times), None)

    def has(self, *names: str) -> bool:
        """Whether the view has all columns of `names`."""
        return set(names) <= set(self.by_name)


@dataclass(frozen=True)
class StoredTable:
    """A row of `system.tables`; `sorting_key` as ClickHouse writes it."""

    name: str
    is_view: bool
    comment: str
    sorting_key: str
    rows: int


def catalogue(
    tables: Iterable[StoredTable],
    columns: Mapping[str, tuple[ViewColumn, ...]],
    shown: Mapping[str, int],
    counted: Mapping[str, int],
) -> dict[str, ViewInfo]:
    """Return every public view by name.

    `columns` are by table, `shown` is the version of each view, and `counted` has the rows of the
    tables that do not know them themselves. A table that is spread over a cluster has the key of
    its local part.
    """
    by_name = {table.name: table for table in tables}
    versions = _versions(name for name, table in by_name.items() if not table.is_view)
    found = {}
    for name, public in sorted(by_name.items()):
        version = shown.get(name)
        table = by_name.get(f"{name}_v{version}" if version else f"{name}_loaded")
        if not public.is_view or table is None:
            continue
        found[name] = ViewInfo(
            name=name,
            doc=re.sub(r"^Version [0-9]+( or [0-9]+)?\.\s*", "", public.comment),
            version=version,
            versions=versions.get(name, ()),
            table=table.name,
            key=_key(by_name[keyed(table.name, by_name)].sorting_key),
            columns=columns.get(name, ()),
            stored_rows=counted.get(table.name, table.rows),
        )
    return found


def _versions(tables: Iterable[str]) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for stored in filter(None, map(_STORED.fullmatch, sorted(tables))):
        found[stored[1]] = tuple(sorted((*found.get(stored[1], ()), int(stored[2]))))
    return found


def _key(sorting_key: str) -> tuple[str, ...]:
    # A key of one column keeps the brackets of its declaration.
    names = sorting_key.removeprefix("(").removesuffix(")").split(",")
    return tuple(name.strip().strip("`") for name in names if name.strip())
