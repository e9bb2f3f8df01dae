"""Fingerprints of texts against a library that takes them one at a time."""

from __future__ import annotations

import hashlib
import random

import mmh3
import pyarrow as pa
import pytest

from udfs.fingerprints import fingerprints

LONGEST = 256


def texts() -> list[str | None]:
    """Return texts of all lengths around whole blocks, some null, in ASCII and beyond."""
    rng = random.Random(1)
    sizes = [*range(70), LONGEST - 1, LONGEST]
    made = ["".join(rng.choice("abc é語\0") for _ in range(size)) for size in sizes]
    short = [text for text in made if len(text.encode()) <= LONGEST]
    return [None, *short, "x" * LONGEST, None]


def pairs(column: pa.Array | pa.ChunkedArray) -> list[tuple[int | None, int | None]]:
    """Return both halves of each fingerprint."""
    high, low = fingerprints(column)
    return list(zip(high.to_pylist(), low.to_pylist(), strict=True))


def of_library(text: str | None) -> tuple[int | None, int | None]:
    """Return both halves as mmh3 has them."""
    if text is None:
        return None, None
    digest = mmh3.mmh3_x64_128_digest(text.encode())
    first, second = (int.from_bytes(digest[at : at + 8], "little", signed=True) for at in (0, 8))
    return first, second


@pytest.mark.parametrize("pick", [slice(None), slice(5, 40), slice(0, 0), slice(0, 1)])
def test_fingerprints_are_those_of_murmur(pick: slice) -> None:
    column = pa.array(texts(), pa.string())[pick]
    assert pairs(column) == [of_library(text) for text in texts()[pick]]


def test_chunks_and_numbers_are_texts_too() -> None:
    chunks = pa.chunked_array([["a", None], [], ["bcd"]], pa.string())
    assert pairs(chunks) == [of_library("a"), (None, None), of_library("bcd")]
    assert pairs(pa.chunked_array([], pa.string())) == []
    assert pairs(pa.array([17, None])) == [of_library("17"), (None, None)]


def test_long_texts_go_one_by_one() -> None:
    long = "é" * LONGEST
    digest = hashlib.blake2b(long.encode(), digest_size=16).digest()
    halves = tuple(int.from_bytes(digest[at : at + 8], "little", signed=True) for at in (0, 8))
    assert pairs(pa.array(["a", long])) == [of_library("a"), halves]
