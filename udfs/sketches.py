"""Approximate sets: HyperLogLog sketches as bytes, which merge in any order. No I/O.

The relative standard error of a count is 1.04 / sqrt(2 ** LG_K), 1.6%; 99.7% of counts are less
than 5% off. (Flajolet et al., HyperLogLog, 2007.) Up to some hundred values counts are exact.
"""

from __future__ import annotations

from collections.abc import Iterable

from datasketches import HLL_4, hll_sketch, hll_union

LG_K = 12
STANDARD_ERROR = 0.01625

# A sketch ignores the empty text; the octets of this number are those of no text.
_EMPTY = -1


def sketch_of(values: Iterable[str | None]) -> bytes:
    """Return the sketch of the distinct non-null `values`; at most about 2 KB."""
    sketch = hll_sketch(LG_K, HLL_4)
    for value in values:
        if value is not None:
            sketch.update(value or _EMPTY)
    return bytes(sketch.serialize_compact())


def union(sketches: Iterable[bytes | None]) -> bytes:
    """Return the sketch of all values that stand in `sketches`; a null stands for none."""
    found = [sketch for sketch in sketches if sketch is not None]
    return (
        found[0] if len(found) == 1 else bytes(_merged(found).get_result(HLL_4).serialize_compact())
    )


def count(sketch: bytes) -> int:
    """Return the estimated number of distinct values, the same however they came together."""
    # A sketch that was never merged remembers the order of its values and estimates by it; merged
    # with its equal, it estimates by the values alone.
    estimate: float = _merged([sketch, sketch]).get_estimate()
    return round(estimate)


def _merged(sketches: Iterable[bytes]) -> hll_union:
    result = hll_union(LG_K)
    for sketch in sketches:
        result.update(hll_sketch.deserialize(sketch))
    return result
