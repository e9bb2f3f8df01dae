"""The same declarations on a cluster: replicated tables behind Distributed ones."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import chdb
import pytest

from deploy.settings import Settings
from jobs.catalogue import VIEWS
from jobs.views import View
from replay.late_rows import _create as create_repaired_events
from sinks.clickhouse import ClickHouse
from sinks.cluster import NotForClusters, spread
from sinks.dead_letters import DEAD_LETTERS, LATE_EVENTS, create_raw_table, create_raw_view
from sinks.pointers import create_pointers, plain_view
from sinks.tables import add_columns, create_table, create_view, table_spec
from tests.sinks.test_tables import REVENUE

SPEC = table_spec("revenue", REVENUE)


@pytest.fixture(scope="module")
def clickhouse() -> Iterator[chdb.state.sqlitelike.Connection]:
    connection = chdb.connect(":memory:")
    yield connection
    connection.close()


def clustered(statement: str) -> tuple[str, ...]:
    return spread(statement, "kappa", "views")


def test_without_a_cluster_nothing_changes() -> None:
    statement = create_table(SPEC, 2)
    assert spread(statement, "", "views") == (statement,)


def test_a_views_table_is_replicated_and_spread_by_its_key() -> None:
    columns = (
        "(\n"
        "    `shop` String COMMENT 'The shop\\'s name.',\n"
        "    `window_start` DateTime64(3, 'UTC'),\n"
        "    `window_end` DateTime64(3, 'UTC'),\n"
        "    `orders` Int64,\n"
        "    `returns` Int32,\n"
        "    `mean_price` Nullable(Float64),\n"
        "    `is_open` Bool,\n"
        "    `_revision` UInt64 COMMENT "
        "'Offset in the topic; of a key\\'s rows the greatest counts.',\n"
        "    `_partition` UInt32 COMMENT 'Partition of the topic.',\n"
        "    `_emitted_at` DateTime64(3, 'UTC') COMMENT 'When the row was written to the topic.'\n"
        ")\n"
    )
    assert clustered(create_table(SPEC, 2)) == (
        "CREATE TABLE IF NOT EXISTS `revenue_v2_local` ON CLUSTER `kappa`\n"
        f"{columns}"
        "ENGINE = ReplicatedReplacingMergeTree("
        "'/clickhouse/tables/{uuid}/{shard}', '{replica}', `_revision`)\n"
        "PARTITION BY toYYYYMM(`window_start`)\n"
        "ORDER BY (`window_start`, `shop`)\n"
        "TTL `window_end` + toIntervalSecond(86400)\n"
        "SETTINGS fsync_after_insert = 1, fsync_part_directory = 1\n"
        "COMMENT 'What each shop\\'s customers pay.'",
        "CREATE TABLE IF NOT EXISTS `revenue_v2` ON CLUSTER `kappa`\n"
        f"{columns}"
        "ENGINE = Distributed(`kappa`, `views`, `revenue_v2_local`, "
        "cityHash64(`window_start`, `shop`))\n"
        "COMMENT 'What each shop\\'s customers pay.'",
    )


def test_public_views_read_the_distributed_table_on_every_server() -> None:
    plain = create_view(SPEC, 2)
    (statement,) = clustered(plain)
    first = "CREATE VIEW IF NOT EXISTS `revenue`"
    assert statement == plain.replace(first, f"{first} ON CLUSTER `kappa`")
    (replaced,) = clustered(plain_view("revenue", 2, SPEC.columns, "Shops."))
    assert replaced.startswith("CREATE OR REPLACE VIEW `revenue` ON CLUSTER `kappa`\n(")
    assert clustered("DROP VIEW IF EXISTS `revenue`") == (
        "DROP VIEW IF EXISTS `revenue` ON CLUSTER `kappa`",
    )


def test_only_the_rows_have_a_lifetime() -> None:
    for change in ("MODIFY TTL `window_end` + toIntervalSecond(7200)", "REMOVE TTL"):
        assert clustered(f"ALTER TABLE `revenue_v1` {change}") == (
            f"ALTER TABLE `revenue_v1_local` ON CLUSTER `kappa` {change}",
        )


def test_new_columns_come_to_the_rows_before_they_can_be_asked_for() -> None:
    present = {column.name for column in SPEC.columns} - {"is_open"}
    plain = add_columns(SPEC, 1, present)
    assert plain is not None
    assert clustered(plain) == (
        "ALTER TABLE `revenue_v1_local` ON CLUSTER `kappa` ADD COLUMN IF NOT EXISTS `is_open` Bool",
        "ALTER TABLE `revenue_v1` ON CLUSTER `kappa` ADD COLUMN IF NOT EXISTS `is_open` Bool",
    )


def test_rows_are_deleted_and_tables_dropped_where_they_are() -> None:
    assert clustered("ALTER TABLE `late` DELETE WHERE version = 2 SETTINGS mutations_sync = 2") == (
        "ALTER TABLE `late_local` ON CLUSTER `kappa` DELETE WHERE version = 2 "
        "SETTINGS mutations_sync = 2",
    )
    assert clustered("DROP TABLE IF EXISTS `revenue_v1` SYNC") == (
        "DROP TABLE IF EXISTS `revenue_v1` ON CLUSTER `kappa` SYNC",
        "DROP TABLE IF EXISTS `revenue_v1_local` ON CLUSTER `kappa` SYNC",
    )


def test_pointers_are_together_so_that_a_switch_is_one_insert_on_one_shard() -> None:
    local, distributed = clustered(create_pointers())
    assert "ENGINE = ReplicatedMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}')" in local
    assert "ENGINE = Distributed(`kappa`, `views`, `view_pointers_local`, 0)" in distributed


def test_the_identity_of_a_table_is_that_of_its_rows() -> None:
    names = {"counts_v1": "Distributed", "counts_v1_local": "ReplicatedReplacingMergeTree"}

    def ids(**own: str) -> dict[str, str]:
        rows = [(name, identity, names[name]) for name, identity in own.items()]
        clickhouse = ClickHouse(Settings())
        answer = SimpleNamespace(result_rows=rows)
        clickhouse._client = SimpleNamespace(query=lambda *_, **__: answer)
        return clickhouse.table_ids()

    assert ids(counts_v1="a", counts_v1_local="b")["counts_v1"] == "b"
    # A table whose rows were dropped alone is created anew, and loaded from the start.
    assert ids(counts_v1="a") == {}


def test_queries_and_inserts_stay_as_they_are() -> None:
    for statement in ("SELECT 1", "INSERT INTO t SELECT 1"):
        assert clustered(statement) == (statement,)


def test_what_is_not_known_is_refused() -> None:
    with pytest.raises(NotForClusters, match="RENAME"):
        clustered("RENAME TABLE a TO b")
    with pytest.raises(NotForClusters, match="engine"):
        clustered("CREATE TABLE IF NOT EXISTS `t`\n(\n    `a` String\n)\nENGINE = Memory")


@pytest.mark.parametrize("view", VIEWS.values(), ids=lambda view: view.name)
def test_clickhouse_reads_every_statement(
    view: View, clickhouse: chdb.state.sqlitelike.Connection
) -> None:
    spec = table_spec(view.name, view.avro_schema)
    plain = [create_table(spec, 1), create_view(spec, 1), create_pointers()]
    plain += [create_repaired_events()]
    for raw in (DEAD_LETTERS, LATE_EVENTS):
        plain += [create_raw_table(raw), create_raw_view(raw)]
    plain.append("CREATE DATABASE IF NOT EXISTS `views`")
    for statement in plain:
        for text in clustered(statement):
            parsed = clickhouse.query(f"EXPLAIN AST {text}", "TabSeparated").data()
            assert "Create" in parsed.splitlines()[0], text
