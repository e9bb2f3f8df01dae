"""What people ask of ClickHouse, and what to tell them when it refuses."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from deploy.console import CommandError
from sinks.clickhouse import (
    BAD_PASSWORD,
    READ_ONLY,
    UNKNOWN_DATABASE,
    UNKNOWN_TABLE,
    ClickHouse,
    ClickHouseFailed,
)
from sinks.dead_letters import DEAD_LETTERS, LATE_EVENTS
from sinks.pointers import POINTERS, effective_pointers, versions_in
from sinks.sql import identifier, literal
from sinks.tables import EMITTED_AT
from udfs.windows import MISSED_AT

IS_MISSED = f"(position(source_partition, {literal(MISSED_AT)}) > 0)"
"""Whether a row of an accounting tells of events that were missed, and not of those aggregated."""

_NOT_LOADED = "nothing is loaded yet: start a job with kappa submit, and kappa up for the loader."


@dataclass(frozen=True)
class LoadedTable:
    """A table with the rows of one version; `public` says whether its name shows these rows."""

    name: str
    version: int | None
    public: bool
    table: str
    rows: int
    newest: datetime | None
    age_seconds: float | None


@contextmanager
def failures_explained(clickhouse: ClickHouse) -> Iterator[None]:
    """Turn a failed statement into one sentence that says what to do."""
    try:
        yield
    except ClickHouseFailed as error:
        raise CommandError(_explanation(clickhouse, error)) from error


def loaded_tables(clickhouse: ClickHouse, now: datetime) -> list[LoadedTable]:
    """Return every loaded table, those of one view by version."""
    comments, stored = _views_and_tables(clickhouse)
    public = dict.fromkeys(comments) | _shown(clickhouse, comments, stored)
    return [
        _measured(clickhouse, *place, public, now)
        for place in sorted(filter(None, map(_view_and_version, stored)))
    ]


def public_versions(clickhouse: ClickHouse) -> dict[str, int]:
    """Return the version that each view's public name shows now."""
    return _shown(clickhouse, *_views_and_tables(clickhouse))


def _views_and_tables(clickhouse: ClickHouse) -> tuple[dict[str, str], list[str]]:
    """Return the comment of each public view by name, and the names of all tables."""
    found = clickhouse.query(
        "SELECT name, comment, engine = 'View' FROM system.tables WHERE database = %(database)s",
        {"database": clickhouse.database},
    )
    comments = {name: comment for name, comment, is_view in found.rows if is_view}
    return comments, [name for name, _, is_view in found.rows if not is_view]


def _shown(
    clickhouse: ClickHouse, comments: Mapping[str, str], tables: Collection[str]
) -> dict[str, int]:
    pointed: dict[str, int] = {}
    if POINTERS in tables:
        pointed = dict(clickhouse.query(effective_pointers()).rows)
    named = {name: versions_in(comment) for name, comment in comments.items()}
    return {
        name: pointed[name] if pointed.get(name) in versions else versions[0]
        for name, versions in named.items()
        if versions
    }


def explain_unknown_table(message: str, names: Iterable[str]) -> str:
    """Return what to tell somebody who asked for a table that is not among `names`."""
    asked = _table_in(message)
    known = sorted(names)
    if not known:
        return f'there is no table "{asked}"; {_NOT_LOADED}'
    near = difflib.get_close_matches(asked, known, n=1, cutoff=0.4)
    if near:
        return f'there is no table "{asked}"; did you mean "{near[0]}"?'
    return f'there is no table "{asked}"; there are: {", ".join(known)}.'


def _explanation(clickhouse: ClickHouse, error: ClickHouseFailed) -> str:
    message = str(error)
    if error.code == UNKNOWN_TABLE:
        return explain_unknown_table(message, clickhouse.table_ids())
    if error.code == UNKNOWN_DATABASE:
        return f"there is no database {clickhouse.database}; {_NOT_LOADED}"
    if error.code == READ_ONLY:
        return "this command only reads; its user may not change data or settings."
    if error.code == BAD_PASSWORD:
        return (
            f"ClickHouse at {clickhouse.address} refuses user and password; set "
            "KAPPA_CLICKHOUSE_READER and KAPPA_CLICKHOUSE_READER_PASSWORD."
        )
    if "FORMAT Native" in message or "FORMAT CSVWithNames" in message:
        return "leave out FORMAT from the query; --json and --csv choose the output."
    if not error.code:
        return message
    return f"ClickHouse refuses the query: {message}"


def _table_in(message: str) -> str:
    found = re.search(r"identifier '([^']+)'|[Tt]able `?([^` ]+)`? does(?:n't| not) exist", message)
    name = (found[1] or found[2]) if found else message
    return name.rpartition(".")[2].strip("`")


def _view_and_version(table: str) -> tuple[str, int, str] | None:
    for raw in (DEAD_LETTERS, LATE_EVENTS):
        if table == raw.table:
            return raw.name, 0, table
    found = re.fullmatch(r"(.+)_v([0-9]+)", table)
    return (found[1], int(found[2]), table) if found else None


def _measured(
    clickhouse: ClickHouse,
    name: str,
    version: int,
    table: str,
    public: Mapping[str, int | None],
    now: datetime,
) -> LoadedTable:
    newest_if_any = f"maxOrNull({identifier(EMITTED_AT)})"
    answer = clickhouse.query(f"SELECT count(), {newest_if_any} FROM {identifier(table)} FINAL")
    rows, newest = answer.rows[0]
    return LoadedTable(
        name=name,
        version=version or None,
        public=name in public and public[name] == (version or None),
        table=table,
        rows=rows,
        newest=newest,
        age_seconds=None if newest is None else (now - newest).total_seconds(),
    )
