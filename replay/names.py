"""What the public names of views show in ClickHouse: prepare them, switch them, settle them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime

from sinks.clickhouse import ClickHouse, ClickHouseFailed
from sinks.pointers import (
    create_pointers,
    newest_pointers,
    plain_view,
    point,
    switching_view,
)
from sinks.tables import INTERNAL_COLUMNS, TableColumn

NOTICE_SECONDS = 3
"""How far ahead a switch is announced. An announcement that takes longer does not count."""

_ATTEMPTS = 5
_PATIENCE_SECONDS = 10 * NOTICE_SECONDS
_INTERNAL = {column.name for column in INTERNAL_COLUMNS}


class NotSwitched(Exception):
    """A switch that could not be announced in time; nothing has changed."""


class MissingTable(LookupError):
    """A version of a view without a table to show."""


def prepare(clickhouse: ClickHouse, view: str, old: int, new: int, shown: int) -> None:
    """Let the public name read both versions, and show `shown` of them while no pointer counts.

    One that it shows already it goes on showing, also by a clock that is set back.
    """
    clickhouse.command(create_pointers())
    before, after = table_columns(clickhouse, view, old), table_columns(clickhouse, view, new)
    doc = _doc(clickhouse, f"{view}_v{new}")
    clickhouse.command(switching_view(view, (old, before), (new, after), doc, shown=shown))


def settle(clickhouse: ClickHouse, view: str, version: int) -> None:
    """Let the public name read `version` and nothing else."""
    columns = table_columns(clickhouse, view, version)
    doc = _doc(clickhouse, f"{view}_v{version}")
    clickhouse.command(plain_view(view, version, columns, doc))


def switch(clickhouse: ClickHouse, versions: Mapping[str, int], replay: int) -> int:
    """Let every view show its version from one second on, and return that second when it is over.

    All views switch for the same queries: those that begin then or later. Where the newest
    pointers say the same already, this only waits for their second. Raises `NotSwitched`.
    """
    for _ in range(_ATTEMPTS):
        found = _newest(clickhouse)
        newest = {view: found[view] for view in versions if view in found}
        _refuse_clock(clickhouse, newest)
        if all(newest.get(view, (0, 0))[0] == version for view, version in versions.items()):
            second = max(newest[view][1] for view in versions)
            _await_second(clickhouse, second)
            return second
        last = max((since for _, since in newest.values()), default=0)
        clickhouse.command(
            point(versions, max(_now(clickhouse) + NOTICE_SECONDS, last + 1), replay)
        )
    raise NotSwitched(
        f"ClickHouse took longer than {NOTICE_SECONDS} s to note a switch, {_ATTEMPTS} times; "
        "nothing has changed. Try again when it is less busy."
    )


def show(clickhouse: ClickHouse, versions: Mapping[str, int], replay: int) -> None:
    """Let every view show its version, whatever its name read so far.

    The pointers say so too: the next promotion or rollback goes by them.
    """
    for view, version in versions.items():
        table_columns(clickhouse, view, version)
    clickhouse.command(create_pointers())
    newest = _newest(clickhouse)
    # One that says so already may be of a clock that was set back since; nobody waits for that.
    if any(newest.get(view, (0, 0))[0] != version for view, version in versions.items()):
        switch(clickhouse, versions, replay)
    for view, version in versions.items():
        settle(clickhouse, view, version)


def _refuse_clock(clickhouse: ClickHouse, newest: Mapping[str, tuple[int, int]]) -> None:
    """Refuse to announce what would not be seen before a clock that was set back is there again."""
    now = _now(clickhouse)
    for view, (_, since) in newest.items():
        if since - now > _PATIENCE_SECONDS:
            raise NotSwitched(
                f"{view} last switched at {datetime.fromtimestamp(since, UTC):%Y-%m-%d %H:%M:%S} "
                f"UTC, and the clock of ClickHouse at {clickhouse.address} is {since - now:,} s "
                "behind that: it was set back. Nothing has changed; set it right, or try again "
                "when it is there."
            )


def announced(clickhouse: ClickHouse) -> dict[str, int]:
    """Return the version that each view shows once every announced switch is over."""
    clickhouse.command(create_pointers())
    return {view: version for view, (version, _) in _newest(clickhouse).items()}


def _newest(clickhouse: ClickHouse) -> dict[str, tuple[int, int]]:
    rows = clickhouse.query(newest_pointers()).rows
    return {view: (version, since) for view, version, since in rows}


def _await_second(clickhouse: ClickHouse, second: int) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while _now(clickhouse) < second:
        if time.monotonic() > deadline:
            raise ClickHouseFailed(f"the clock of ClickHouse at {clickhouse.address} stands still.")
        time.sleep(0.1)


def _now(clickhouse: ClickHouse) -> int:
    return int(clickhouse.query("SELECT toUnixTimestamp(now())").rows[0][0])


def table_columns(clickhouse: ClickHouse, view: str, version: int) -> tuple[TableColumn, ...]:
    """Return the columns of the view's table at `version`, in order, without the loader's own.

    Raises `MissingTable`.
    """
    table = f"{view}_v{version}"
    rows = clickhouse.query(
        "SELECT name, type, comment FROM system.columns"
        " WHERE database = %(database)s AND table = %(table)s ORDER BY position",
        {"database": clickhouse.database, "table": table},
    ).rows
    if not rows:
        raise MissingTable(
            f"there is no table {table}; the loader creates it once its job runs. See `kappa lag`."
        )
    return tuple(TableColumn(*row) for row in rows if row[0] not in _INTERNAL)


def _doc(clickhouse: ClickHouse, table: str) -> str:
    rows = clickhouse.query(
        "SELECT comment FROM system.tables WHERE database = %(database)s AND name = %(table)s",
        {"database": clickhouse.database, "table": table},
    ).rows
    return str(rows[0][0]) if rows else ""
