"""Compare a column with a number as exactly as Python does, whatever type each has. No I/O.

Arrow compares whole numbers with a fraction as fractions, and refuses those beyond 2^53.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_COMPARE = {
    "==": (pc.equal, operator.eq),
    "!=": (pc.not_equal, operator.ne),
    ">=": (pc.greater_equal, operator.ge),
    "<=": (pc.less_equal, operator.le),
    ">": (pc.greater, operator.gt),
    "<": (pc.less, operator.lt),
}
# Between two whole numbers: which of them stands for a fraction.
_ROUND = {">=": math.ceil, "<": math.ceil, "<=": math.floor, ">": math.floor}
_LEAST, _GREATEST = -(1 << 63), (1 << 63) - 1


def compared(column: Any, comparison: str, value: Any) -> Any:
    """Tell which values of `column` compare true to `value`: booleans, null where it is."""
    columns, numbers = _COMPARE[comparison]
    if isinstance(value, int | float) and not isinstance(value, bool):
        if pa.types.is_floating(column.type):
            value = float(value)
        elif pa.types.is_integer(column.type):
            if not _LEAST <= value <= _GREATEST or (comparison not in _ROUND and value % 1):
                # Beyond 64 bits, no number, or equal to no whole one: all compare to it alike.
                alike = pa.scalar(numbers(0, value))
                return pc.if_else(pc.is_valid(column), alike, pa.scalar(None, pa.bool_()))
            value = _ROUND.get(comparison, int)(value)
    return columns(column, pa.scalar(value))
