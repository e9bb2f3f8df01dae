"""Ask ClickHouse, as the user who may only read, from several threads at once."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pyarrow as pa
from anyio import CapacityLimiter, to_thread

from deploy.settings import Settings
from serving.catalogue import StoredTable, ViewColumn, ViewInfo, catalogue
from serving.errors import ApiError, bad_request
from sinks.clickhouse import (
    NO_MEMORY,
    READ_ONLY,
    TOO_MANY_QUERIES,
    TOO_MUCH,
    TOO_SLOW,
    UNKNOWN_DATABASE,
    ClickHouse,
    ClickHouseFailed,
)
from sinks.cluster import keyed
from sinks.queries import public_versions
from sinks.sql import identifier, literal

QUERY_SECONDS = 10.0
MAX_ANSWER_BYTES = 16_000_000
"""What the values of an answer may have together, as ClickHouse holds them in memory."""
# Less than the wait for an answer, so that ClickHouse can still say why there is none.
_EXECUTION_SECONDS = 8
_CONCURRENT = 8
_WAIT_SECONDS = 3.0
_CATALOGUE_SECONDS = 1.0

Result = TypeVar("Result")


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
    stored = [StoredTable(*row) for row in tables]
    return catalogue(stored, by_table, shown, _rows_of_all_shards(clickhouse, stored))


def _rows_of_all_shards(clickhouse: ClickHouse, tables: list[StoredTable]) -> dict[str, int]:
    """Return the rows of each table that is spread over a cluster, which itself knows none."""
    names = {table.name for table in tables}
    counts = [
        f"SELECT {literal(table.name)}, count() FROM {identifier(table.name)}"
        for table in tables
        if keyed(table.name, names) != table.name
    ]
    return dict(clickhouse.query(" UNION ALL ".join(counts)).rows) if counts else {}


@dataclass(frozen=True)
class _Known:
    """What a reading of the catalogue brought, and when it began and ended (monotonic seconds)."""

    began: float = float("-inf")
    ended: float = float("-inf")
    views: dict[str, ViewInfo] = field(default_factory=dict)
    failure: ApiError | None = None


class Readers:
    """A few connections that requests share; who finds none free in time is told so."""

    def __init__(self, settings: Settings) -> None:
        self.database = settings.database
        self._free: queue.LifoQueue[ClickHouse] = queue.LifoQueue()
        for _ in range(_CONCURRENT):
            self._free.put(ClickHouse(settings, reader=True, timeout=QUERY_SECONDS))
        self._places = asyncio.Semaphore(_CONCURRENT)
        self._lock = threading.Lock()
        self._known = _Known()

    async def work(self, answer: Callable[[], Result]) -> Result:
        """Return what `answer` does, run in one of a few threads that only queries have.

        Whatever needs no ClickHouse is served by other threads, and so also while it hangs.
        Raises `ApiError` where all are taken.
        """
        try:
            await asyncio.wait_for(self._places.acquire(), _WAIT_SECONDS)
        except TimeoutError:
            raise _busy() from None
        try:
            return await to_thread.run_sync(answer, limiter=CapacityLimiter(1))
        finally:
            self._places.release()

    def rows(self, sql: str, parameters: Mapping[str, Any], most: int) -> pa.Table:
        """Return the rows of `sql`, `most` at most; raises `ApiError` for what costs too much."""
        limits: dict[str, int | str] = {
            "max_execution_time": _EXECUTION_SECONDS,
            "max_result_rows": most,
            "max_result_bytes": MAX_ANSWER_BYTES,
            "result_overflow_mode": "throw",
            # Without it a limit may be reached when a part of the answer is already sent.
            "wait_end_of_query": 1,
        }
        with self._lend() as clickhouse:
            return clickhouse.arrow(sql, parameters, limits)

    def views(self, wait_seconds: float = _WAIT_SECONDS) -> dict[str, ViewInfo]:
        """Return every public view by name, as of a second ago at most; raises `ApiError`.

        That reading them failed is known as long, so that a failing ClickHouse is asked once a
        second, and one that hangs by one thread, for which others wait for `wait_seconds`.
        """
        asked = time.monotonic()
        if not self._lock.acquire(timeout=wait_seconds):
            raise ApiError(503, "ClickHouse takes long to name its views; ask again.", 1)
        try:
            known = self._known
            if known.began < asked and time.monotonic() - known.ended >= _CATALOGUE_SECONDS:
                known = self._known = self._read_catalogue()
        finally:
            self._lock.release()
        if known.failure is not None:
            raise ApiError(known.failure.status, str(known.failure), known.failure.retry_after)
        return known.views

    def _read_catalogue(self) -> _Known:
        began, failure, views = time.monotonic(), None, {}
        try:
            with self._lend() as clickhouse:
                views = read_catalogue(clickhouse)
        except ApiError as error:
            failure = error
        return _Known(began, time.monotonic(), views, failure)

    @contextmanager
    def _lend(self) -> Iterator[ClickHouse]:
        """Give a connection for a moment; raises `ApiError` where all are taken or it fails."""
        try:
            clickhouse = self._free.get(timeout=_WAIT_SECONDS)
        except queue.Empty:
            raise _busy() from None
        try:
            yield clickhouse
        except ClickHouseFailed as error:
            raise _as_api_error(error) from error
        finally:
            self._free.put(clickhouse)

    def close(self) -> None:
        """Give back the connections that are free."""
        while not self._free.empty():
            self._free.get_nowait().close()


def _busy() -> ApiError:
    return ApiError(503, "Too many queries run at once; ask again.", 1)


def _as_api_error(error: ClickHouseFailed) -> ApiError:
    if error.code == TOO_MUCH:
        return bad_request(
            f"The answer has more than {MAX_ANSWER_BYTES // 1_000_000} MB; ask for fewer rows "
            "with limit, and page on with the cursor."
        )
    if error.code == TOO_SLOW:
        return bad_request(
            f"The query takes longer than {_EXECUTION_SECONDS} s; ask for a shorter time or by key."
        )
    if error.code == NO_MEMORY:
        return bad_request(
            "The query needs more memory than it may have; ask for fewer rows, for a shorter time "
            "or by key."
        )
    if error.code == TOO_MANY_QUERIES:
        return _busy()
    if error.code == READ_ONLY:
        sentence = "ClickHouse's reader may not bound its queries; its profile needs readonly = 2."
        return ApiError(500, sentence)
    # With a code it is an answer, and so a fault of ours; without, there was none.
    status = 500 if error.code else 503
    return ApiError(status, f"{str(error)[:1].upper()}{str(error)[1:]}", 2)
