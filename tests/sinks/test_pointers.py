"""The statements that let one public name show one of two versions."""

from __future__ import annotations

import pytest

from sinks.pointers import VersionsDiffer, joint_columns, point, switching_view, versions_in
from sinks.tables import TableColumn

OLD = (TableColumn("shop", "String"), TableColumn("sales", "Int64", "Sold."))
NEW = (*OLD, TableColumn("returns", "Int64"))


def test_a_switching_view_in_full() -> None:
    assert switching_view("revenue", (1, OLD), (2, NEW), "Shops.") == (
        "CREATE OR REPLACE VIEW `revenue`\n"
        "(\n"
        "    `shop` String,\n"
        "    `sales` Int64 COMMENT 'Sold.',\n"
        "    `returns` Nullable(Int64)\n"
        ")\n"
        "AS SELECT `shop`, `sales`, CAST(NULL AS Nullable(Int64)) AS `returns` "
        "FROM `revenue_v1` FINAL WHERE (SELECT argMax(version, effective_from) "
        "FROM `view_pointers` WHERE view = 'revenue' "
        "AND effective_from <= initialQueryStartTime()) != 2\n"
        "UNION ALL\n"
        "SELECT `shop`, `sales`, CAST(`returns` AS Nullable(Int64)) AS `returns` "
        "FROM `revenue_v2` FINAL WHERE (SELECT argMax(version, effective_from) "
        "FROM `view_pointers` WHERE view = 'revenue' "
        "AND effective_from <= initialQueryStartTime()) = 2\n"
        "COMMENT 'Version 1 or 2. Shops.'"
    )


def test_the_version_shown_may_be_the_one_without_a_pointer() -> None:
    statement = switching_view("revenue", (1, OLD), (2, NEW), "Shops.", shown=2)
    assert versions_in(statement.rpartition("COMMENT '")[2]) == (2, 1)
    before, after = statement.split("UNION ALL")
    assert "`revenue_v2` FINAL" in before
    assert before.endswith("initialQueryStartTime()) != 1\n")
    assert "`revenue_v1` FINAL" in after
    assert "initialQueryStartTime()) = 1\n" in after
    # The columns are the same, whichever it is.
    plain = switching_view("revenue", (1, OLD), (2, NEW), "Shops.")
    assert statement.partition("AS SELECT")[0] == plain.partition("AS SELECT")[0]


def test_all_views_switch_in_one_insert_or_not_at_all() -> None:
    assert point({"a": 2, "b": 3}, 1_000, 7) == (
        "INSERT INTO `view_pointers` SELECT p.1, p.2, toDateTime(1000, 'UTC'), 7 "
        "FROM (SELECT arrayJoin([('a', 2), ('b', 3)]) AS p) "
        "WHERE now64(3) < toDateTime64(1000 - 1, 3, 'UTC')"
    )


@pytest.mark.parametrize(
    ("old", "new", "joint"),
    [
        ("Int64", "Int64", "Int64"),
        ("Int32", "Int64", "Int64"),
        ("Int64", "Float64", "Float64"),
        ("Int64", "Nullable(Int64)", "Nullable(Int64)"),
        ("Nullable(Int32)", "Float32", "Nullable(Float64)"),
    ],
)
def test_a_column_of_both_versions_has_a_type_for_both(old: str, new: str, joint: str) -> None:
    columns = joint_columns("v", (TableColumn("x", old),), (TableColumn("x", new),))
    assert columns == (TableColumn("x", joint),)


def test_a_column_that_became_something_else_needs_a_new_name() -> None:
    with pytest.raises(VersionsDiffer, match=r"v\.x was Int64 and is String"):
        joint_columns("v", (TableColumn("x", "Int64"),), (TableColumn("x", "String"),))


def test_the_comment_of_a_public_view_names_its_versions() -> None:
    assert versions_in("Version 12. What each shop's customers pay.") == (12,)
    assert versions_in("Version 1 or 12. What each shop's customers pay.") == (1, 12)
    assert versions_in("What each shop's customers pay.") == ()
