"""Fingerprints of texts, 128 bits each, a column at a time. No I/O.

MurmurHash3 x64 128 with seed 0, as by Appleby (https://github.com/aappleby/smhasher), in numpy:
a call for each text costs four times as much. Two of n texts share a fingerprint with odds of
n² / 2¹²⁹, of ten billion once in 7 quintillion: a set of fingerprints is as large as one of texts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

UInt64s = npt.NDArray[np.uint64]
Int64s = npt.NDArray[np.int64]

_BLOCK = 16
# Each block of the longest text is a pass over all that are as long.
_LONGEST = 16 * _BLOCK
# What so many texts take on the way stays in the processor's cache.
_AT_ONCE = 8192
_U = np.uint64
_C1, _C2 = _U(0x87C37B91114253D5), _U(0x4CF5AD432745937F)
_MIX1, _MIX2 = _U(0xFF51AFD7ED558CCD), _U(0xC4CEB9FE1A85EC53)
_WORDS_OF = np.array([(1 << 8 * size) - 1 for size in range(9)], dtype=np.uint64)


def fingerprints(column: Any) -> tuple[pa.Array, pa.Array]:
    """Return both halves of the fingerprints of a column of texts, int64, null where it is."""
    texts = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(texts, pa.ChunkedArray):
        texts = pa.concat_arrays(texts.chunks) if texts.num_chunks else pa.array([], pa.string())
    if texts.type != pa.string():
        texts = texts.cast(pa.string())
    halves = _hashed(texts)
    nulls = np.asarray(texts.is_null()) if texts.null_count else None
    high, low = (pa.array(half.view(np.int64), mask=nulls) for half in halves)
    return high, low


def with_fingerprints(events: pa.Table, fields: Iterable[str]) -> pa.Table:
    """Return `events` with the fingerprints of `fields` beside them, for `fingerprinted`."""
    for field in fields:
        for name, half in zip(_halves_of(field), fingerprints(events[field]), strict=True):
            events = events.append_column(name, half)
    return events


def fingerprinted(events: pa.Table, field: str) -> tuple[pa.Array, pa.Array]:
    """Return both halves of the fingerprints of `field`, which may be there already."""
    high, low = _halves_of(field)
    if high not in events.column_names:
        return fingerprints(events[field])
    return events[high].combine_chunks(), events[low].combine_chunks()


def _halves_of(field: str) -> tuple[str, str]:
    return f"high {field}", f"low {field}"


def _hashed(texts: pa.StringArray) -> tuple[UInt64s, UInt64s]:
    count = len(texts)
    high, low = np.zeros(count, dtype=np.uint64), np.zeros(count, dtype=np.uint64)
    if not count:
        return high, low
    _, edges, data = texts.buffers()
    offsets = np.frombuffer(edges, np.int32)[texts.offset : texts.offset + count + 1]
    starts, sizes = offsets[:-1].astype(np.int64), np.diff(offsets).astype(np.int64)
    octets = np.frombuffer(data, np.uint8) if data else np.zeros(0, np.uint8)
    words = _words(octets)
    for begin in range(0, count, _AT_ONCE):
        some = slice(begin, begin + _AT_ONCE)
        _hash(high[some], low[some], words, starts[some], sizes[some])
    for row in np.flatnonzero(sizes > _LONGEST):
        value = octets[starts[row] : starts[row] + sizes[row]].tobytes()
        digest = hashlib.blake2b(value, digest_size=_BLOCK).digest()
        high[row], low[row] = np.frombuffer(digest, dtype="<u8")
    return high, low


def _hash(high: UInt64s, low: UInt64s, words: UInt64s, starts: Int64s, sizes: Int64s) -> None:
    """Set `high` and `low` of texts of `sizes` octets, none of them long."""
    begin = 0
    rows = np.flatnonzero((sizes > 0) & (sizes <= _LONGEST))
    while len(rows):
        at, left = starts[rows] + begin, sizes[rows] - begin
        _add_block(high, low, rows, (_word(words, at, left), _word(words, at + 8, left - 8)), left)
        begin += _BLOCK
        rows = rows[left > _BLOCK]
    _finish(high, low, sizes)


def _words(octets: npt.NDArray[np.uint8]) -> UInt64s:
    """Return the eight octets that begin at each place, zeros past the end, as one number."""
    padded = np.zeros(len(octets) + 3 * 8, dtype=np.uint8)
    padded[: len(octets)] = octets
    return np.ndarray(len(octets) + 2 * 8, dtype="<u8", buffer=padded, strides=(1,))


def _word(words: UInt64s, at: Int64s, left: Int64s) -> UInt64s:
    """Return up to eight octets from `at`, no more than are `left`."""
    found: UInt64s = words[np.minimum(at, len(words) - 1)] & _WORDS_OF[np.clip(left, 0, 8)]
    return found


def _add_block(
    high: UInt64s, low: UInt64s, rows: Int64s, block: tuple[UInt64s, UInt64s], left: Int64s
) -> None:
    first, second = block
    one = high[rows] ^ (_rotated(first * _C1, 31) * _C2)
    two = low[rows] ^ (_rotated(second * _C2, 33) * _C1)
    # The last octets, fewer than a block, are only mixed in.
    whole = left >= _BLOCK
    if whole.any():
        mixed = (_rotated(one, 27) + low[rows]) * _U(5) + _U(0x52DCE729)
        two = np.where(whole, (_rotated(two, 31) + mixed) * _U(5) + _U(0x38495AB5), two)
        one = np.where(whole, mixed, one)
    high[rows], low[rows] = one, two


def _finish(high: UInt64s, low: UInt64s, sizes: Int64s) -> None:
    lengths = sizes.astype(np.uint64)
    high ^= lengths
    low ^= lengths
    high += low
    low += high
    _avalanche(high)
    _avalanche(low)
    high += low
    low += high


def _avalanche(half: UInt64s) -> None:
    for factor in (_MIX1, _MIX2):
        half ^= half >> _U(33)
        half *= factor
    half ^= half >> _U(33)


def _rotated(values: UInt64s, bits: int) -> UInt64s:
    return (values << _U(bits)) | (values >> _U(64 - bits))
