"""Put the records of any topic into their table, which is created at first sight."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from schemas.registry import Registry, UnknownSchemaId
from sinks.clickhouse import ClickHouse, ClickHouseFailed
from sinks.cluster import keyed
from sinks.dead_letters import create_raw_table, create_raw_view, raw_rows, raw_table
from sinks.rows import (
    BadRecord,
    Record,
    by_schema,
    newest_emission_ms,
    newest_revisions,
    place_of,
    view_rows,
)
from sinks.sql import identifier
from sinks.tables import (
    EMITTED_AT,
    PARTITION,
    REVISION,
    TableSpec,
    add_columns,
    change_expiry,
    create_table,
    create_view,
    table_spec,
)
from sinks.topics import DeadLetterTopic, LateTopic, Source, ViewTopic


@dataclass(frozen=True)
class Loaded:
    """What became of some records: rows inserted, and when the newest of them was emitted."""

    table_id: str
    rows: int
    newest_ms: int | None


class Target:
    """The tables of one database; `versions` returns those of a view that have a topic."""

    def __init__(
        self,
        clickhouse: ClickHouse,
        registry: Registry,
        versions: Callable[[str], frozenset[int]],
    ) -> None:
        self._clickhouse = clickhouse
        self._registry = registry
        self._versions = versions
        self._prepared: set[tuple[str, int]] = set()

    def table_ids(self) -> dict[str, str]:
        """Return the identity of every table by its name; none is the same after a drop."""
        return self._clickhouse.table_ids()

    def prepare(self, source: Source) -> None:
        """Create the table of dead letters or late events, so that none is an answer too."""
        if not isinstance(source, ViewTopic):
            self._prepare_raw(source, self.table_ids().get(source.table, ""))

    def prepare_view(self, source: ViewTopic, topic: str) -> None:
        """Create the table of a view that has no rows yet, once its `topic`'s schema is known."""
        if found := self._registry.latest(f"{topic}-value"):
            self._prepare_view(source, table_spec(source.view, found.schema), found.id, "", topic)

    def newest(self, source: ViewTopic, partition: int) -> tuple[int, int] | None:
        """Return how far the rows of a topic's `partition` reach in its view's table, if there are.

        That is the greatest offset, and when the newest was written to the topic, epoch ms.
        """
        revision, emitted = identifier(REVISION), identifier(EMITTED_AT)
        (found,) = self._clickhouse.query(
            f"SELECT count(), max({revision}), toUnixTimestamp64Milli(max({emitted})) "
            f"FROM {identifier(source.table)} WHERE {identifier(PARTITION)} = {partition:d}"
        ).rows
        rows, offset, moment = map(int, found)
        return (offset, moment) if rows else None

    def load(self, source: Source, records: Sequence[Record], table_id: str) -> Loaded:
        """Insert `records` of `source`'s topic and return when all of them are there.

        `table_id` is the table's identity, empty where there is none. Raises `BadRecord`,
        `ClickHouseFailed`, `RegistryError`.
        """
        if isinstance(source, ViewTopic):
            return self._load_view(source, records, table_id)
        return self._load_raw(source, records, table_id)

    def _load_view(self, source: ViewTopic, records: Sequence[Record], table_id: str) -> Loaded:
        rows, newest = 0, None
        for schema_id, part in by_schema(records).items():
            schema = self._schema(schema_id, part[0])
            spec = table_spec(source.view, schema)
            topic = str(part[0].topic())
            table_id = self._prepare_view(source, spec, schema_id, table_id, topic)
            decoded = newest_revisions(view_rows(part, schema), spec.key)
            inserted = self._insert(source, decoded, table_id)
            rows, newest = rows + inserted.rows, _later(newest, inserted.newest_ms)
        return Loaded(table_id, rows, newest)

    def _schema(self, schema_id: int, record: Record) -> dict[str, Any]:
        try:
            return self._registry.schema_by_id(schema_id)
        except UnknownSchemaId as error:
            raise BadRecord(f"{place_of(record)}: {error}") from error

    def _load_raw(
        self, source: DeadLetterTopic | LateTopic, records: Sequence[Record], table_id: str
    ) -> Loaded:
        if not records:
            return Loaded(table_id, 0, None)
        table_id = self._prepare_raw(source, table_id)
        return self._insert(source, raw_rows(source, records), table_id)

    def _insert(self, source: Source, rows: pa.Table, table_id: str) -> Loaded:
        self._clickhouse.insert(source.table, rows)
        return Loaded(table_id, rows.num_rows, newest_emission_ms(rows))

    def _prepare_raw(self, source: DeadLetterTopic | LateTopic, table_id: str) -> str:
        if (table_id, 0) in self._prepared:
            return table_id
        self._clickhouse.create_database()
        self._clickhouse.command(create_raw_table(raw_table(source)))
        self._clickhouse.command(create_raw_view(raw_table(source)))
        return self._remember(source, 0, table_id)

    def _prepare_view(
        self, source: ViewTopic, spec: TableSpec, schema_id: int, table_id: str, topic: str
    ) -> str:
        if (table_id, schema_id) in self._prepared:
            return table_id
        self._clickhouse.create_database()
        self._clickhouse.command(create_table(spec, source.version))
        present = self._clickhouse.column_names(source.table)
        if statement := add_columns(spec, source.version, present):
            self._clickhouse.command(statement)
        change = change_expiry(spec, source.version, self._engine(source.table))
        # Rows of older schemas may come after newer ones, and must not bring a retention back.
        if change and self._is_newest(topic, schema_id):
            self._clickhouse.command(change)
        # A rebuild is loaded beside the version that people see; it must not take the name.
        if source.version <= min(self._versions(source.view), default=source.version):
            self._clickhouse.command(create_view(spec, source.version))
        return self._remember(source, schema_id, table_id)

    def _is_newest(self, topic: str, schema_id: int) -> bool:
        newest = self._registry.latest(f"{topic}-value")
        return newest is None or newest.id == schema_id

    def _engine(self, table: str) -> str:
        of_rows = keyed(table, self.table_ids())
        found = self._clickhouse.query(
            "SELECT engine_full FROM system.tables "
            "WHERE database = %(database)s AND name = %(table)s",
            {"database": self._clickhouse.database, "table": of_rows},
        ).rows
        if not found:
            raise _dropped(table)
        return str(found[0][0])

    def _remember(self, source: Source, schema_id: int, before: str) -> str:
        table_id = self.table_ids().get(source.table, "")
        # What was loaded into the table before is not in the one that took its place.
        if not table_id or (before and before != table_id):
            raise _dropped(source.table)
        self._prepared.add((table_id, schema_id))
        return table_id


def _dropped(table: str) -> ClickHouseFailed:
    return ClickHouseFailed(f"table {table} was dropped meanwhile.")


def _later(one: int | None, other: int | None) -> int | None:
    return max((ms for ms in (one, other) if ms is not None), default=None)
