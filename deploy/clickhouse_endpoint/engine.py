"""Run statements in the embedded engine; the only module that touches chDB.

A chDB connection is a session of its own over the one engine of the process, and connections run
at the same time. Idle ones wait here for a request that wants the same settings.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import chdb

from deploy.clickhouse_endpoint.context import Context
from deploy.clickhouse_endpoint.errors import from_engine

_CHUNK_BYTES = 1024 * 1024
_FAILURES = (chdb.ChdbError, RuntimeError)
_tags = itertools.count(1)


class Result:
    """A whole answer in the wanted format, and its counts."""

    def __init__(self, result: Any) -> None:
        # A copy: chDB's own view of the answer does not keep the engine's memory alive.
        self._view = memoryview(result.bytes() or b"")
        self.size = len(self._view)
        self.read_rows = int(result.storage_rows_read() or 0)
        self.read_bytes = int(result.storage_bytes_read() or 0)
        self.written_rows = int(result.rows_written() or 0)
        self.written_bytes = int(result.bytes_written() or 0)
        self.result_rows = int(result.rows_read() or 0)
        self.seconds = float(result.elapsed() or 0.0)

    def chunks(self) -> Iterator[bytes]:
        """Yield the answer in pieces of a megabyte."""
        for start in range(0, self.size, _CHUNK_BYTES):
            yield bytes(self._view[start : start + _CHUNK_BYTES])

    def replace(self, change: Callable[[bytes], bytes]) -> None:
        """Put what `change` makes of the answer in its place."""
        self._view = memoryview(change(bytes(self._view)))
        self.size = len(self._view)

    def text(self) -> str:
        """Return the answer as text without the last line end."""
        return b"".join(self.chunks()).decode().removesuffix("\n")


def quote(text: str) -> str:
    """Return `text` as a ClickHouse string literal."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def quote_name(name: str) -> str:
    """Return `name` as a ClickHouse identifier."""
    escaped = name.replace("\\", "\\\\").replace("`", "\\`")
    return f"`{escaped}`"


class Connection:
    """One chDB session, used by one thread at a time.

    `tag` is unique in the process; another connection can cancel what runs here by it. `usable`
    turns false when the session may not be used again.
    """

    def __init__(self, path: Path) -> None:
        self.tag = f"connection-{next(_tags)}"
        self.usable = True
        self._connection = chdb.connect(str(path))
        self.set({"log_comment": self.tag})

    def run(
        self,
        sql: str | bytes,
        output_format: str = "TabSeparated",
        parameters: Mapping[str, str] | None = None,
    ) -> Result:
        """Run one statement and return its whole answer; raises QueryError."""
        try:
            return Result(self._connection.query(sql, output_format, params=dict(parameters or {})))
        except _FAILURES as error:
            self._forget_output()
            raise from_engine(str(error)) from None

    def _forget_output(self) -> None:
        """Drop what a failed statement wrote: chDB puts it before the next one's answer."""
        try:
            self._connection.query("SELECT 1", "Null")
            self.usable = self._connection.query("SELECT 1", "TabSeparated").bytes() == b"1\n"
        except _FAILURES:
            self.usable = False

    def stream(
        self, sql: str | bytes, output_format: str, parameters: Mapping[str, str] | None = None
    ) -> Generator[bytes, None, None]:
        """Run one reading statement and yield its answer block by block; raises QueryError.

        Every block is a whole file of the format, so the format must be one without a head.
        Closing the iterator cancels the query.
        """
        try:
            stream = self._connection.send_query(sql, output_format, params=dict(parameters or {}))
        except _FAILURES as error:
            raise from_engine(str(error)) from None
        try:
            for block in stream:
                yield block.bytes()
        except _FAILURES as error:
            raise from_engine(str(error)) from None
        finally:
            with suppress(*_FAILURES):
                stream.close()

    def set(self, settings: Mapping[str, str | None]) -> None:
        """Change settings of the session, None for the default; raises QueryError."""
        for name, value in settings.items():
            self.run(f"SET {name} = {'DEFAULT' if value is None else quote(value)}")

    def use(self, database: str) -> None:
        """Make `database` the one that names without a database belong to; raises QueryError."""
        self.run(f"USE {quote_name(database)}")

    def apply(self, context: Context) -> None:
        """Set a new session to `context`; raises QueryError for an unknown setting."""
        if context.database:
            self.use(context.database)
        if context.settings:
            pairs = ", ".join(f"{name} = {quote(value)}" for name, value in context.settings)
            self.run(f"SET {pairs}")
        if context.readonly:
            self.run(f"SET readonly = {context.readonly}")

    def close(self) -> None:
        """End the session."""
        self._connection.close()


@dataclass(frozen=True)
class About:
    """What the engine says of itself."""

    version: str
    timezone: str
    table_functions: frozenset[str]


class Engine:
    """The process's one engine and its idle connections."""

    def __init__(self, path: Path, idle_limit: int = 32) -> None:
        self._path = path
        self._idle_limit = idle_limit
        self._database = "default"
        self._lock = threading.Lock()
        self._idle: OrderedDict[Connection, Context] = OrderedDict()
        self._keeper: Connection | None = None
        self._keeper_lock = threading.Lock()

    def open(self, database: str) -> About:
        """Start the engine, create `database` and return what the engine says of itself."""
        self._path.mkdir(parents=True, exist_ok=True)
        keeper = self._keeper = Connection(self._path)
        _replace_default_database(keeper, self._path)
        keeper.run(f"CREATE DATABASE IF NOT EXISTS {quote_name(database)}")
        self._database = database
        names = keeper.run("SELECT name FROM system.table_functions").text().split("\n")
        version, timezone = keeper.run("SELECT version(), timezone()").text().split("\t")
        return About(version, timezone, frozenset(names))

    def connect(self) -> Connection:
        """Return a connection that the caller closes, in the database given to `open`."""
        connection = Connection(self._path)
        connection.use(self._database)
        return connection

    def _connect_to(self, context: Context) -> Connection:
        connection = self.connect()
        try:
            connection.apply(context)
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def connection(self, context: Context, *, keep: bool) -> Iterator[Connection]:
        """Lend a connection set to `context`.

        `keep` says that the statement leaves no trace in its session.
        """
        connection = self._take(context) or self._connect_to(context)
        try:
            yield connection
        except BaseException:
            keep = False
            raise
        finally:
            self._give_back(context, connection, keep=keep)

    def _take(self, context: Context) -> Connection | None:
        with self._lock:
            found = next((one for one in reversed(self._idle) if self._idle[one] == context), None)
            if found is not None:
                del self._idle[found]
            return found

    def _give_back(self, context: Context, connection: Connection, *, keep: bool) -> None:
        surplus = [] if keep else [connection]
        with self._lock:
            if keep:
                self._idle[connection] = context
            while len(self._idle) > self._idle_limit:
                surplus.append(self._idle.popitem(last=False)[0])
        for each in surplus:
            each.close()

    def cancel(self, tag: str) -> None:
        """Cancel what runs on the connection of that tag; it then fails with an error."""
        with self._keeper_lock:
            if self._keeper is not None:
                self._keeper.run(f"KILL QUERY WHERE Settings['log_comment'] = {quote(tag)} ASYNC")

    def close(self) -> None:
        """Close every idle connection, which ends the engine when no other one is left."""
        with self._lock:
            idle = list(self._idle)
            self._idle.clear()
        with self._keeper_lock:
            keeper, self._keeper = self._keeper, None
        for connection in [*idle, keeper]:
            if connection is not None:
                connection.close()


def _replace_default_database(connection: Connection, path: Path) -> None:
    """Make the database `default` an ordinary one, with the tables it had.

    chDB lays one over it at each start in which every path of the machine is a table.
    """
    tables = "SELECT count() FROM system.tables WHERE database = 'default'"
    declared = path / "metadata" / "default.sql"
    if connection.run(tables).text() == "0":
        connection.run("DROP DATABASE default")
        declared.unlink(missing_ok=True)
        connection.run("CREATE DATABASE default ENGINE = Atomic")
    elif declared.exists():
        connection.run("DETACH DATABASE default")
        connection.run("ATTACH DATABASE default")
