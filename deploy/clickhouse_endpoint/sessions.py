"""Sessions that clients name by `session_id`: SETs and temporary tables outlive a request."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from deploy.clickhouse_endpoint.context import Context
from deploy.clickhouse_endpoint.engine import Connection, quote
from deploy.clickhouse_endpoint.errors import QueryError


class Session:
    """A connection kept for one client, and the URL's settings laid over its own ones."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.busy = False
        self.expires = 0.0
        self._own: dict[str, str | None] = {}
        self._over: dict[str, str] = {}
        self._database = ""

    def prepare(self, context: Context, *, changes_session: bool) -> None:
        """Set the connection for one request; raises QueryError.

        A setting of the URL holds for its request only. Before a statement that may change the
        session itself (`changes_session`) all of the URL's are taken away.
        """
        wanted = {} if changes_session else dict(context.settings)
        for name in [name for name in self._over if name not in wanted]:
            self.connection.set({name: self._own.pop(name)})
            del self._over[name]
        for name, value in wanted.items():
            if self._over.get(name) != value:
                if name not in self._own:
                    self._own[name] = self._current(name)
                self.connection.set({name: value})
                self._over[name] = value
        if context.database and context.database != self._database:
            self.connection.use(context.database)
        # A USE in the session may follow, so a later request names its database anew.
        self._database = "" if changes_session else context.database

    def _current(self, name: str) -> str | None:
        row = self.connection.run(
            f"SELECT changed, value FROM system.settings WHERE name = {quote(name)}",
            "TabSeparatedRaw",
        ).text()
        changed, _, value = row.partition("\t")
        return value if changed == "1" else None


class Sessions:
    """All sessions by user and id; at most `limit`, the longest unused go first."""

    def __init__(
        self, connect: Callable[[], Connection], limit: int, clock: Callable[[], float]
    ) -> None:
        self._connect = connect
        self._limit = limit
        self._clock = clock
        self._lock = threading.Lock()
        self._open: OrderedDict[tuple[str, str], Session] = OrderedDict()

    @contextmanager
    def lend(self, user: str, parameters: Mapping[str, str]) -> Iterator[Session]:
        """Lend the session that `parameters` name.

        Raises QueryError 373 while another request of the same session runs, and 372 when the
        client insists (`session_check`) on a session that is not there.
        """
        key = (user, parameters["session_id"])
        session = self._take(key, must_exist=parameters.get("session_check") == "1")
        try:
            yield session
        finally:
            self._give_back(key, session, _timeout_seconds(parameters))

    def _take(self, key: tuple[str, str], *, must_exist: bool) -> Session:
        with self._lock:
            gone = self._expired()
            session = self._open.get(key)
            if session is not None and session.busy:
                raise QueryError(373, "SESSION_IS_LOCKED", f"Session {key[1]} is locked by a query")
            if session is None and must_exist:
                raise QueryError(372, "SESSION_NOT_FOUND", f"Session {key[1]} not found")
            if session is None:
                session = self._open[key] = Session(self._connect())
            self._open.move_to_end(key)
            session.busy = True
        for each in gone:
            each.connection.close()
        return session

    def _give_back(self, key: tuple[str, str], session: Session, seconds: float) -> None:
        with self._lock:
            session.busy = False
            session.expires = self._clock() + seconds
            if session.connection.usable:
                return
            self._open.pop(key, None)
        session.connection.close()

    def _expired(self) -> list[Session]:
        now = self._clock()
        idle = [(key, each) for key, each in self._open.items() if not each.busy]
        surplus = len(self._open) - self._limit + 1
        gone = [key for i, (key, each) in enumerate(idle) if each.expires < now or i < surplus]
        return [self._open.pop(key) for key in gone]

    def close(self) -> None:
        """End all sessions."""
        with self._lock:
            sessions = list(self._open.values())
            self._open.clear()
        for session in sessions:
            session.connection.close()


def _timeout_seconds(parameters: Mapping[str, str]) -> float:
    try:
        return min(float(parameters.get("session_timeout", "60")), 3600.0)
    except ValueError:
        return 60.0
