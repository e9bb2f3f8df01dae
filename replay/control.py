"""The control plane in PostgreSQL: replays, their journal, versions and leases.

Nothing else connects to PostgreSQL. Nothing that moves data waits for it.
"""

from __future__ import annotations

import getpass
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, LiteralString, Self, TypeVar

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from replay.records import (
    JournalEntry,
    Lease,
    ReplayPlan,
    ReplayRecord,
    ReplayState,
    VersionState,
    plan_from_json,
)

_SCHEMA: LiteralString = """
CREATE SCHEMA IF NOT EXISTS kappa;
CREATE TABLE IF NOT EXISTS kappa.replays (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    namespace text NOT NULL,
    job text NOT NULL,
    views text[] NOT NULL,
    to_version integer NOT NULL,
    state text NOT NULL,
    plan jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    changed_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE IF NOT EXISTS kappa.view_versions (
    namespace text NOT NULL,
    view text NOT NULL,
    version integer NOT NULL,
    job text NOT NULL,
    state text NOT NULL,
    replay_id bigint REFERENCES kappa.replays,
    created_at timestamptz NOT NULL DEFAULT now(),
    changed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (namespace, view, version)
);
CREATE TABLE IF NOT EXISTS kappa.journal (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    replay_id bigint NOT NULL REFERENCES kappa.replays,
    step text NOT NULL,
    state text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    detail jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX IF NOT EXISTS journal_by_replay ON kappa.journal (replay_id, id);
CREATE TABLE IF NOT EXISTS kappa.leases (
    namespace text NOT NULL,
    view text NOT NULL,
    replay_id bigint NOT NULL REFERENCES kappa.replays,
    holder text NOT NULL,
    taken_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (namespace, view)
);
"""
# Any number; it names the lock under which two processes do not create the schema at once.
_SCHEMA_LOCK = 0x6B617070
_RELEASE_SECONDS = 2.0

T = TypeVar("T")


class ControlUnavailable(Exception):
    """PostgreSQL does not answer."""


class Overtaken(Exception):
    """Another process changed the replay since it was read."""

    def __init__(self, replay: ReplayRecord) -> None:
        super().__init__(
            f"replay {replay.id} of {replay.job} is no longer {replay.state.words}: another "
            "process changed it meanwhile; see `kappa replay status`."
        )


class LeaseTaken(Exception):
    """Another replay holds a view."""

    def __init__(self, lease: Lease) -> None:
        super().__init__(
            f"{lease.view} is held by replay {lease.replay_id} since "
            f"{lease.taken_at:%Y-%m-%d %H:%M} (begun by {lease.holder}); end that one first, with "
            f"`kappa replay retire` or `kappa replay abort`."
        )
        self.lease = lease


def taken(replay: ReplayRecord, leases: Sequence[Lease]) -> LeaseTaken:
    """Return the refusal of a second replay of the views that `replay` holds."""
    return LeaseTaken(next(lease for lease in leases if lease.replay_id == replay.id))


def here() -> str:
    """Return who and where this process is, as leases and locks name their holder."""
    return f"{getpass.getuser()}@{socket.gethostname()}, process {os.getpid()}"


class Busy(Exception):
    """Another process changes replays of the same job at this moment."""


class Control:
    """The control plane of one namespace, over one connection that is made when first needed.

    What is read, and what is noted of a replay, waits up to `patience` seconds for a PostgreSQL
    that does not answer, and `say` is told so.
    """

    def __init__(
        self,
        dsn: str,
        namespace: str,
        holder: str = "",
        *,
        patience: float = 0,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.namespace = namespace
        self.holder = holder
        self._dsn = dsn
        self._patience = patience
        self._say = say
        self._connection: psycopg.Connection[dict[str, Any]] | None = None
        self._locked_job = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back the connection and with it every lock."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # Replays

    def begin(self, plan: ReplayPlan) -> ReplayRecord:
        """Record a replay that is about to build, and take its leases, or raise `LeaseTaken`."""
        with self._transaction() as connection:
            found = connection.execute(
                "INSERT INTO kappa.replays (namespace, job, views, to_version, state, plan)"
                " VALUES (%s, %s, %s, %s, %s, %s) RETURNING *",
                (
                    self.namespace,
                    plan.job,
                    list(plan.views),
                    plan.to_version,
                    ReplayState.BUILDING,
                    Jsonb(plan.as_json()),
                ),
            ).fetchone()
            assert found is not None
            replay = _replay(found)
            for view in sorted(plan.views):
                self._take_lease(connection, view, replay.id)
            self._add_versions(connection, replay)
        return replay

    def _take_lease(self, connection: Any, view: str, replay_id: int) -> None:
        connection.execute(
            "INSERT INTO kappa.leases (namespace, view, replay_id, holder)"
            " VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
            (self.namespace, view, replay_id, self.holder),
        )
        found = connection.execute(
            "SELECT view, replay_id, holder, taken_at FROM kappa.leases"
            " WHERE namespace = %s AND view = %s",
            (self.namespace, view),
        ).fetchone()
        if found["replay_id"] != replay_id:
            raise LeaseTaken(Lease(**found))

    def _add_versions(self, connection: Any, replay: ReplayRecord) -> None:
        rows = [(view, replay.to_version, VersionState.BUILDING) for view in replay.views]
        rows += [(view, old, VersionState.LIVE) for view, old in replay.from_versions.items()]
        for view, version, state in rows:
            connection.execute(
                "INSERT INTO kappa.view_versions (namespace, view, version, job, state, replay_id)"
                " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
                (self.namespace, view, version, replay.job, state, replay.id),
            )

    def current(self, job: str) -> ReplayRecord | None:
        """Return the replay of `job` that is under way, or None."""
        mine = (one for one in self.replays() if one.job == job and one.state.open)
        return next(mine, None)

    def replays(self) -> list[ReplayRecord]:
        """Return all replays of the namespace, newest first."""
        rows = self._all(
            "SELECT * FROM kappa.replays WHERE namespace = %s ORDER BY id DESC", (self.namespace,)
        )
        return [_replay(row) for row in rows]

    def leases(self) -> list[Lease]:
        """Return the leases that are held, by view."""
        rows = self._all(
            "SELECT view, replay_id, holder, taken_at FROM kappa.leases"
            " WHERE namespace = %s ORDER BY view",
            (self.namespace,),
        )
        return [Lease(**row) for row in rows]

    def versions_used(self, views: Sequence[str]) -> frozenset[int]:
        """Return every version that any of `views` ever had."""
        rows = self._all(
            "SELECT DISTINCT version FROM kappa.view_versions"
            " WHERE namespace = %s AND view = ANY(%s)",
            (self.namespace, list(views)),
        )
        return frozenset(row["version"] for row in rows)

    def change(
        self,
        replay: ReplayRecord,
        state: ReplayState,
        versions: Mapping[tuple[str, int], VersionState],
    ) -> ReplayRecord:
        """Record the new state of a replay and of versions of views, all at once.

        A replay that ends gives back its leases. Raises `Overtaken` where it is no longer in the
        state that `replay` tells.
        """
        return self._patiently(
            lambda: self._changed(replay, state, versions),
            lambda: self._found(replay, state) or self._changed(replay, state, versions),
        )

    def _found(self, replay: ReplayRecord, state: ReplayState) -> ReplayRecord | None:
        """Return the replay where its change to `state` was made, though the answer was lost."""
        if state is replay.state:
            return None
        rows = self._rows("SELECT * FROM kappa.replays WHERE id = %s", (replay.id,))
        return next((one for one in map(_replay, rows) if one.state is state), None)

    def _changed(
        self,
        replay: ReplayRecord,
        state: ReplayState,
        versions: Mapping[tuple[str, int], VersionState],
    ) -> ReplayRecord:
        with self._transaction() as connection:
            found = connection.execute(
                "UPDATE kappa.replays SET state = %s, changed_at = now()"
                " WHERE id = %s AND state = %s RETURNING *",
                (state, replay.id, replay.state),
            ).fetchone()
            if found is None:
                raise Overtaken(replay)
            for (view, version), version_state in versions.items():
                connection.execute(
                    "UPDATE kappa.view_versions SET state = %s, changed_at = now()"
                    " WHERE namespace = %s AND view = %s AND version = %s",
                    (version_state, self.namespace, view, version),
                )
            if not state.open:
                connection.execute("DELETE FROM kappa.leases WHERE replay_id = %s", (replay.id,))
        return _replay(found)

    def version_states(self) -> dict[tuple[str, int], VersionState]:
        """Return the state of every version of every view."""
        rows = self._all(
            "SELECT view, version, state FROM kappa.view_versions WHERE namespace = %s"
            " ORDER BY view, version",
            (self.namespace,),
        )
        return {(row["view"], row["version"]): VersionState(row["state"]) for row in rows}

    # Journal

    def begin_step(self, replay: ReplayRecord, step: str, detail: Mapping[str, Any]) -> None:
        """Add the line that `step` begins.

        Raises `Overtaken` where the replay is no longer in the state that `replay` tells: the lock
        of a process that lost its connection may have been another's meanwhile.
        """
        found = self._all(
            "INSERT INTO kappa.journal (replay_id, step, state, detail)"
            " SELECT id, %s, 'started', %s FROM kappa.replays WHERE id = %s AND state = %s"
            " RETURNING id",
            (step, Jsonb(dict(detail)), replay.id, replay.state),
        )
        if not found:
            raise Overtaken(replay)

    def write(self, replay_id: int, step: str, state: str, detail: Mapping[str, Any]) -> None:
        """Add a line to the journal."""
        self._all(
            "INSERT INTO kappa.journal (replay_id, step, state, detail)"
            " VALUES (%s, %s, %s, %s) RETURNING id",
            (replay_id, step, state, Jsonb(dict(detail))),
        )

    def journal(self, replay_id: int) -> list[JournalEntry]:
        """Return the journal of a replay, oldest line first."""
        rows = self._all(
            "SELECT step, state, at, detail FROM kappa.journal WHERE replay_id = %s ORDER BY id",
            (replay_id,),
        )
        return [JournalEntry(**row) for row in rows]

    def last_done(self, step: str, job: str) -> JournalEntry | None:
        """Return the newest line that says `step` of any replay of `job` is done."""
        rows = self._all(
            "SELECT step, j.state, at, detail FROM kappa.journal j JOIN kappa.replays r"
            " ON r.id = j.replay_id WHERE namespace = %s AND job = %s AND step = %s"
            " AND j.state = 'done' ORDER BY j.id DESC LIMIT 1",
            (self.namespace, job, step),
        )
        return JournalEntry(**rows[0]) if rows else None

    # Processes

    def lock(self, job: str) -> None:
        """Make this process the only one that changes replays of `job`, or raise `Busy`.

        The lock ends with the connection, so a killed process leaves none behind.
        """
        # PostgreSQL takes a moment to see that the process which held it was killed.
        deadline = time.monotonic() + _RELEASE_SECONDS
        while job != self._locked_job:
            try:
                with self._transaction() as connection:
                    self._lock(connection, job)
                self._locked_job = job
            except Busy:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def _lock(
        self, connection: psycopg.Connection[dict[str, Any]], job: str, *, had: bool = False
    ) -> None:
        name = f"kappa replay {self.namespace} {job}"
        if self._try_lock(connection, name):
            return
        holder = connection.execute(
            "SELECT pid, application_name AS name,"
            " application_name = current_setting('application_name') AS is_own"
            " FROM pg_locks JOIN pg_stat_activity USING (pid)"
            " WHERE locktype = 'advisory' AND granted"
            " AND ((classid::bigint << 32) | objid::bigint) = hashtextextended(%s, 0)",
            (name,),
        ).fetchone()
        if had and self.holder and holder and holder["is_own"]:
            # A server that did not see the former connection end keeps its lock for hours.
            connection.execute("SELECT pg_terminate_backend(%s, 5000)", (holder["pid"],))
            if self._try_lock(connection, name):
                return
        raise Busy(
            f"another process changes the replay of {job} at the moment"
            f"{' (' + holder['name'] + ')' if holder else ''}; wait for it, or end it."
        )

    @staticmethod
    def _try_lock(connection: psycopg.Connection[dict[str, Any]], name: str) -> bool:
        taken = connection.execute(
            "SELECT pg_try_advisory_lock(hashtextextended(%s, 0)) AS taken", (name,)
        ).fetchone()
        return bool(taken and taken["taken"])

    def transaction(self) -> AbstractContextManager[psycopg.Connection[dict[str, Any]]]:
        """Give a transaction on the connection, to whoever has tables of their own."""
        return self._transaction()

    def _all(self, statement: LiteralString, values: Sequence[Any]) -> list[dict[str, Any]]:
        # A line that was added though the answer was lost stands in the journal twice.
        return self._patiently(lambda: self._rows(statement, values))

    def _rows(self, statement: LiteralString, values: Sequence[Any]) -> list[dict[str, Any]]:
        with self._transaction() as connection:
            return connection.execute(statement, values).fetchall()

    def _patiently(self, attempt: Callable[[], T], again: Callable[[], T] | None = None) -> T:
        """Return what `attempt` gives, or `again` after it, once the control plane answers."""
        deadline, told = time.monotonic() + self._patience, False
        while True:
            try:
                return attempt()
            except ControlUnavailable as error:
                if time.monotonic() >= deadline:
                    raise
                if not told:
                    self._say(f"Waiting up to {self._patience:g} s: {error}")
                    told = True
            attempt = again or attempt
            time.sleep(0.5)

    @contextmanager
    def _transaction(self) -> Iterator[psycopg.Connection[dict[str, Any]]]:
        try:
            if self._connection is None:
                self._connection = self._connect()
            with self._connection.transaction():
                yield self._connection
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            self.close()
            raise ControlUnavailable(
                f"PostgreSQL, the control plane, does not answer ({_reason(error)}); jobs do "
                "without it, and the same command goes on where it stopped once it is back. Is it "
                "running?"
            ) from None

    def _connect(self) -> psycopg.Connection[dict[str, Any]]:
        try:
            return self._connected()
        except (psycopg.ProgrammingError, psycopg.NotSupportedError, UnicodeError) as error:
            # No address, or nobody who may write there.
            raise ControlUnavailable(
                f"PostgreSQL, the control plane, can't be used ({_reason(error)}): see "
                "KAPPA_POSTGRES_DSN."
            ) from None

    def _connected(self) -> psycopg.Connection[dict[str, Any]]:
        connection = psycopg.connect(
            self._dsn,
            row_factory=dict_row,
            autocommit=True,
            connect_timeout=5,
            # A peer that is gone without a word is given up after 30 s, whoever is to speak next;
            # a statement may take longer.
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=4,
            tcp_user_timeout=30_000,
            # It takes 63 bytes of ASCII; what tells processes apart stands last.
            application_name=self.holder.encode("ascii", "replace")[-63:].decode() or "kappa",
        )
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_SCHEMA_LOCK,))
            connection.execute(_SCHEMA)
        if self._locked_job:
            # The lock went with the old connection; somebody else may have taken it since.
            self._lock(connection, self._locked_job, had=True)
        return connection


def _replay(row: Mapping[str, Any]) -> ReplayRecord:
    return ReplayRecord(
        id=row["id"],
        namespace=row["namespace"],
        job=row["job"],
        views=tuple(row["views"]),
        to_version=row["to_version"],
        state=ReplayState(row["state"]),
        plan=plan_from_json(row["plan"]),
        created_at=row["created_at"],
        changed_at=row["changed_at"],
    )


_ESCAPED = "any of @/:#?% in a password is written as %40 and so on"


def _reason(error: Exception) -> str:
    """Return why there is no connection.

    Of an address that it can't read the driver quotes a part, which may be one of the password.
    """
    if isinstance(error, UnicodeError) or (
        isinstance(error, psycopg.ProgrammingError) and error.sqlstate is None
    ):
        return f"its address is none; one is postgresql://user:password@host/name, where {_ESCAPED}"
    if str(error).startswith("failed to resolve host"):
        return f"the name of its host is not known here; in its address {_ESCAPED}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
