"""One value at a time gives what a batch gives: the same good events, the same dead letters."""

from __future__ import annotations

import io
import math
import random
from dataclasses import replace
from typing import Any

import fastavro
import numpy as np
import pytest

from schemas.framing import frame
from schemas.streams import DEVICE_READINGS, PAGE_VIEWS, TRANSACTIONS, Stream
from udfs.decode import Decoder, needed_fields
from udfs.decode_row import RowDecoder

NOW = 1_750_000_000_000
OWN, OLDER, WIDER, NARROW, JAVA = 7, 3, 9, 11, 13
GOOD = {
    "event_id": "tx-1",
    "event_time": NOW,
    "user_id": "ü",
    "card_id": "c",
    "amount_cents": 1234,
    "merchant": None,
    "latitude": 48.5,
    "longitude": -2.25,
}
SCHEMAS: dict[int, dict[str, Any]] = {
    OWN: TRANSACTIONS.schema,
    OLDER: {
        **TRANSACTIONS.schema,
        "fields": [f for f in TRANSACTIONS.schema["fields"] if f["name"] != "latitude"],
    },
    WIDER: {
        **TRANSACTIONS.schema,
        "fields": [*TRANSACTIONS.schema["fields"], {"name": "note", "type": "string"}],
    },
    NARROW: {
        **TRANSACTIONS.schema,
        "fields": [
            field | ({"type": "int"} if field["name"] == "amount_cents" else {})
            for field in TRANSACTIONS.schema["fields"]
        ],
    },
}


def value(schema_id: int = OWN, **changes: Any) -> bytes:
    out = io.BytesIO()
    schema = fastavro.parse_schema(SCHEMAS[schema_id])
    fastavro.schemaless_writer(out, schema, {"note": "n"} | GOOD | changes)
    return frame(schema_id, out.getvalue())


def both(values: list[bytes | None], timestamp: int = NOW) -> tuple[list[Any], list[Any]]:
    """Return what the batch and the single values give, None for a dead letter."""
    fields = needed_fields(TRANSACTIONS, {"latitude", "longitude", "merchant"})
    array = np.empty(len(values), dtype=object)
    array[:] = values
    batch = Decoder(TRANSACTIONS, SCHEMAS.get, fields).decode(
        array, np.full(len(values), timestamp)
    )
    at_once: list[Any] = [None] * len(values)
    for row, event in zip(batch.rows.tolist(), batch.events.to_pylist(), strict=True):
        at_once[row] = event | {"event_time": timestamp}
    one = RowDecoder(TRANSACTIONS, SCHEMAS.get, fields)
    singly = [one.decode(found, timestamp) for found in values]
    kept = [event and {name: event[name] for name in fields} for event in singly]
    return at_once, kept


def test_what_java_says_of_its_strings_does_not_slow_down_an_event(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(SCHEMAS, JAVA, _as_java_writes_it(TRANSACTIONS.schema))
    monkeypatch.delattr(RowDecoder, "_resolved")
    assert both([value(JAVA)]) == ([GOOD], [GOOD])


def _as_java_writes_it(schema: Any) -> Any:
    if schema == "string":
        return {"type": "string", "avro.java.string": "String"}
    if isinstance(schema, list):
        return [_as_java_writes_it(branch) for branch in schema]
    if isinstance(schema, dict) and "fields" in schema:
        fields = schema["fields"]
        return schema | {"fields": [f | {"type": _as_java_writes_it(f["type"])} for f in fields]}
    return schema


def test_a_good_event_comes_with_its_fields() -> None:
    assert both([value()]) == ([GOOD], [GOOD])


@pytest.mark.parametrize(
    "bad",
    [
        None,
        b"",
        b"\0\0\0",
        b"{}",
        b"\1" + value()[1:],
        frame(99, value()[5:]),
        value()[:-3],
        value() + b"\0",
        value(merchant="x" * 70_000),
        value(event_id=""),
        value(event_time=NOW + 1),
        value(user_id="u" * 257),
        value(user_id="ü" * 129),
        value(amount_cents=0),
        value(latitude=90.5),
        value(latitude=math.nan),
        value(longitude=-math.inf),
        value().replace("ü".encode(), b"\xff\xfe"),
    ],
)
def test_a_dead_letter_is_one_here_too(bad: bytes | None) -> None:
    assert both([bad, value()]) == ([None, GOOD], [None, GOOD])


@pytest.mark.parametrize(
    ("schema_id", "event"),
    [(OLDER, GOOD | {"latitude": None}), (WIDER, GOOD), (NARROW, GOOD)],
)
def test_other_writers_schemas_are_resolved(schema_id: int, event: dict[str, Any]) -> None:
    assert both([value(schema_id)]) == ([event], [event])


def test_broken_bytes_are_judged_alike() -> None:
    chance = random.Random(1)
    values: list[bytes | None] = []
    for _ in range(3_000):
        broken = bytearray(value(chance.choice((OWN, WIDER))))
        for _ in range(chance.randrange(3)):
            broken[chance.randrange(5, len(broken))] = chance.randrange(256)
        values.append(bytes(broken[: len(broken) - chance.choice((0, 0, 0, 1, 4))]))
    at_once, singly = both(values)
    assert 0 < sum(event is None for event in at_once) < len(values)
    assert singly == at_once


@pytest.mark.parametrize("name", ["status", "percent", "unread"])
def test_a_number_that_an_int_has_no_room_for_is_judged_alike(name: str) -> None:
    own = [*PAGE_VIEWS.schema["fields"], {"name": "percent", "type": ["null", "int"]}]
    schema = {**PAGE_VIEWS.schema, "fields": [*own, {"name": "unread", "type": "int"}]}
    # A long's bytes are those of an int.
    wide = {**schema, "fields": [{**f, "type": _longer(f["type"])} for f in schema["fields"]]}
    event = {f["name"]: _any(f["type"]) for f in wide["fields"]}
    lenient = replace(PAGE_VIEWS, required=(), rules=())
    columns = needed_fields(lenient, {"status", "page_id"})
    one = RowDecoder(lenient, {OWN: schema}.get, columns)
    batch = Decoder(lenient, {OWN: schema}.get, columns)
    for number in (2**31 - 1, -(2**31), 2**31, -(2**31) - 1, 2**31 + 5, 2**32, 2**40):
        out = io.BytesIO()
        fastavro.schemaless_writer(out, fastavro.parse_schema(wide), event | {name: number})
        value = frame(OWN, out.getvalue())
        found = batch.decode(np.array([value], dtype=object), np.full(1, NOW)).reasons[0]
        assert (one.decode(value, NOW) is None) == (found is not None)
        # What nobody reads is refused only where its bytes are not as many as an int's.
        assert name != "status" or (found is None) == (-(2**31) <= number < 2**31)


def _longer(avro_type: Any) -> Any:
    if isinstance(avro_type, list):
        return [_longer(branch) for branch in avro_type]
    return "long" if avro_type == "int" else avro_type


@pytest.mark.parametrize("stream", [PAGE_VIEWS, DEVICE_READINGS, TRANSACTIONS])
def test_events_of_the_own_schema_take_the_short_way(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("the batch's decoder was asked")

    lenient = replace(stream, required=(), rules=())
    event = {field["name"]: _any(field["type"]) for field in stream.schema["fields"]}
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(stream.schema), event)
    decoder = RowDecoder(lenient, {OWN: stream.schema}.get, tuple(event))
    monkeypatch.setattr(Decoder, "decode", refused)
    assert decoder.decode(frame(OWN, out.getvalue()), NOW) == event


def _any(avro_type: Any) -> Any:
    if isinstance(avro_type, dict):
        return NOW
    if isinstance(avro_type, list):
        return _any(avro_type[-1])
    return {"string": "x", "double": 0.5}.get(avro_type, 200)
