"""Talk to ClickHouse over HTTP; nothing else in this room does."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import clickhouse_connect
import clickhouse_connect.common
import pyarrow as pa
import urllib3
from clickhouse_connect.driver.exceptions import ClickHouseError, Error
from clickhouse_connect.driver.httputil import get_pool_manager

from deploy.settings import Settings
from sinks.cluster import identities, spread
from sinks.sql import identifier

UNKNOWN_TABLE = 60
UNKNOWN_DATABASE = 81
TOO_SLOW = 159
READ_ONLY = 164
TOO_MANY_QUERIES, NO_MEMORY = 202, 241
TOO_MUCH = 396
BAD_PASSWORD = 516

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_INSERT_SETTINGS = {
    # A batch that spans years touches a partition for each month.
    "max_partitions_per_insert_block": 0,
    # The answer must mean that the rows are there.
    "async_insert": 0,
    "wait_end_of_query": 1,
}
_CLUSTER_SETTINGS = {
    # Likewise: that the shards have them.
    "distributed_foreground_insert": 1,
}
_NO_ANSWER = (urllib3.exceptions.HTTPError, OSError)


class ClickHouseFailed(Exception):
    """A statement that did not succeed; `code` is ClickHouse's own, 0 where it gave no answer."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Answer:
    """Rows that a query returned, with the names of their columns, and how many it read."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    rows_read: int = 0


class ClickHouse:
    """One user's way to one database; connects at the first statement, and again when it must.

    Every failure is a `ClickHouseFailed`. `timeout` bounds a statement, in seconds; `limits` are
    settings of ClickHouse for each.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        reader: bool = False,
        timeout: float = 300.0,
        limits: Mapping[str, int] | None = None,
    ) -> None:
        self._settings = settings
        self._reader = reader
        self._timeout = timeout
        self._limits = dict(limits or {})
        self._client: Any = None
        self.database = settings.database
        self._cluster = settings.clickhouse_cluster
        self._insert_settings = _INSERT_SETTINGS | (_CLUSTER_SETTINGS if self._cluster else {})
        self.address = f"{settings.clickhouse_host}:{settings.clickhouse_http_port}"

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Answer:
        """Return the rows of `sql`; timestamps carry their zone."""
        result = self._try(lambda client: client.query(sql, parameters=parameters))
        rows_read = int((result.summary or {}).get("read_rows", 0))
        names = tuple(result.column_names) or self._names_without_rows(sql, parameters)
        return Answer(names, list(result.result_rows), rows_read)

    def _names_without_rows(
        self, sql: str, parameters: Mapping[str, Any] | None
    ) -> tuple[str, ...]:
        """Return the columns of an answer that had none: Native, without rows, leaves them out."""
        head = self._try(
            lambda client: client.raw_query(
                sql, parameters=parameters, fmt="JSONCompactStringsEachRowWithNames"
            )
        )
        lines = bytes(head).decode().splitlines()
        return tuple(json.loads(lines[0])) if lines else ()

    def command(self, sql: str) -> None:
        """Run a statement that returns no rows; on a cluster, on all servers it concerns."""
        # On a cluster what is inserted must be there when this returns.
        own = self._insert_settings if sql.lstrip()[:6].upper() == "INSERT" else None
        for statement in spread(sql, self._cluster, self.database):
            self._try(lambda client, text=statement: client.command(text, settings=own))

    def text(self, sql: str, output_format: str) -> bytes:
        """Return what `sql` gives, written in one of ClickHouse's output formats."""
        answer = self._try(lambda client: client.raw_query(sql, fmt=output_format))
        return bytes(answer)

    def arrow(
        self,
        sql: str,
        parameters: Mapping[str, Any] | None = None,
        limits: Mapping[str, int | str] | None = None,
    ) -> pa.Table:
        """Return the rows of `sql` as an Arrow table; text may be any bytes.

        `limits` are settings of ClickHouse for this statement alone.
        """
        return self._try(
            lambda client: client.query_arrow(sql, parameters=parameters, settings=limits)
        )

    def insert(self, table: str, rows: pa.Table) -> None:
        """Insert `rows`; when this returns, they are there."""
        self._try(lambda client: client.insert_arrow(table, rows, settings=self._insert_settings))

    def create_database(self) -> None:
        """Create the database where it is missing."""
        self._from_outside(f"CREATE DATABASE IF NOT EXISTS {identifier(self.database)}")

    def drop_database(self) -> None:
        """Drop the database with all that is in it, where there is one."""
        self._from_outside(f"DROP DATABASE IF EXISTS {identifier(self.database)}")

    def _from_outside(self, statement: str) -> None:
        """Run a statement for which the database need not be there."""
        for text in spread(statement, self._cluster, self.database):
            self._try(lambda client, text=text: client.command(text), database="default")

    def table_ids(self) -> dict[str, str]:
        """Return the identity of every table and view of the database by its name.

        A table that was dropped and created anew has another identity, on a cluster also where
        that happened to the rows' local tables alone. A database that does not exist has no tables.
        """
        found = self._try(
            lambda client: client.query(
                "SELECT name, toString(uuid), engine FROM system.tables "
                "WHERE database = %(database)s",
                parameters={"database": self.database},
            ),
            database="default",
        )
        return identities(found.result_rows)

    def column_names(self, table: str) -> frozenset[str]:
        """Return the names of the columns of `table`; none where there is no such table."""
        found = self.query(
            "SELECT name FROM system.columns WHERE database = %(database)s AND table = %(table)s",
            {"database": self.database, "table": table},
        )
        return frozenset(name for (name,) in found.rows)

    def close(self) -> None:
        """Give back the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _try(self, run: Any, database: str = "") -> Any:
        try:
            if self._client is None:
                self._client = self._connect()
            self._client.database = database or self.database
            return run(self._client)
        except Error as error:
            code = getattr(error, "code", None) or _code_in(str(error))
            if not code:
                self.close()
                raise ClickHouseFailed(self._unanswered(error)) from error
            raise ClickHouseFailed(sentence(str(error)), code) from error
        except (ClickHouseError, *_NO_ANSWER) as error:
            self.close()
            raise ClickHouseFailed(self._unanswered(error)) from error

    def _unanswered(self, error: Exception) -> str:
        return (
            f"ClickHouse at {self.address} does not answer: {_reason(str(error))}; is it running?"
        )

    def _connect(self) -> Any:
        # The driver logs what it also raises.
        logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)
        # The server knows what a user may set; the driver only guesses it from `readonly`.
        clickhouse_connect.common.set_setting("invalid_setting_action", "send")
        user, password = self._credentials()
        local = self._settings.clickhouse_host in _LOOPBACK
        authority = self._settings.ca_file or None
        return clickhouse_connect.get_client(
            host=self._settings.clickhouse_host,
            port=self._settings.clickhouse_http_port,
            interface="https" if self._settings.clickhouse_tls else "http",
            ca_cert=authority,
            username=user,
            password=password,
            # The database may not exist yet, and the first request names one.
            database="default",
            compress=not local,
            connect_timeout=5,
            send_receive_timeout=self._timeout,
            settings=self._limits,
            autogenerate_session_id=False,
            tz_mode="aware",
            client_name="kappa-views",
            # A proxy of the environment can't reach this machine's own loopback.
            pool_mgr=get_pool_manager(ca_cert=authority) if local else None,
        )

    def _credentials(self) -> tuple[str, str]:
        settings = self._settings
        if self._reader:
            return (
                settings.clickhouse_reader,
                settings.clickhouse_reader_password.get_secret_value(),
            )
        return settings.clickhouse_user, settings.clickhouse_password.get_secret_value()


def sentence(message: str) -> str:
    """Return the one sentence that says what is wrong out of a ClickHouse error's text."""
    text = re.sub(r"\s*\(version [^()]*(\([^()]*\))*\)\s*", " ", message)
    text = re.sub(r"^.*?DB::Exception:\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"\s*\(for url [^)]*\)", "", text)
    text = re.sub(r"\s*\([A-Z0-9_]+\)\s*$", "", text.strip())
    return _first_line(text)


def _code_in(message: str) -> int:
    found = re.search(r"(?:\bCode:|error code)\s*([0-9]+)", message)
    return int(found[1]) if found else 0


def _reason(text: str) -> str:
    """Return why there was no answer, out of the many layers of a connection's error."""
    found = re.search(r"\[Errno -?[0-9]+\] ([^\"')]+)|(certificate verify failed: [^(]+)", text)
    return (found[1] or found[2]).strip() if found else _first_line(text)[:200]


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else "no reason given."
