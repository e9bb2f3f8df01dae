"""A million damaged records, and records that lie about their size, through the decoder."""

from __future__ import annotations

import io
import random
import resource
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pytest

from schemas.framing import frame
from schemas.streams import PAGE_VIEWS
from tests.schemas.avro import varint
from udfs.decode import Decoder, needed_fields

NOW = 1_750_000_000_000
FRAMES, BATCH = 1_000_000, 20_000
MIB = 2**20
BYTES, LONGS, MAP, DEEP = 2, 3, 4, 5
_WRITER = fastavro.parse_schema(PAGE_VIEWS.schema)


def _with(kind: Any) -> dict[str, Any]:
    return {"type": "record", "name": "Other", "fields": [{"name": "x", "type": kind}]}


SCHEMAS: dict[int, dict[str, Any]] = {
    1: PAGE_VIEWS.schema,
    BYTES: _with("bytes"),
    LONGS: _with({"type": "array", "items": "long"}),
    MAP: _with({"type": "map", "values": "long"}),
    DEEP: _with(["null", "Other"]),
}


def encoded(number: int) -> bytes:
    out = io.BytesIO()
    event = {"event_id": f"e{number}", "event_time": NOW, "user_id": "u", "page_id": f"/{number}"}
    fastavro.schemaless_writer(out, _WRITER, {"status": 200, **event})
    return frame(1, out.getvalue())


def decoder() -> Decoder:
    return Decoder(PAGE_VIEWS, SCHEMAS.get, needed_fields(PAGE_VIEWS, {"page_id", "country"}))


def damaged(value: bytes, chance: random.Random) -> bytes:
    """Return `value` with bytes changed, left out, put in, or all of them random."""
    kind = chance.randrange(5)
    octets = bytearray(value)
    if kind == 0:
        return chance.randbytes(chance.randrange(200))
    if kind == 1:
        return value[:5] + chance.randbytes(chance.randrange(200))
    if kind == 2:
        del octets[chance.randrange(len(octets)) :]
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(octets) + 1)
        octets[at : at + chance.randrange(2)] = chance.randbytes(1)
    return bytes(octets)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_million_damaged_frames_cost_no_good_neighbour() -> None:
    chance, one = random.Random(11), decoder()
    good = [encoded(number) for number in range(BATCH)]
    untouched = np.array([number % 8 == 0 for number in range(BATCH)])
    pages = [f"/{number}" for number in np.flatnonzero(untouched)]
    for _ in range(FRAMES // BATCH):
        values = np.empty(BATCH, dtype=object)
        values[:] = [
            value if keep else damaged(value, chance)
            for value, keep in zip(good, untouched, strict=True)
        ]
        batch = one.decode(values, np.full(BATCH, NOW))
        is_good = np.isin(np.arange(BATCH), batch.rows)
        assert [reason is None for reason in batch.reasons] == is_good.tolist()
        assert is_good[untouched].all()
        found = batch.events.filter(pa.array(untouched[batch.rows]))["page_id"].to_pylist()
        assert found == pages


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    """A process that has 300 MiB left to take."""
    with ProcessPoolExecutor(1, get_context("spawn"), _limit_memory) as found:
        yield found


def _limit_memory() -> None:
    reason_of(1, b"")
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 300 * MIB, size + 300 * MIB))


def reason_of(schema_id: int, body: bytes) -> str | None:
    values = np.empty(1, dtype=object)
    values[0] = frame(schema_id, body)
    reason: str | None = decoder().decode(values, np.full(1, NOW)).reasons[0]
    return reason


@pytest.mark.parametrize("size", [2**28, 2**31 - 1, 2**31, 2**40, 2**62, -1, -(2**40), -(2**63)])
@pytest.mark.parametrize("schema_id", [1, BYTES, LONGS, MAP])
def test_a_length_that_lies_takes_no_memory(
    pool: ProcessPoolExecutor, schema_id: int, size: int
) -> None:
    assert pool.submit(reason_of, schema_id, varint(size) + b"abc").result(60) == "undecodable"


def test_deep_nesting_ends_no_process(pool: ProcessPoolExecutor) -> None:
    assert pool.submit(reason_of, DEEP, varint(1) * 60_000).result(60) == "undecodable"
