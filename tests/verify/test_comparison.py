"""How tables are cut into buckets, and buckets into queries."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from replay.comparison import (
    MAX_BUCKETS,
    MAX_RANGES,
    Bucket,
    Comparison,
    StoredTable,
    bucket_size,
    bucket_start,
    chunks,
    compared_columns,
    differing_buckets,
    numeric_columns,
    row_query,
    schema_changes,
    stored_table,
)

TIME = "DateTime64(3, 'UTC')"
COLUMNS = [
    ("page", "String", True),
    ("window_start", TIME, True),
    ("window_end", TIME, False),
    ("views", "Int64", False),
    ("_revision", "UInt64", False),
    ("_partition", "UInt32", False),
    ("_emitted_at", TIME, False),
]
ENGINE = "ReplacingMergeTree(_revision) ORDER BY (window_start, page)"


def test_a_table_is_what_clickhouse_says_without_our_own_columns() -> None:
    ttl = f"{ENGINE} TTL window_end + toIntervalSecond(86400) SETTINGS index_granularity = 8192"
    assert stored_table("pages_v1", COLUMNS, ttl) == StoredTable(
        "pages_v1",
        {"page": "String", "window_start": TIME, "window_end": TIME, "views": "Int64"},
        ("page", "window_start"),
        timedelta(days=1),
    )
    assert stored_table("pages_v1", COLUMNS, ENGINE).retention is None


@pytest.mark.parametrize(
    ("span", "size"),
    [
        (timedelta(), timedelta(minutes=1)),
        (timedelta(minutes=4096), timedelta(minutes=1)),
        (timedelta(minutes=4097), timedelta(minutes=5)),
        (timedelta(days=30), timedelta(minutes=15)),
        (timedelta(days=3650), timedelta(days=1)),
        (timedelta(days=145000), timedelta(days=364)),
    ],
)
def test_buckets_are_as_fine_as_their_number_allows(span: timedelta, size: timedelta) -> None:
    assert bucket_size(0, span // timedelta(milliseconds=1)) == size
    assert span / size <= MAX_BUCKETS


def test_buckets_before_the_epoch_count_backwards() -> None:
    assert bucket_start(-1, timedelta(days=1)) == datetime(1969, 12, 31, tzinfo=UTC)


def test_only_buckets_with_other_rows_or_hashes_differ() -> None:
    old = {1: Bucket(2, 9, ()), 2: Bucket(2, 9, ()), 3: Bucket(1, 5, ()), 5: Bucket(1, 0, ())}
    new = {1: Bucket(2, 9, ()), 2: Bucket(2, 8, ()), 4: Bucket(1, 5, ()), 5: Bucket(2, 0, ())}
    assert differing_buckets(old, new) == [2, 3, 4, 5]


def test_chunks_hold_about_the_rows_allowed_and_a_bucket_at_least() -> None:
    rows = {1: 40, 2: 60, 3: 1, 4: 500, 5: 5}
    assert list(chunks([1, 2, 3, 4, 5], rows, 100)) == [[1, 2], [3], [4], [5]]
    assert list(chunks([], {}, 100)) == []
    many = list(range(0, 2 * MAX_RANGES * 2, 2))
    assert [len(chunk) for chunk in chunks(many, dict.fromkeys(many, 1), 10**6)] == [200, 200]


def test_adjacent_buckets_are_asked_for_as_one_range() -> None:
    table = stored_table("t", COLUMNS)
    size = timedelta(hours=1)
    compared = Comparison("t", table, table, (), (), size=size)
    query = row_query(compared, [1, 2, 3, 7])
    # Two ranges on either side of the join.
    assert query.count("`window_start` >= ") == 4
    assert "`window_start` >= fromUnixTimestamp64Milli(toInt64(3600000), 'UTC')" in query
    assert "`window_start` < fromUnixTimestamp64Milli(toInt64(14400000), 'UTC')" in query


def test_columns_of_two_schemas() -> None:
    old = StoredTable("t", {"k": "String", "a": "Int64", "b": "Nullable(Float64)"}, ("k",))
    new = StoredTable("t", {"k": "String", "b": "Float64", "a": "String", "c": "Bool"}, ("k",))
    assert schema_changes(old, new) == (
        "a was Int64, is String",
        "b was Nullable(Float64), is Float64",
        "c is new: Bool",
    )
    assert numeric_columns(old, new) == ("b",)
    shared = compared_columns(old, new, count_schema_changes=False)
    assert [(column.name, column.as_text) for column in shared] == [("a", True), ("b", False)]
    every = compared_columns(old, new, count_schema_changes=True)
    assert [(column.name, column.in_old) for column in every][-1] == ("c", False)
