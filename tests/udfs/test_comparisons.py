"""A column compares with a number as its values do in Python, one by one."""

from __future__ import annotations

import operator
from typing import Any

import pyarrow as pa
import pytest

from udfs.comparisons import compared

OPERATORS = {
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
WHOLE = [-(2**63), -(2**53) - 1, -1, 0, 1, 2, 2**53 + 1, 2**63 - 1, None]
NUMBERS = [
    *(0, 1, 2.0, 0.5, -0.5, 1.5, 2**53 + 1, 2.0**53, -(2.0**53)),
    *(2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2.0**63, -(2.0**63), 1e30, -1e30),
    *(float("inf"), float("-inf"), float("nan")),
]


@pytest.mark.parametrize("comparison", OPERATORS)
@pytest.mark.parametrize("value", NUMBERS, ids=repr)
@pytest.mark.parametrize("kind", [pa.int64(), pa.int32()], ids=str)
def test_whole_numbers_compare_exactly(comparison: str, value: float, kind: pa.DataType) -> None:
    wide = kind == pa.int64()
    values = [found for found in WHOLE if wide or found is None or abs(found) < 2**31]

    found = compared(pa.chunked_array([pa.array(values, kind)]), comparison, value)

    compare = OPERATORS[comparison]
    assert found.to_pylist() == [None if one is None else compare(one, value) for one in values]


@pytest.mark.parametrize("kind", [pa.float64(), pa.float32()], ids=str)
def test_fractions_compare_with_whole_numbers_of_any_size(kind: pa.DataType) -> None:
    column = pa.array([-1.5, 0.0, float("inf"), None], kind)
    for value in (2**53 + 1, 2**60, 10**30):
        assert compared(column, "<", value).to_pylist() == [True, True, False, None]


@pytest.mark.parametrize(
    ("column", "value"),
    [(pa.array(["a", "b", None]), "a"), (pa.array([True, False, None]), True)],
)
def test_others_compare_with_their_like(column: pa.Array, value: Any) -> None:
    assert compared(column, "==", value).to_pylist() == [True, False, None]
