"""What PostgreSQL remembers of repairs: each repair's steps, and every event that was folded in."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, LiteralString

from psycopg.types.json import Jsonb

from replay.control import Control
from replay.late import Place

_SCHEMA: LiteralString = """
CREATE TABLE IF NOT EXISTS kappa.repairs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    namespace text NOT NULL,
    view text NOT NULL,
    version integer NOT NULL,
    state text NOT NULL,
    holder text NOT NULL,
    detail jsonb NOT NULL DEFAULT '{}',
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE IF NOT EXISTS kappa.repaired_events (
    namespace text NOT NULL,
    view text NOT NULL,
    version integer NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    repair_id bigint NOT NULL REFERENCES kappa.repairs,
    PRIMARY KEY (namespace, view, version, partition, "offset")
);
"""
# Any number but that of the control plane's own schema.
_SCHEMA_LOCK = 0x6B617072


class RepairJournal:
    """The repairs of one version of a view. A repair is started, written, done; or it failed."""

    def __init__(self, control: Control, view: str, version: int) -> None:
        self._control = control
        self._view = (control.namespace, view, version)
        with control.transaction() as connection:
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_SCHEMA_LOCK,))
            connection.execute(_SCHEMA)

    def repaired(self) -> dict[Place, int]:
        """Return the events that were folded in, each with the repair that did it."""
        with self._control.transaction() as connection:
            rows = connection.execute(
                'SELECT partition, "offset", repair_id FROM kappa.repaired_events'
                " WHERE namespace = %s AND view = %s AND version = %s",
                self._view,
            ).fetchall()
        return {(row["partition"], row["offset"]): row["repair_id"] for row in rows}

    def begin(self, detail: Mapping[str, Any]) -> int:
        """Record a repair that is about to write, and return its number.

        One that a killed process left is over: this one writes its windows again.
        """
        with self._control.transaction() as connection:
            connection.execute(
                "UPDATE kappa.repairs SET state = 'interrupted', changed_at = clock_timestamp()"
                " WHERE namespace = %s AND view = %s AND version = %s"
                " AND state IN ('started', 'written')",
                self._view,
            )
            row = connection.execute(
                "INSERT INTO kappa.repairs (namespace, view, version, state, holder, detail)"
                " VALUES (%s, %s, %s, 'started', %s, %s) RETURNING id",
                (*self._view, self._control.holder, Jsonb(dict(detail))),
            ).fetchone()
        assert row is not None
        return int(row["id"])

    def written(self, repair: int) -> None:
        """Record that the rows stand in the view's topic."""
        self._change(repair, "written", {})

    def failed(self, repair: int, error: str) -> None:
        """Record that nothing was written, and why."""
        self._change(repair, "failed", {"error": error})

    def done(self, repair: int, events: Collection[Place]) -> None:
        """Record the repair's end and every event that it folded in, all at once."""
        with self._control.transaction() as connection:
            connection.cursor().executemany(
                "INSERT INTO kappa.repaired_events VALUES (%s, %s, %s, %s, %s, %s)"
                " ON CONFLICT DO NOTHING",
                [(*self._view, *place, repair) for place in events],
            )
            self._change(repair, "done", {})

    def repairs(self) -> list[dict[str, Any]]:
        """Return all repairs, newest first."""
        with self._control.transaction() as connection:
            return connection.execute(
                "SELECT id, state, holder, detail, started_at, changed_at FROM kappa.repairs"
                " WHERE namespace = %s AND view = %s AND version = %s ORDER BY id DESC",
                self._view,
            ).fetchall()

    def _change(self, repair: int, state: str, detail: Mapping[str, Any]) -> None:
        with self._control.transaction() as connection:
            connection.execute(
                "UPDATE kappa.repairs SET state = %s, changed_at = clock_timestamp(),"
                " detail = detail || %s WHERE id = %s",
                (state, Jsonb(dict(detail)), repair),
            )
