"""Tables that come and go while records are loaded into them. No stack."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pytest

from schemas.registry import Registry
from sinks.clickhouse import Answer, ClickHouse, ClickHouseFailed
from sinks.target import Loaded, Target
from sinks.topics import DeadLetterTopic, Source, ViewTopic
from tests.sinks.samples import COUNTS, record
from tests.sinks.test_dead_letters import DEAD_HEADERS, letter

VIEW, DEAD = ViewTopic("counts", 1), DeadLetterTopic("page_views", 1)
RECORDS: dict[Source, list[Any]] = {
    VIEW: [record({"page": "/a", "window_start": 0, "views": 3})],
    DEAD: [letter(DEAD_HEADERS)],
}


class Tables:
    """A ClickHouse that has the names and identities of tables, and may lose `losing` at once."""

    database = "kappa"

    def __init__(self, *, losing: bool = False) -> None:
        self.ids: dict[str, str] = {}
        self.inserted: list[str] = []
        self._losing = losing

    def create_database(self) -> None: ...

    def command(self, sql: str) -> None:
        found = re.match(r"CREATE TABLE IF NOT EXISTS `(\w+)`", sql)
        if found and not self._losing:
            self.ids.setdefault(found[1], "created")

    def table_ids(self) -> dict[str, str]:
        return self.ids

    def column_names(self, table: str) -> frozenset[str]:
        return frozenset(field["name"] for field in COUNTS["fields"])

    def query(self, *_: Any) -> Answer:
        rows = [] if self._losing else [("ReplacingMergeTree(_revision)",)]
        return Answer(("engine_full",), cast(list[tuple[Any, ...]], rows))

    def insert(self, table: str, rows: pa.Table) -> None:
        self.inserted.append(table)


def target(tables: Tables) -> Target:
    registry = SimpleNamespace(schema_by_id=lambda _: COUNTS, latest=lambda _: None)
    return Target(cast(ClickHouse, tables), cast(Registry, registry), lambda _: frozenset[int]({1}))


@pytest.mark.parametrize("source", RECORDS)
def test_a_table_is_created_for_the_first_records(source: Source) -> None:
    tables = Tables()
    loaded = target(tables).load(source, RECORDS[source], "")
    assert loaded == Loaded("created", 1, 1714521601000)
    assert tables.inserted == [source.table]


@pytest.mark.parametrize("source", RECORDS)
def test_nothing_is_loaded_into_a_table_that_took_anothers_place(source: Source) -> None:
    tables = Tables()
    with pytest.raises(ClickHouseFailed, match=f"table {source.table} was dropped meanwhile"):
        target(tables).load(source, RECORDS[source], "looked up before")
    assert tables.inserted == []


@pytest.mark.parametrize("source", RECORDS)
def test_a_table_that_is_dropped_while_it_is_prepared_is_tried_again(source: Source) -> None:
    with pytest.raises(ClickHouseFailed, match=f"table {source.table} was dropped meanwhile"):
        target(Tables(losing=True)).load(source, RECORDS[source], "")
