"""ClickHouse tables and views derived from a view topic's Avro schema."""

from __future__ import annotations

from copy import deepcopy
from datetime import timedelta
from typing import Any

import pytest

from jobs.catalogue import VIEWS
from jobs.views import View
from sinks.tables import (
    INTERNAL_COLUMNS,
    InvalidViewSchema,
    TableColumn,
    TableSpec,
    add_columns,
    change_expiry,
    create_table,
    create_view,
    table_spec,
)

REVENUE: dict[str, Any] = {
    "type": "record",
    "name": "revenue",
    "namespace": "kappa.views",
    "doc": "What each shop's customers pay.",
    "key": ["window_start", "shop"],
    "retention_ms": 86_400_000,
    "fields": [
        {"name": "shop", "type": "string", "doc": "The shop's name."},
        {"name": "window_start", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "window_end", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "orders", "type": "long"},
        {"name": "returns", "type": "int"},
        {"name": "mean_price", "type": ["null", "double"], "default": None},
        {"name": "is_open", "type": "boolean"},
    ],
}
_FIXED_TIME = {"type": "fixed", "name": "f", "size": 8, "logicalType": "timestamp-millis"}


def test_the_table_of_a_view_in_full() -> None:
    assert create_table(table_spec("revenue", REVENUE), 2) == (
        "CREATE TABLE IF NOT EXISTS `revenue_v2`\n"
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
        "ENGINE = ReplacingMergeTree(`_revision`)\n"
        "PARTITION BY toYYYYMM(`window_start`)\n"
        "ORDER BY (`window_start`, `shop`)\n"
        "TTL `window_end` + toIntervalSecond(86400)\n"
        "SETTINGS fsync_after_insert = 1, fsync_part_directory = 1\n"
        "COMMENT 'What each shop\\'s customers pay.'"
    )


def test_the_public_view_shows_the_declared_columns_only() -> None:
    assert create_view(table_spec("revenue", REVENUE), 2) == (
        "CREATE VIEW IF NOT EXISTS `revenue`\n"
        "(\n"
        "    `shop` String COMMENT 'The shop\\'s name.',\n"
        "    `window_start` DateTime64(3, 'UTC'),\n"
        "    `window_end` DateTime64(3, 'UTC'),\n"
        "    `orders` Int64,\n"
        "    `returns` Int32,\n"
        "    `mean_price` Nullable(Float64),\n"
        "    `is_open` Bool\n"
        ")\n"
        "AS SELECT `shop`, `window_start`, `window_end`, `orders`, `returns`, `mean_price`, "
        "`is_open` FROM `revenue_v2` FINAL\n"
        "COMMENT 'Version 2. What each shop\\'s customers pay.'"
    )


@pytest.mark.parametrize("view", VIEWS.values(), ids=lambda view: view.name)
def test_every_declared_view_has_a_table_of_its_columns_and_key(view: View) -> None:
    spec = table_spec(view.name, view.avro_schema)
    assert [column.name for column in spec.columns] == [column.name for column in view.columns]
    assert [column.type.startswith("Nullable(") for column in spec.columns] == [
        column.nullable for column in view.columns
    ]
    assert spec.key == view.key
    assert spec.retention == view.retention
    assert spec.table(4) == view.table(4)


def test_a_view_without_window_has_neither_partitions_nor_expiry() -> None:
    schema = changed(key=["shop"], retention_ms=None)
    statement = create_table(table_spec("revenue", schema), 1)
    assert "PARTITION BY" not in statement
    assert "TTL" not in statement


def test_a_window_start_outside_the_key_does_not_part_rows_of_one_key() -> None:
    assert "PARTITION BY" not in create_table(table_spec("revenue", changed(key=["shop"])), 1)


def test_a_retention_of_a_century_expires_in_wide_time() -> None:
    schema = changed(retention_ms=100 * 365 * 86_400_000)
    assert "TTL `window_end` + toIntervalSecond(3153600000)" in create_table(
        table_spec("revenue", schema), 1
    )


def test_names_and_comments_can_hold_any_character() -> None:
    spec = TableSpec("it's`a\\view", (TableColumn("a`b", "String", "c\\'d"),), ("a`b",))
    statement = create_table(spec, 1)
    assert r"`it's\`a\\view_v1`" in statement
    assert r"`a\`b` String COMMENT 'c\\\'d'" in statement


def test_columns_that_a_table_lacks_are_added() -> None:
    spec = table_spec("revenue", REVENUE)
    present = {column.name for column in (*spec.columns, *INTERNAL_COLUMNS)}
    assert add_columns(spec, 1, present) is None
    assert add_columns(spec, 1, present - {"mean_price", "is_open"}) == (
        "ALTER TABLE `revenue_v1` ADD COLUMN IF NOT EXISTS `mean_price` Nullable(Float64), "
        "ADD COLUMN IF NOT EXISTS `is_open` Bool"
    )


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        ({"key": []}, 'no attribute "key"'),
        ({"key": ["nowhere"]}, "key column nowhere must exist"),
        ({"key": ["mean_price"]}, "key column mean_price must exist and never be null"),
        ({"fields": [{"name": "shop", "type": {"type": "map", "values": "long"}}]}, "revenue.shop"),
        ({"fields": [{"name": "shop", "type": "string"}], "key": ["shop"]}, "window_end"),
        ({"fields": None}, "its schema is no record"),
        ({"key": 1}, 'names of columns as "key"'),
        ({"key": [["shop"]]}, 'names of columns as "key"'),
        ({"retention_ms": "a day"}, '"retention_ms"'),
        ({"retention_ms": 10**30}, '"retention_ms"'),
        ({"retention_ms": -1}, '"retention_ms"'),
        ({"fields": [{"name": "shop", "type": "bytes"}]}, "revenue.shop"),
        ({"fields": [{"name": "shop", "type": _FIXED_TIME}]}, "revenue.shop"),
    ],
)
def test_a_schema_without_a_table_says_why(schema: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidViewSchema, match=complaint):
        table_spec("revenue", changed(**schema))


@pytest.mark.parametrize("schema", ["string", ["null", "long"], {"type": "enum", "name": "e"}])
def test_rows_that_are_no_records_have_no_table(schema: Any) -> None:
    with pytest.raises(InvalidViewSchema, match="revenue: its schema is no record"):
        table_spec("revenue", schema)


def test_a_doc_that_is_no_text_is_none() -> None:
    fields = [{**field, "doc": 5} for field in REVENUE["fields"]]
    spec = table_spec("revenue", changed(doc=None, fields=fields))
    assert (spec.doc, {column.doc for column in spec.columns}) == ("", {""})


def test_a_retention_is_rounded_up_to_seconds() -> None:
    spec = table_spec("revenue", changed(retention_ms=1_500))
    assert spec.retention == timedelta(seconds=1.5)
    assert "toIntervalSecond(2)" in create_table(spec, 1)


def changed(**attributes: Any) -> dict[str, Any]:
    return {**deepcopy(REVENUE), **attributes}


@pytest.mark.parametrize(
    ("stored", "declared", "change"),
    [
        (" TTL window_end + toIntervalSecond(3600) SETTINGS x = 1", 3_600_000, None),
        ("", None, None),
        (" TTL window_end + toIntervalSecond(3600)", None, "REMOVE TTL"),
        (
            " TTL window_end + toIntervalSecond(3600)",
            7_200_000,
            "MODIFY TTL `window_end` + toIntervalSecond(7200)",
        ),
        ("", 1_500, "MODIFY TTL `window_end` + toIntervalSecond(2)"),
    ],
)
def test_a_table_is_given_the_retention_that_is_declared(
    stored: str, declared: int | None, change: str | None
) -> None:
    spec = table_spec("revenue", {**REVENUE, "retention_ms": declared})
    engine = f"ReplacingMergeTree(_revision) ORDER BY (shop){stored}"
    expected = change and f"ALTER TABLE `revenue_v1` {change}"
    assert change_expiry(spec, 1, engine) == expected
