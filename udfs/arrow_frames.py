"""Columns of Arrow into a vectorised function and out of it, without a Python object a value.

PyFlink takes a data frame and turns each of its columns into Arrow's form through the objects that
pandas has for it: for a few columns of text that is more work than reading the events. A frame
whose columns are Arrow's already goes as it is, once the worker's coder is told to; and columns of
bytes come as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
from pyflink.fn_execution.coders import coder_impl
from pyflink.table import utils


def arrow_frame(columns: Mapping[str, pa.Array]) -> pd.DataFrame:
    """Return a frame of `columns`, which are of one length; their values are not touched."""
    arrays = {name: pd.arrays.ArrowExtensionArray(column) for name, column in columns.items()}
    return pd.DataFrame(arrays, copy=False)


def take_arrow_frames() -> None:
    """Have this process's coder give and take Arrow's columns as they are.

    It takes those of an `arrow_frame`, and gives columns of bytes, for `arrow_column`.
    """
    coder_impl.pandas_to_arrow = _to_batch
    coder_impl.arrow_to_pandas = _from_batches


def arrow_column(series: pd.Series[Any]) -> pa.Array:
    """Return the column of bytes that a function was given as `series`."""
    if isinstance(series.dtype, pd.ArrowDtype):
        return pa.chunked_array(series.array.__arrow_array__()).combine_chunks()
    return pa.array(series.to_numpy(), pa.binary())


def _from_batches(
    timezone: Any, field_types: Sequence[Any], batches: Sequence[pa.RecordBatch]
) -> list[Any]:
    """Return the series that PyFlink's own function returns; bytes stay in Arrow's columns."""
    table = pa.Table.from_batches(batches)
    places = range(table.num_columns)
    is_bytes = [pa.types.is_binary(table.column(place).type) for place in places]
    others = [place for place in places if not is_bytes[place]]
    plain = [table.select(others).to_batches(), [field_types[place] for place in others]]
    found = iter(utils.arrow_to_pandas(timezone, plain[1], plain[0])) if others else iter(())
    return [
        pd.Series(pd.arrays.ArrowExtensionArray(table.column(place)))
        if is_bytes[place]
        else next(found)
        for place in places
    ]


def _to_batch(
    schema: pa.Schema, timezone: Any, field_types: Sequence[Any], series: Sequence[Any]
) -> pa.RecordBatch:
    """Return the batch that PyFlink's own function returns."""
    if not all(_is_arrow(frame) for frame in series):
        return utils.pandas_to_arrow(schema, timezone, field_types, series)
    arrays = [
        pa.StructArray.from_arrays(
            [_array(frame[field.name], field.type) for field in kind],
            fields=list(kind),
        )
        for frame, kind in zip(series, schema.types, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _is_arrow(frame: Any) -> bool:
    return isinstance(frame, pd.DataFrame) and all(
        isinstance(kind, pd.ArrowDtype) for kind in frame.dtypes
    )


def _array(column: Any, kind: pa.DataType) -> pa.Array:
    found = pa.chunked_array(column.array.__arrow_array__()).combine_chunks()
    return found if found.type == kind else found.cast(kind)
