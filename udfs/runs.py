"""Sorted runs of fingerprints: searched, merged, and remembered up to a bound. No I/O."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from udfs.fingerprints import fingerprints

MEMORY_BYTES = 256 << 20
"""What a worker keeps of all buckets' runs."""

_BYTES = 16

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Prints = tuple[Int64s, Int64s]
"""Fingerprints: their first and their second halves."""


@dataclass(frozen=True)
class Run:
    """Distinct fingerprints in the order of their halves; `rows` has what belongs to each."""

    high: Int64s
    low: Int64s
    rows: pa.Table | None = None

    def __len__(self) -> int:
        return len(self.high)

    @property
    def size(self) -> int:
        """Bytes in memory."""
        rows = 0 if self.rows is None else self.rows.nbytes
        return int(self.high.nbytes + self.low.nbytes + rows)

    def places(self, high: Int64s, low: Int64s) -> Int64s:
        """Return where in the run each of other fingerprints is; -1 where it is not."""
        found = np.full(len(high), -1, dtype=np.int64)
        place = np.searchsorted(self.high, high)
        open_rows = np.flatnonzero(place < len(self.high))
        # Several may share their first half; they stand together.
        while len(open_rows):
            open_rows = open_rows[self.high[place[open_rows]] == high[open_rows]]
            same = self.low[place[open_rows]] == low[open_rows]
            found[open_rows[same]] = place[open_rows[same]]
            open_rows = open_rows[~same]
            place[open_rows] += 1
            open_rows = open_rows[place[open_rows] < len(self.high)]
        return found


class RunMemory:
    """The runs of many buckets as they were last read or written, up to `most_bytes`.

    The bucket that was looked at longest ago is forgotten first.
    """

    def __init__(self, most_bytes: int = MEMORY_BYTES) -> None:
        self._most_bytes = most_bytes
        self._buckets: OrderedDict[int, dict[int, Run]] = OrderedDict()

    def of(self, bucket: int) -> dict[int, Run]:
        """Return what is remembered of `bucket`, by id, to be added to."""
        runs = self._buckets.setdefault(bucket, {})
        self._buckets.move_to_end(bucket)
        return runs

    def trim(self) -> None:
        """Forget buckets until the others fit."""
        sizes = {key: sum(run.size for run in runs.values()) for key, runs in self._buckets.items()}
        total = sum(sizes.values())
        while total > self._most_bytes:
            key, _ = self._buckets.popitem(last=False)
            total -= sizes[key]


def merged(older: Run, newer: Run) -> Run:
    """Return the run of the fingerprints of both, which have none in common and no rows."""
    high = np.concatenate([older.high, newer.high])
    low = np.concatenate([older.low, newer.low])
    order = ascending(high, low)
    return Run(high[order], low[order])


def ascending(high: Int64s, low: Int64s) -> Int64s:
    """Return the order of fingerprints; those that are runs one after the other take least time."""
    order: Int64s = np.argsort(high, kind="stable")
    ordered = high[order]
    if (ordered[1:] == ordered[:-1]).any():
        order = np.lexsort((low, high))
    return order


def begins(high: Int64s, low: Int64s) -> Bools:
    """Return which of ordered fingerprints are not the same as the one before."""
    found = np.ones(len(high), dtype=bool)
    found[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    return found


def prints_of(columns: Sequence[Any]) -> Prints:
    """Return the fingerprints of rows of texts, of which none is null."""
    found = [_halves(column) for column in columns]
    return found[0] if len(found) == 1 else prints_of_words(*(half for of in found for half in of))


def prints_of_words(*words: Int64s) -> Prints:
    """Return the fingerprints of rows of integers, a column each."""
    rows = np.ascontiguousarray(np.stack(words, axis=1))
    edges = np.arange(len(rows) + 1, dtype=np.int32) * (rows.itemsize * len(words))
    buffers = (pa.py_buffer(edges), pa.py_buffer(rows))
    return _halves(pa.StringArray.from_buffers(len(rows), *buffers))


def _halves(texts: Any) -> Prints:
    high, low = fingerprints(texts)
    return np.asarray(high), np.asarray(low)


def to_binary(prints: Prints, counts: Int64s) -> pa.Array:
    """Return fingerprints as a column that has so many of them in each row, 16 bytes each."""
    edges = np.append(0, np.cumsum(counts)) * _BYTES
    pairs = np.ascontiguousarray(np.stack(prints, axis=1))
    buffers = [None, pa.py_buffer(edges.astype(np.int32)), pa.py_buffer(pairs)]
    return pa.BinaryArray.from_buffers(pa.binary(), len(counts), buffers)


def from_binary(column: pa.ChunkedArray) -> Prints:
    """Return the fingerprints in all rows of a column, one after the other."""
    pairs = [_pairs(chunk) for chunk in column.chunks]
    both = np.concatenate([np.zeros((0, 2), dtype=np.int64), *pairs])
    return np.ascontiguousarray(both[:, 0]), np.ascontiguousarray(both[:, 1])


def _pairs(column: pa.Array) -> Int64s:
    _, edges, data = column.buffers()
    if data is None or not data.size:
        return np.zeros((0, 2), dtype=np.int64)
    begin, end = np.frombuffer(edges, np.int32)[[column.offset, column.offset + len(column)]]
    return np.frombuffer(data, np.int64, (end - begin) // 8, begin).reshape(-1, 2)
