"""Sets of fingerprints by group, as lists in a column that hold each member once. No I/O."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from udfs.groups import Groups, Int64s

MEMBER = pa.binary(16)
MEMBERS = pa.list_(MEMBER)

Bools = npt.NDArray[np.bool_]

# As many bits of a member's first half stand beside its group's number in what is sorted.
_BITS = 40


def sets_of(groups: Groups, high: pa.Array, low: pa.Array) -> pa.ListArray:
    """Return the set of each group of rows, whose members are two halves, null for no member."""
    codes, halves = groups.codes, _halves(high, low)
    if high.null_count:
        there = np.asarray(high.is_valid())
        codes, halves = codes[there], np.compress(there, halves, axis=0)
    return _gathered(codes, halves, len(groups))


def union(groups: Groups, sets: pa.ChunkedArray) -> pa.ListArray:
    """Return the union of the sets of each group of rows."""
    lists = _combined(sets)
    sizes = lists.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    codes = np.repeat(groups.codes, sizes)
    return _gathered(codes, _members(lists), len(groups))


def sizes(sets: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return how many members each set has, int64."""
    return pc.list_value_length(sets).cast(pa.int64())


def first_rows(groups: Groups, high: pa.Array, low: pa.Array) -> Int64s:
    """Return rows with each member of each group once, the groups together and ascending."""
    rows = np.flatnonzero(np.asarray(high.is_valid()))
    order, news = _ordered(groups.codes[rows], np.take(_halves(high, low), rows, axis=0))
    found: Int64s = rows[order[news]]
    return found


def _gathered(codes: Int64s, halves: Int64s, count: int) -> pa.ListArray:
    order, news = _ordered(codes, halves)
    chosen = order[news]
    edges = np.zeros(count + 1, dtype=np.int32)
    np.cumsum(np.bincount(codes[chosen], minlength=count), out=edges[1:])
    # Many times faster than an index in brackets, which numpy takes for each number of a row.
    data = pa.py_buffer(np.take(halves, chosen, axis=0))
    members = pa.FixedSizeBinaryArray.from_buffers(MEMBER, len(chosen), [None, data])
    return pa.ListArray.from_arrays(pa.array(edges), members)


def _ordered(codes: Int64s, halves: Int64s) -> tuple[Int64s, Bools]:
    """Return an order in which a group's rows, and in it equal members, stand together.

    Beside it: which of them, in that order, are not the same as the one before.
    """
    first = halves[:, 0].view(np.uint64)
    if len(codes) and codes.max() >= 1 << (64 - _BITS):
        return _exactly_ordered(codes, halves)
    places = codes.astype(np.uint64) << np.uint64(_BITS) | first >> np.uint64(64 - _BITS)
    order = np.argsort(places)
    ordered, places = np.take(halves, order, axis=0), places[order]
    news = np.ones(len(order), dtype=bool)
    news[1:] = places[1:] != places[:-1]
    again = np.flatnonzero(~news)
    if (ordered[again] != ordered[again - 1]).any():
        # Equal in the bits that were sorted by and yet not the same: there may be others between.
        return _exactly_ordered(codes, halves)
    return order, news


def _exactly_ordered(codes: Int64s, halves: Int64s) -> tuple[Int64s, Bools]:
    order = np.lexsort((halves[:, 1], halves[:, 0], codes))
    columns = (codes[order], halves[order, 0], halves[order, 1])
    news = np.zeros(len(order), dtype=bool)
    news[:1] = True
    for column in columns:
        news[1:] |= column[1:] != column[:-1]
    return order, news


def _halves(high: pa.Array, low: pa.Array) -> Int64s:
    """Return both halves side by side; zeros where they are null."""
    pair = (half.fill_null(0).to_numpy(zero_copy_only=False) for half in (high, low))
    return np.stack(list(pair), axis=1)


def _members(lists: pa.ListArray) -> Int64s:
    members = lists.flatten()
    octets = np.frombuffer(members.buffers()[1], dtype=np.int64)
    rows: Int64s = octets.reshape(-1, 2)[members.offset : members.offset + len(members)]
    return rows


def _combined(sets: pa.ChunkedArray) -> pa.ListArray:
    found = sets.combine_chunks()
    return pa.concat_arrays(found.chunks) if isinstance(found, pa.ChunkedArray) else found
