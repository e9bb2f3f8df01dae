"""Run statements in the embedded engine; the only module that touches chDB.

A chDB connection is a session of its own over the one engine of the process, and connections run
at the same time. Idle ones wait here for a request that wants the same user and settings.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import chdb

from deploy.clickhouse_endpoint.errors import from_engine


@dataclass(frozen=True)
class Context:
    """What a connection is set to before a statement runs: its database and settings, in order.

    `readonly` is ClickHouse's setting of that name and is set last, so that the engine itself
    refuses whatever a statement tries to change afterwards.
    """

    database: str
    settings: tuple[tuple[str, str], ...] = ()
    readonly: int = 0


@dataclass(frozen=True)
class Result:
    """Bytes of an answer in the wanted format, with the engine's counts."""

    body: bytes
    read_rows: int
    read_bytes: int
    written_rows: int
    written_bytes: int
    seconds: float


def quote(text: str) -> str:
    """Return `text` as a ClickHouse string literal."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def quote_name(name: str) -> str:
    """Return `name` as a ClickHouse identifier."""
    escaped = name.replace("\\", "\\\\").replace("`", "\\`")
    return f"`{escaped}`"


class Connection:
    """One chDB session, used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._connection = chdb.connect(str(path))

    def run(
        self,
        sql: str | bytes,
        output_format: str = "TabSeparated",
        parameters: Mapping[str, str] | None = None,
    ) -> Result:
        """Run one statement and return its whole answer; raises QueryError."""
        try:
            result = self._connection.query(sql, output_format, params=dict(parameters or {}))
        except (chdb.ChdbError, RuntimeError) as error:
            raise from_engine(str(error)) from error
        return Result(
            result.bytes() or b"",
            result.storage_rows_read() or 0,
            result.storage_bytes_read() or 0,
            result.rows_written() or 0,
            result.bytes_written() or 0,
            result.elapsed() or 0.0,
        )

    def stream(
        self, sql: str | bytes, output_format: str, parameters: Mapping[str, str] | None = None
    ) -> Iterator[bytes]:
        """Run one reading statement and yield its answer block by block; raises QueryError."""
        stream: Any = None
        try:
            stream = self._connection.send_query(sql, output_format, params=dict(parameters or {}))
            for block in stream:
                yield block.bytes()
        except (chdb.ChdbError, RuntimeError) as error:
            raise from_engine(str(error)) from error
        finally:
            if stream is not None:
                stream.close()

    def apply(self, context: Context) -> None:
        """Set the connection to `context`; raises QueryError for an unknown setting."""
        if context.database:
            self.run(f"USE {quote_name(context.database)}")
        if context.settings:
            pairs = ", ".join(f"{name} = {quote(value)}" for name, value in context.settings)
            self.run(f"SET {pairs}")
        if context.readonly:
            self.run(f"SET readonly = {context.readonly}")

    def close(self) -> None:
        """End the session."""
        self._connection.close()


@dataclass
class Engine:
    """The process's engine and its idle connections."""

    path: Path
    idle_limit: int = 32
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _idle: OrderedDict[int, tuple[Context, Connection]] = field(default_factory=OrderedDict)
    _keeper: Connection | None = None

    def open(self, database: str) -> str:
        """Start the engine, create `database` and return the engine's version."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._keeper = Connection(self.path)
        self._keeper.run(f"CREATE DATABASE IF NOT EXISTS {quote_name(database)}")
        return self._keeper.run("SELECT version()").body.decode().strip()

    def connect(self) -> Connection:
        """Return a connection of its own, which the caller closes."""
        return Connection(self.path)

    @contextmanager
    def connection(self, context: Context, *, keep: bool) -> Iterator[Connection]:
        """Lend a connection set to `context`; `keep` says that the statement leaves no trace."""
        connection = self._take(context)
        try:
            if connection is None:
                connection = self.connect()
                connection.apply(context)
            yield connection
        except BaseException:
            keep = False
            raise
        finally:
            if connection is not None:
                self._give_back(context, connection, keep=keep)

    def _take(self, context: Context) -> Connection | None:
        with self._lock:
            for key, (found, connection) in reversed(self._idle.items()):
                if found == context:
                    del self._idle[key]
                    return connection
        return None

    def _give_back(self, context: Context, connection: Connection, *, keep: bool) -> None:
        surplus = [] if keep else [connection]
        with self._lock:
            if keep:
                self._idle[id(connection)] = (context, connection)
            while len(self._idle) > self.idle_limit:
                surplus.append(self._idle.popitem(last=False)[1][1])
        for each in surplus:
            each.close()

    def close(self) -> None:
        """Close every connection, which ends the engine."""
        with self._lock:
            idle = [connection for _, connection in self._idle.values()]
            self._idle.clear()
        for connection in idle:
            connection.close()
        if self._keeper is not None:
            self._keeper.close()
            self._keeper = None
