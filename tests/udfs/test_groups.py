"""Groups of rows and their order, against plain loops and sorts."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

from udfs.groups import Groups, among, groups_of, order_by


def table(seed: int, rows: int) -> pa.Table:
    """Return some rows of two columns, in chunks of any size."""
    rng = random.Random(seed)
    parts = [rng.randrange(1, 40) for _ in range(rows // 20)]
    chunks = [[{"a": rng.choice("xyz"), "b": rng.randrange(4)} for _ in range(n)] for n in parts]
    schema = pa.schema([("a", pa.string()), ("b", pa.int64())])
    return pa.concat_tables([pa.Table.from_pylist(chunk, schema=schema) for chunk in chunks])


@pytest.mark.parametrize("names", [("a",), ("b",), ("a", "b"), ("b", "a")])
def test_groups_are_numbered_as_they_appear(names: tuple[str, ...]) -> None:
    rows = table(1, 400)
    seen: dict[tuple[object, ...], int] = {}
    codes, firsts = [], []
    for place, row in enumerate(rows.to_pylist()):
        key = tuple(row[name] for name in names)
        if key not in seen:
            seen[key] = len(seen)
            firsts.append(place)
        codes.append(seen[key])
    groups = groups_of(rows, names)
    assert (groups.codes.tolist(), groups.firsts.tolist()) == (codes, firsts)
    assert [tuple(row.values()) for row in groups.first(rows, names).to_pylist()] == list(seen)


def test_a_fold_has_a_row_for_each_group() -> None:
    rows = pa.table({"a": ["x", "y", "x", "y"], "b": [1, 2, None, 4], "c": [7, 8, 9, 6]})
    groups = groups_of(rows, ["a"])
    folded = groups.fold(rows, [("c", "min"), ("b", "sum")])
    assert [column.to_pylist() for column in folded] == [[7, 6], [1, 6]]
    assert groups.fold(rows, []) == []


def test_lists_keep_the_order_of_rows() -> None:
    groups = Groups(np.array([1, 0, 1, 1]), np.array([1, 0]))
    values = np.array(["a", "b", "c", "d"], dtype=object)
    assert [found.tolist() for found in groups.lists(values)] == [["b"], ["a", "c", "d"]]


def test_nothing_has_no_groups() -> None:
    empty = table(1, 20).slice(0, 0)
    groups = groups_of(empty, ["a", "b"])
    assert (len(groups), groups.lists(np.array([], dtype=object))) == (0, [])
    assert len(order_by(*[np.zeros(0, dtype=np.int64)] * 3)) == 0


def test_rows_without_columns_are_one_group() -> None:
    assert groups_of(table(1, 40), []).firsts.tolist() == [0]


def test_rows_among_others() -> None:
    rows = pa.table({"a": ["x", "y", "x"], "b": [1, 1, 2]})
    others = pa.table({"b": [2, 1], "a": ["x", "y"]})
    assert among(rows, others, ["a", "b"]).tolist() == [False, True, True]
    assert among(rows, others.slice(0, 0), ["a"]).tolist() == [False, False, False]


@pytest.mark.parametrize("spread", [3, 10**6, 2**62])
def test_rows_are_ordered_by_group_then_value_then_tie(spread: int) -> None:
    rng = random.Random(spread)
    rows = [(rng.randrange(5), rng.randrange(-spread, spread), tie) for tie in range(300)]
    rng.shuffle(rows)
    columns = [np.array(column, dtype=np.int64) for column in zip(*rows, strict=True)]
    assert [rows[place] for place in order_by(*columns).tolist()] == sorted(rows)
