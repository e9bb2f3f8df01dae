"""The rows of a view's topic as they stand, and how they differ from what they must be."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pandas as pd
import pyarrow as pa
import pyruhvro

from bench.answers import committed_values
from deploy.console import ERR
from deploy.settings import Settings
from jobs.views import View
from schemas.framing import HEADER_BYTES

_ROWS_AT_ONCE = 200_000


def newest(settings: Settings, view: View, version: int = 1) -> pd.DataFrame:
    """Return the newest revision of each row of `view`, times as epoch milliseconds."""
    schema = json.dumps(view.avro_schema)
    parts, bodies = [], []
    for value in committed_values(settings, view.topic(version)):
        bodies.append(value[HEADER_BYTES:])
        if len(bodies) == _ROWS_AT_ONCE:
            parts.append(decoded(bodies, schema))
            bodies = []
    parts.append(decoded(bodies, schema))
    table = pa.concat_tables(parts)
    rows: pd.DataFrame = table.to_pandas()
    # A key stays in one partition, which is read in its order.
    return rows.drop_duplicates(list(view.key), keep="last")


def decoded(bodies: list[bytes], schema: str) -> pa.Table:
    """Return the rows in Avro bodies of `schema`, times as epoch milliseconds."""
    table = pa.Table.from_batches([pyruhvro.deserialize_array(bodies, schema)])
    columns = [
        column.cast(pa.timestamp("ms", "UTC")).cast(pa.int64())
        if pa.types.is_timestamp(column.type)
        else column
        for column in table.columns
    ]
    return pa.table(columns, names=table.column_names)


def difference(found: pd.DataFrame, expected: pd.DataFrame) -> str:
    """Return how two tables of the same columns differ as sets of rows; empty if they do not."""
    columns = list(expected.columns)
    counts = [
        _plain(table[columns]).value_counts(dropna=False).rename(name)
        for table, name in ((found, "found"), (expected, "expected"))
    ]
    both = pd.concat(counts, axis=1).fillna(0)
    missing = both[both["expected"] > both["found"]]
    strange = both[both["found"] > both["expected"]]
    if missing.empty and strange.empty:
        return ""
    examples = " and ".join(
        f"{name} " + " ".join(map("{}={}".format, columns, some.index[0]))
        for name, some in (("no", missing), ("not expected:", strange))
        if not some.empty
    )
    return f"{len(missing):,} rows missing, {len(strange):,} too many: {examples}"


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with all numbers as floats, as pandas has them beside nulls anyway."""
    numbers = table.select_dtypes("number").columns
    return table.astype(dict.fromkeys(numbers, "float64"))


def await_rows(
    find: Callable[[], pd.DataFrame], expected: pd.DataFrame, seconds: float = 120.0
) -> tuple[int, bool]:
    """Wait until the rows found are as expected; return how many there are, and if they are."""
    deadline = time.monotonic() + seconds
    while True:
        found = find()
        is_over = time.monotonic() > deadline
        # Counting is cheap beside comparing.
        differs = "too few rows"
        if is_over or len(found) >= len(expected):
            differs = difference(found, expected)
        if is_over and differs:
            ERR.print(f"    {differs}")
        if is_over or not differs:
            return len(found), not differs
        time.sleep(1)
