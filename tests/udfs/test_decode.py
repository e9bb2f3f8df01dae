"""Good events among bad ones: verdicts, reasons and columns, exactly."""

import io
import random
from typing import Any

import fastavro
import numpy as np
import pytest

from bench.generators import orders as shop
from schemas.framing import frame
from schemas.streams import ORDERS, PAGE_VIEWS
from udfs.decode import Batch, Decoder, needed_fields
from udfs.decode_row import RowDecoder

NOW = 1_750_000_000_000
ID, OLD_ID, WIDE_ID = 7, 3, 9
OLD: dict[str, Any] = {
    "type": "record",
    "name": "PageView",
    "fields": [
        {"name": "event_id", "type": "string"},
        {"name": "event_time", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "user_id", "type": "string"},
        {"name": "page_id", "type": "string"},
        {"name": "status", "type": "int"},
    ],
}
WIDE: dict[str, Any] = {
    **PAGE_VIEWS.schema,
    "fields": [
        *PAGE_VIEWS.schema["fields"],
        {"name": "scroll", "type": {"type": "array", "items": "int"}, "default": []},
        {"name": "campaign", "type": ["null", "string"], "default": None},
    ],
}
FIELDS = needed_fields(PAGE_VIEWS, {"country"})
SCHEMAS = {ID: PAGE_VIEWS.schema, OLD_ID: OLD, WIDE_ID: WIDE}


def body(schema: dict[str, Any] = PAGE_VIEWS.schema, **changes: Any) -> bytes:
    event = {"event_id": "e", "event_time": NOW, "user_id": "u", "page_id": "/"} | changes
    if "status" not in event:
        event["status"] = 200
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), event)
    return out.getvalue()


def good(**changes: Any) -> bytes:
    return frame(ID, body(**changes))


def decode(*values: bytes | None) -> Batch:
    decoder = Decoder(PAGE_VIEWS, SCHEMAS.get, FIELDS)
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return decoder.decode(array, np.full(len(values), NOW))


def test_good_events_come_as_columns() -> None:
    batch = decode(good(page_id="/a", duration_ms=12), good(page_id="/b", country="DE"))

    assert batch.reasons.tolist() == [None, None]
    assert batch.rows.tolist() == [0, 1]
    assert batch.schema_ids.tolist() == [ID, ID]
    assert batch.events.select(["page_id", "duration_ms", "country"]).to_pylist() == [
        {"page_id": "/a", "duration_ms": 12, "country": None},
        {"page_id": "/b", "duration_ms": None, "country": "DE"},
    ]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "empty"),
        (b"", "empty"),
        (b"\x01\x00\x00\x00\x07abc", "bad_magic"),
        (b"{}", "bad_magic"),
        (b"\x00\x00\x00", "truncated"),
        (frame(ID, b"\x02e"), "undecodable"),
        (frame(ID, body()[:-4]), "undecodable"),
        (frame(ID, b"\xff" * 40), "undecodable"),
        (frame(999, body()), "unknown_schema_id"),
        (frame(ID, body() + b"!"), "trailing_bytes"),
        (frame(ID, body(page_id="/" + "x" * 70_000)), "oversize"),
        (good(event_time=NOW + 1), "wrong_time"),
        (good(status=99), "out_of_range"),
        (good(status=600), "out_of_range"),
        (good(duration_ms=-1), "out_of_range"),
        (good(duration_ms=86_400_001), "out_of_range"),
        (good(user_id=""), "bad_length"),
        (good(page_id="x" * 2049), "bad_length"),
        (frame(ID, body(user_id="ab").replace(b"\x04ab", b"\x04\xff\xfe")), "bad_text"),
    ],
)
def test_a_bad_event_costs_only_itself(value: bytes | None, reason: str) -> None:
    batch = decode(good(page_id="/before"), value, good(page_id="/after"))

    assert batch.reasons.tolist() == [None, reason, None]
    assert batch.details[1].endswith((".", ")")) or batch.details[1]
    assert batch.rows.tolist() == [0, 2]
    assert batch.events["page_id"].to_pylist() == ["/before", "/after"]


def test_a_value_that_no_rule_lists_is_a_dead_letter_one_by_one_too() -> None:
    stages = ("placed", "PLACED", "shipped", "", "delivered", "refunded")
    values = np.empty(len(stages), dtype=object)
    for place, status in enumerate(stages):
        event = {**shop.order(NOW, event_id="e", order_id="o", customer_id="c"), "status": status}
        out = io.BytesIO()
        fastavro.schemaless_writer(out, fastavro.parse_schema(ORDERS.schema), event)
        values[place] = frame(ID, out.getvalue())
    schemas = {ID: ORDERS.schema}
    fields = needed_fields(ORDERS, set())

    batch = Decoder(ORDERS, schemas.get, fields).decode(values, np.full(len(stages), NOW))

    unknown = "unknown_value"
    assert batch.reasons.tolist() == [None, unknown, None, unknown, None, None]
    assert batch.details[1] == "status must be one of placed, shipped, delivered, refunded."
    one = RowDecoder(ORDERS, schemas.get, fields)
    found = [one.decode(value, NOW) is None for value in values]
    assert found == [False, True, False, True, False, False]


def test_bounds_themselves_are_good() -> None:
    batch = decode(
        good(status=100), good(status=599), good(duration_ms=0), good(duration_ms=86_400_000)
    )

    assert batch.reasons.tolist() == [None] * 4


def test_versions_of_the_schema_mix_in_a_batch_and_keep_their_order() -> None:
    old = frame(OLD_ID, body(OLD, page_id="/old"))
    wide = frame(WIDE_ID, body(WIDE, page_id="/wide", scroll=[1, 2], campaign="x", country="FR"))

    batch = decode(old, good(page_id="/now"), wide, old)

    assert batch.reasons.tolist() == [None] * 4
    assert batch.events.select(["page_id", "country", "duration_ms", "status"]).to_pylist() == [
        {"page_id": "/old", "country": None, "duration_ms": None, "status": 200},
        {"page_id": "/now", "country": None, "duration_ms": None, "status": 200},
        {"page_id": "/wide", "country": "FR", "duration_ms": None, "status": 200},
        {"page_id": "/old", "country": None, "duration_ms": None, "status": 200},
    ]


def test_a_body_that_is_valid_but_not_canonical_is_good() -> None:
    # The array's block is written with its size, as Avro allows: a negative count.
    canonical = body(WIDE, page_id="/w", scroll=[1, 2])
    block = b"\x04\x02\x04\x00"
    assert canonical.count(block) == 1
    sized = canonical.replace(block, b"\x03\x04\x02\x04\x00")

    batch = decode(frame(WIDE_ID, canonical), frame(WIDE_ID, sized))

    assert batch.reasons.tolist() == [None, None]


def test_random_damage_never_touches_the_neighbours() -> None:
    rng = random.Random(5)
    values = []
    for number in range(2000):
        value = bytearray(good(event_id=f"e{number}", page_id=f"/{number}"))
        if number % 4 == 1:
            for _ in range(rng.randint(1, 4)):
                value[rng.randrange(len(value))] = rng.randrange(256)
            del value[rng.randrange(len(value)) :]
        values.append(bytes(value))

    batch = decode(*values)

    untouched = [n for n in range(2000) if n % 4 != 1]
    assert [n for n in batch.rows.tolist() if n % 4 != 1] == untouched
    pages = dict(zip(batch.rows.tolist(), batch.events["page_id"].to_pylist(), strict=True))
    assert all(pages[number] == f"/{number}" for number in untouched)
    assert all((reason is None) == (n in pages) for n, reason in enumerate(batch.reasons))


@pytest.mark.parametrize(
    "items",
    [
        "null",
        {"type": "fixed", "name": "Nothing", "size": 0},
        {"type": "record", "name": "Empty", "fields": []},
    ],
)
def test_an_array_of_nothing_keeps_no_reader_busy(items: Any) -> None:
    # Two to the power of 40 items in seven bytes, at the end of an event that is else good.
    array = {"name": "many", "type": ["null", {"type": "array", "items": items}]}
    schema = {**PAGE_VIEWS.schema, "fields": [*PAGE_VIEWS.schema["fields"], array]}
    value = frame(1, body() + b"\x02" + b"\x80\x80\x80\x80\x80\x40" + b"\x00")
    decoder = Decoder(PAGE_VIEWS, {1: schema, ID: PAGE_VIEWS.schema}.get, FIELDS)
    values = np.array([value, good()], dtype=object)
    batch = decoder.decode(values, np.full(2, NOW))
    assert batch.reasons.tolist() == ["undecodable", None]
    assert batch.details[0] == "Schema 1: an array's items take no bytes."
    assert RowDecoder(PAGE_VIEWS, {1: schema}.get, ("page_id",)).decode(value, NOW) is None
