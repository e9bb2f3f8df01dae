"""The Python functions that views call in SQL, as Flink sees them."""

from __future__ import annotations

from typing import Any

import numpy as np

from udfs import ewma


def ewma_baseline() -> Any:
    """Return `ewma_baseline(minute, views)`, for an OVER window that ends with the current row."""
    from pyflink.table import DataTypes
    from pyflink.table.udf import udaf

    return udaf(ordered_baseline, result_type=DataTypes.DOUBLE(), func_type="pandas")


def ordered_baseline(minutes: Any, views: Any) -> float | None:
    """Return the baseline of the newest of `minutes`, two series of equal length in any order."""
    in_order = views.to_numpy(dtype=np.float64)[np.argsort(minutes.to_numpy(), kind="stable")]
    return ewma.baseline(in_order)
