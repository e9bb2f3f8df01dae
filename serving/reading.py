"""Ask ClickHouse, as the user who may only read, from several threads at once."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from deploy.settings import Settings
from serving.catalogue import StoredTable, ViewColumn, ViewInfo, catalogue
from serving.errors import ApiError
from sinks.clickhouse import UNKNOWN_DATABASE, ClickHouse, ClickHouseFailed
from sinks.queries import public_versions

QUERY_SECONDS = 10.0
_CONCURRENT = 8
_WAIT_SECONDS = 3.0
_CATALOGUE_SECONDS = 1.0


def read_catalogue(clickhouse: ClickHouse) -> dict[str, ViewInfo]:
    """Return every public view by name; none where the database does not exist yet."""
    where = {"database": clickhouse.database}
    try:
        tables = clickhouse.query(
            "SELECT name, engine = 'View', comment, sorting_key, ifNull(total_rows, 0)"
            " FROM system.tables WHERE database = {database:String}",
            where,
        ).rows
        columns = clickhouse.query(
            "SELECT table, name, type, comment FROM system.columns"
            " WHERE database = {database:String} ORDER BY table, position",
            where,
        ).rows
        shown = public_versions(clickhouse)
    except ClickHouseFailed as error:
        if error.code == UNKNOWN_DATABASE:
            return {}
        raise
    by_table: dict[str, tuple[ViewColumn, ...]] = {}
    for table, *column in columns:
        by_table[table] = (*by_table.get(table, ()), ViewColumn(*column))
    return catalogue((StoredTable(*row) for row in tables), by_table, shown)


class Readers:
    """A few connections that requests share; who finds none free in time is told so."""

    def __init__(self, settings: Settings) -> None:
        self.database = settings.database
        self._free: queue.LifoQueue[ClickHouse] = queue.LifoQueue()
        for _ in range(_CONCURRENT):
            self._free.put(ClickHouse(settings, reader=True, timeout=QUERY_SECONDS))
        self._lock = threading.Lock()
        self._known: tuple[float, dict[str, ViewInfo]] = (float("-inf"), {})

    @contextmanager
    def lend(self) -> Iterator[ClickHouse]:
        """Give a connection for a moment; raises `ApiError` where all are taken or it fails."""
        try:
            clickhouse = self._free.get(timeout=_WAIT_SECONDS)
        except queue.Empty:
            raise ApiError(503, "Too many queries run at once; ask again.", 1) from None
        try:
            yield clickhouse
        except ClickHouseFailed as error:
            # With a code it is an answer, and so a fault of ours; without, there was none.
            status = 500 if error.code else 503
            raise ApiError(status, f"{str(error)[:1].upper()}{str(error)[1:]}", 2) from error
        finally:
            self._free.put(clickhouse)

    def views(self, needed: str = "") -> dict[str, ViewInfo]:
        """Return every public view by name, as of now if `needed` is new, else of a second ago."""
        with self._lock:
            since, known = self._known
            fresh = time.monotonic() - since < _CATALOGUE_SECONDS
            if fresh and (not needed or needed in known):
                return known
            with self.lend() as clickhouse:
                known = read_catalogue(clickhouse)
            self._known = (time.monotonic(), known)
            return known

    def close(self) -> None:
        """Give back the connections that are free."""
        while not self._free.empty():
            self._free.get_nowait().close()
