"""Good events among bad ones: verdicts, reasons and columns, exactly."""

import io
import random
from dataclasses import replace
from datetime import time
from decimal import Decimal
from typing import Any
from uuid import UUID

import fastavro
import numpy as np
import pytest

from bench.generators import orders as shop
from schemas.framing import frame
from schemas.streams import DEVICE_READINGS, ORDERS, PAGE_VIEWS, POSTS, Range
from udfs.avro_columns import UnresolvableSchema
from udfs.avro_rows import checked, plain
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
FIXED: dict[str, Any] = {
    "name": "hash",
    "type": ["null", {"type": "fixed", "name": "Four", "size": 4}],
}
FIELDS = needed_fields(PAGE_VIEWS, {"country"})
SCHEMAS = {ID: PAGE_VIEWS.schema, OLD_ID: OLD, WIDE_ID: WIDE}


def body(schema: dict[str, Any] = PAGE_VIEWS.schema, **changes: Any) -> bytes:
    event = {"event_id": "e", "event_time": NOW, "user_id": "u", "page_id": "/"} | changes
    if "status" not in event:
        event["status"] = 200
    return encoded(schema, event)


def encoded(schema: dict[str, Any], event: dict[str, Any]) -> bytes:
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
    ("value", "reason", "detail"),
    [
        (None, "empty", "The value is null or has no bytes."),
        (b"", "empty", "The value is null or has no bytes."),
        (b"\x01\x00\x00\x00\x07abc", "bad_magic", "The first byte is not 0."),
        (b"{}", "bad_magic", "The first byte is not 0."),
        (b"\x00\x00\x00", "truncated", "The value is shorter than a frame's header, 5 bytes."),
        (frame(ID, b"\x02e"), "undecodable", "Schema 7: unexpected end of buffer"),
        (frame(ID, body()[:-4]), "undecodable", "Schema 7: unexpected end of buffer"),
        (frame(ID, b"\xff" * 40), "undecodable", "Schema 7: zigzag varint too long"),
        (frame(999, body()), "unknown_schema_id", "The registry has no schema with id 999."),
        (frame(ID, body() + b"!"), "trailing_bytes", "Bytes are left over after the last field."),
        (
            frame(ID, body(page_id="/" + "x" * 70_000)),
            "oversize",
            "The value is larger than 65536 bytes.",
        ),
        (good(event_time=NOW + 1), "wrong_time", "event_time is not the record's timestamp."),
        (good(status=99), "out_of_range", "status must be 100 ≤ status ≤ 599."),
        (good(status=600), "out_of_range", "status must be 100 ≤ status ≤ 599."),
        (good(duration_ms=-1), "out_of_range", "duration_ms must be 0 ≤ duration_ms ≤ 8.64e+07."),
        (
            good(duration_ms=86_400_001),
            "out_of_range",
            "duration_ms must be 0 ≤ duration_ms ≤ 8.64e+07.",
        ),
        (good(user_id=""), "bad_length", "user_id must have 1 to 256 bytes."),
        (good(page_id="x" * 2049), "bad_length", "page_id must have 1 to 2048 bytes."),
        (
            frame(ID, body(user_id="ab").replace(b"\x04ab", b"\x04\xff\xfe")),
            "bad_text",
            "user_id is not UTF-8.",
        ),
    ],
)
def test_a_bad_event_costs_only_itself(value: bytes | None, reason: str, detail: str) -> None:
    batch = decode(good(page_id="/before"), value, good(page_id="/after"))

    assert batch.reasons.tolist() == [None, reason, None]
    assert batch.details.tolist() == [None, detail, None]
    assert batch.rows.tolist() == [0, 2]
    assert batch.events["page_id"].to_pylist() == ["/before", "/after"]


def test_a_value_that_no_rule_lists_is_a_dead_letter_one_by_one_too() -> None:
    stages = ("placed", "PLACED", "shipped", "", "delivered", "refunded")
    values = np.empty(len(stages), dtype=object)
    for place, status in enumerate(stages):
        event = {**shop.order(NOW, event_id="e", order_id="o", customer_id="c"), "status": status}
        values[place] = frame(ID, encoded(ORDERS.schema, event))
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


def test_a_bound_that_is_no_whole_number_holds_for_whole_numbers_of_any_size() -> None:
    stream = replace(PAGE_VIEWS, rules=(Range("bytes_sent", 0.5, 2.0**60),))
    sizes = (None, 0, 1, 2**53 + 1, 2**60, 2**60 + 1, 2**63 - 1)
    values = np.array([good(bytes_sent=size) for size in sizes], dtype=object)
    fields = needed_fields(stream, set())

    batch = Decoder(stream, SCHEMAS.get, fields).decode(values, np.full(len(sizes), NOW))

    bad = "out_of_range"
    assert batch.reasons.tolist() == [None, bad, None, None, None, bad, bad]
    one = RowDecoder(stream, SCHEMAS.get, fields)
    singly = [one.decode(value, NOW) is None for value in values]
    assert singly == [reason is not None for reason in batch.reasons]


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
        # By its name only.
        "Empty",
        "kappa.events.Empty",
    ],
)
def test_an_array_of_nothing_keeps_no_reader_busy(items: Any) -> None:
    # Two to the power of 40 items in seven bytes, at the end of an event that is else good.
    array = {"name": "many", "type": ["null", {"type": "array", "items": items}]}
    empty = {"name": "e", "type": {"type": "record", "name": "Empty", "fields": []}}
    more = [empty, array] if isinstance(items, str) and items != "null" else [array]
    schema = {**PAGE_VIEWS.schema, "fields": [*PAGE_VIEWS.schema["fields"], *more]}
    value = frame(1, body() + b"\x02" + b"\x80\x80\x80\x80\x80\x40" + b"\x00")
    decoder = Decoder(PAGE_VIEWS, {1: schema, ID: PAGE_VIEWS.schema}.get, FIELDS)
    values = np.array([value, good()], dtype=object)
    batch = decoder.decode(values, np.full(2, NOW))
    assert batch.reasons.tolist() == ["undecodable", None]
    assert batch.details[0] == "Schema 1: an array's items take no bytes."
    assert RowDecoder(PAGE_VIEWS, {1: schema}.get, ("page_id",)).decode(value, NOW) is None


@pytest.mark.parametrize(
    ("avro_type", "written"),
    [
        ("bytes", b"\xff\xfe"),
        (["null", "bytes"], None),
        ({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, Decimal("1.25")),
        ({"type": "string", "logicalType": "uuid"}, UUID(int=5)),
        ({"type": "int", "logicalType": "time-millis"}, time(1)),
        ({"type": "long", "logicalType": "time-micros"}, time(1)),
        ({"type": "long", "logicalType": "local-timestamp-millis"}, 5),
        ({"type": "long", "logicalType": "timestamp-nanos"}, 5),
        ({"type": "fixed", "name": "Four", "size": 4}, b"\xffbcd"),
        (["null", {"type": "fixed", "name": "Four", "size": 4}], b"\xffbcd"),
        ({"type": "fixed", "name": "D", "size": 12, "logicalType": "duration"}, b"d" * 12),
        (
            {
                "type": "fixed",
                "name": "M",
                "size": 8,
                "logicalType": "decimal",
                "precision": 9,
                "scale": 2,
            },
            Decimal("1.25"),
        ),
        ({"type": "array", "items": "bytes"}, [b"\xff", b""]),
        ({"type": "map", "values": {"type": "enum", "name": "E", "symbols": ["A"]}}, {"k": "A"}),
    ],
)
def test_a_field_of_any_type_may_be_added(avro_type: Any, written: Any) -> None:
    added = {"name": "added", "type": avro_type}
    schema = {**PAGE_VIEWS.schema, "fields": [*PAGE_VIEWS.schema["fields"], added]}
    value = frame(1, body(schema, added=written, country="DE"))
    broken = value[:-1] if avro_type != ["null", "bytes"] else value[:-1] + b"\x07"
    decoder = Decoder(PAGE_VIEWS, {1: schema, ID: PAGE_VIEWS.schema}.get, FIELDS)
    values = np.array([value, good(), value + b"!", broken, value], dtype=object)
    batch = decoder.decode(values, np.full(len(values), NOW))
    assert [reason is None for reason in batch.reasons] == [True, True, False, False, True]
    assert batch.events.select(["user_id", "country"]).to_pylist() == [
        {"user_id": "u", "country": "DE"},
        {"user_id": "u", "country": None},
        {"user_id": "u", "country": "DE"},
    ]
    one = RowDecoder(PAGE_VIEWS, {1: schema}.get, ("page_id",))
    assert [one.decode(each, NOW) is None for each in (value, value + b"!", broken)] == [
        False,
        True,
        True,
    ]


def _nested(depth: int) -> Any:
    found: Any = "int"
    for _ in range(depth):
        found = {"type": "array", "items": found}
    return found


# What a writer says of a type beside what Avro knows may be nested too.
_SAID = {"type": "array", "items": "int", "note": _nested(2_000)}


@pytest.mark.parametrize(
    "schema",
    [
        "string",
        ["null", "string"],
        {"type": "array", "items": "int"},
        {"type": "enum", "name": "E", "symbols": ["A"]},
        {"type": "record", "name": "R", "fields": [{"name": "event_id", "type": "other.Id"}]},
        {"type": "record", "name": "R", "fields": [{"name": "a", "type": {"type": "string"}}, 5]},
        {"type": "record", "name": "R", "fields": [{"name": "a", "type": _nested(2_000)}]},
        {"type": "record", "name": "R", "fields": [{"name": "a", "type": _SAID}]},
    ],
)
def test_the_schema_of_no_event_costs_only_what_names_it(schema: Any) -> None:
    value = frame(1, b"\x02a")
    decoder = Decoder(PAGE_VIEWS, {1: schema, ID: PAGE_VIEWS.schema}.get, FIELDS)
    batch = decoder.decode(np.array([good(), value], dtype=object), np.full(2, NOW))
    assert batch.reasons.tolist() == [None, "undecodable"]
    assert RowDecoder(PAGE_VIEWS, {1: schema}.get, ("page_id",)).decode(value, NOW) is None


def _node(namespace: str = "") -> Any:
    return {
        "type": "record",
        "name": "Node",
        "namespace": namespace,
        "fields": [{"name": "next", "type": ["null", "Node"]}],
    }


@pytest.mark.parametrize(
    "avro_type",
    [
        ["null", _node()],
        ["null", _node("trees")],
        ["null", {"type": "map", "values": _node()}],
        # The event itself.
        ["null", {"type": "array", "items": "PageView"}],
    ],
)
@pytest.mark.parametrize("more", [[], [FIXED]])
def test_a_value_that_goes_as_deep_as_its_bytes_say_ends_no_worker(
    avro_type: Any, more: list[Any]
) -> None:
    added = {"name": "added", "type": avro_type}
    schema = {**PAGE_VIEWS.schema, "fields": [*PAGE_VIEWS.schema["fields"], *more, added]}
    value = frame(1, body() + b"\x02" * 30_000)
    values = np.array([value, good()], dtype=object)
    decoder = Decoder(PAGE_VIEWS, {1: schema, ID: PAGE_VIEWS.schema}.get, FIELDS)
    batch = decoder.decode(values, np.full(2, NOW))
    assert batch.reasons.tolist() == ["undecodable", None]
    assert batch.details[0] == "Schema 1: a record within itself is not read."
    assert RowDecoder(PAGE_VIEWS, {1: schema}.get, ("page_id",)).decode(value, NOW) is None


@pytest.mark.parametrize("more", [[], [FIXED]])
@pytest.mark.parametrize("leaf", ["null", "int"])
def test_records_that_double_with_each_keep_no_reader_busy(leaf: str, more: list[Any]) -> None:
    kinds = [{"type": "record", "name": "R0", "fields": [{"name": "x", "type": leaf}]}]
    for n in range(1, 40):
        twice = [{"name": name, "type": f"R{n - 1}"} for name in "ab"]
        kinds.append({"type": "record", "name": f"R{n}", "fields": twice})
    doubling = [{"name": f"f{n}", "type": kind} for n, kind in enumerate(kinds)]
    many = {"name": "many", "type": {"type": "array", "items": "R39"}}
    fields = [*PAGE_VIEWS.schema["fields"], *doubling, many, *more]
    schema = {**PAGE_VIEWS.schema, "fields": fields}
    decoder = Decoder(PAGE_VIEWS, {1: schema}.get, FIELDS)
    batch = decoder.decode(np.array([frame(1, body())], dtype=object), np.full(1, NOW))
    assert batch.reasons.tolist() == ["undecodable"]
    assert batch.details[0] == "Schema 1: it has more than 10000 types, those named in full."


def test_a_type_may_be_named_beside_itself_and_after_it() -> None:
    pair = {"type": "record", "name": "Pair", "fields": [{"name": "x", "type": "int"}]}
    more = [{"name": "a", "type": pair}, {"name": "b", "type": {"type": "map", "values": "Pair"}}]
    schema = {**PAGE_VIEWS.schema, "fields": [*PAGE_VIEWS.schema["fields"], *more]}
    value = frame(1, body(schema, a={"x": 1}, b={"k": {"x": 2}}))
    decoder = Decoder(PAGE_VIEWS, {1: schema}.get, FIELDS)
    assert decoder.decode(np.array([value], dtype=object), np.full(1, NOW)).reasons[0] is None


def test_what_bears_the_marks_of_a_parsed_schema_is_parsed_all_the_same() -> None:
    marks = {"__fastavro_parsed": True, "__named_schemas": {"Node": _node()}}
    added = {"name": "added", "type": ["null", "Node"]}
    schema = {**PAGE_VIEWS.schema, "fields": [*PAGE_VIEWS.schema["fields"], added]} | marks
    with pytest.raises(UnresolvableSchema, match="can't be read"):
        checked(schema)


def test_bytes_that_come_by_a_types_name_are_no_text() -> None:
    money = {"type": "record", "name": "Money", "fields": [{"name": "amount", "type": "bytes"}]}
    more = [{"name": "price", "type": money}, {"name": "tax", "type": "Money"}]
    schema = {**PAGE_VIEWS.schema, "fields": [*PAGE_VIEWS.schema["fields"], *more]}
    value = frame(1, body(schema, price={"amount": b"\xff"}, tax={"amount": b"\xfe\xff"}))
    decoder = Decoder(PAGE_VIEWS, {1: schema}.get, FIELDS)
    assert decoder.decode(np.array([value], dtype=object), np.full(1, NOW)).reasons[0] is None


def test_types_of_one_name_in_two_namespaces_are_two() -> None:
    def named(namespace: str, fields: list[Any]) -> Any:
        return {"type": "record", "name": "E", "namespace": namespace, "fields": fields}

    for order in (1, -1):
        kinds = [named("a", []), named("b", [{"name": "x", "type": "int"}])][::order]
        more = [{"name": f"f{n}", "type": kind} for n, kind in enumerate(kinds)]
        values = {"f0": {}, "f1": {"x": 1}} if order == 1 else {"f0": {"x": 1}, "f1": {}}
        for name, reason in (("a", "undecodable"), ("b", None)):
            last = {"name": "many", "type": {"type": "array", "items": f"{name}.E"}}
            fields = [*PAGE_VIEWS.schema["fields"], *more, last]
            schema = {**PAGE_VIEWS.schema, "fields": fields}
            value = frame(1, body(schema, **values, many=[]))
            decoder = Decoder(PAGE_VIEWS, {1: schema}.get, FIELDS)
            batch = decoder.decode(np.array([value], dtype=object), np.full(1, NOW))
            assert batch.reasons.tolist() == [reason]


def test_beside_a_fixed_size_values_are_resolved_like_any_other() -> None:
    changed = {
        "status": "long",
        "event_time": {"type": "long", "logicalType": "timestamp-micros"},
        "user_id": "bytes",
    }
    fields = [{**f, "type": changed.get(f["name"], f["type"])} for f in PAGE_VIEWS.schema["fields"]]
    fields.append({"name": "hash", "type": {"type": "fixed", "name": "Hash", "size": 4}})
    schema = {**PAGE_VIEWS.schema, "fields": fields}
    at = {"event_time": NOW * 1000, "user_id": b"u", "hash": b"\xff\xfe\xfd\xfc"}
    sent = [
        body(schema, **at),
        body(schema, **at | {"event_time": NOW * 1000 + 5}),
        body(schema, **at | {"status": 2**40}),
        body(schema, **at) + b"!",
        body(schema, **at)[:-1],
        body(schema, **at, country="DE"),
    ]
    values = np.array([frame(1, each) for each in sent], dtype=object)
    batch = Decoder(PAGE_VIEWS, {1: schema}.get, FIELDS).decode(values, np.full(len(sent), NOW))
    bad = "undecodable"
    assert batch.reasons.tolist() == [None, bad, bad, "trailing_bytes", bad, None]
    assert batch.events.select(["user_id", "status", "country"]).to_pylist() == [
        {"user_id": "u", "status": 200, "country": None},
        {"user_id": "u", "status": 200, "country": "DE"},
    ]


@pytest.mark.parametrize("more", [[], [FIXED]])
def test_a_type_without_a_value_for_the_streams_is_refused_beside_a_fixed_size_too(
    more: list[Any],
) -> None:
    for name, avro_type, written in (
        ("country", ["null"], None),
        ("page_id", {"type": "array", "items": ["null"]}, [None]),
    ):
        fields = [
            {"name": name, "type": avro_type} if f["name"] == name else f
            for f in PAGE_VIEWS.schema["fields"]
        ]
        schema = {**PAGE_VIEWS.schema, "fields": [*fields, *more]}
        value = frame(1, body(schema, **{name: written}))
        decoder = Decoder(PAGE_VIEWS, {1: schema, ID: PAGE_VIEWS.schema}.get, FIELDS)
        values = np.array([value, good()], dtype=object)
        assert decoder.decode(values, np.full(2, NOW)).reasons.tolist() == ["undecodable", None]


@pytest.mark.parametrize("more", [[], [FIXED]])
@pytest.mark.parametrize("wrapped", [False, True])
def test_an_enum_that_was_declared_before_is_a_text_beside_a_fixed_size_too(
    more: list[Any], wrapped: bool
) -> None:
    code = {"type": "enum", "name": "Code", "symbols": ["DE", "FR"]}
    country: Any = ["null", "Code"] if wrapped else "Code"
    fields = [
        {"name": f["name"], "type": country} if f["name"] == "country" else f
        for f in PAGE_VIEWS.schema["fields"]
    ]
    first = {"name": "origin", "type": code}
    schema = {**PAGE_VIEWS.schema, "fields": [first, *fields, *more]}
    values = np.array([frame(1, body(schema, origin="FR", country="DE"))], dtype=object)
    batch = Decoder(PAGE_VIEWS, {1: schema}.get, FIELDS).decode(values, np.full(1, NOW))
    assert batch.reasons.tolist() == [None]
    assert batch.events["country"].to_pylist() == ["DE"]


def test_a_null_where_the_stream_has_none_is_missing() -> None:
    nullable = {"amount_cents": ["null", "long"], "category": ["null", "string"]}
    fields = [{**f, "type": nullable.get(f["name"], f["type"])} for f in ORDERS.schema["fields"]]
    schema = {**ORDERS.schema, "fields": fields}
    order = shop.order(NOW, event_id="e", order_id="o", customer_id="c")
    values = np.empty(3, dtype=object)
    for place, changes in enumerate(({}, {"amount_cents": None}, {"category": None})):
        values[place] = frame(1, encoded(schema, order | changes))
    decoder = Decoder(ORDERS, {1: schema}.get, needed_fields(ORDERS, set()))
    batch = decoder.decode(values, np.full(3, NOW))
    assert batch.reasons.tolist() == [None, "missing", "missing"]
    assert batch.details[1] == "amount_cents is missing."


def test_an_instant_that_is_no_day_of_a_calendar_is_out_of_range() -> None:
    values = np.empty(5, dtype=object)
    for place, at in enumerate((NOW, 0, -1, NOW * 1000, 2**63 - 1)):
        # Bounds are of instants as they are written; the writer's library knows no such days.
        written = plain(ORDERS.schema)
        order = shop.order(NOW, event_id="e", order_id="o", customer_id="c") | {"placed_at": at}
        values[place] = frame(1, encoded(written, order))
    decoder = Decoder(ORDERS, {1: ORDERS.schema}.get, needed_fields(ORDERS, set()))
    batch = decoder.decode(values, np.full(5, NOW))
    assert batch.reasons.tolist() == [None, None, *["out_of_range"] * 3]


def test_a_null_in_a_list_is_missing() -> None:
    nullable = {"type": "array", "items": ["null", "string"]}
    fields = [
        {**f, "type": nullable} if f["name"] == "hashtags" else f for f in POSTS.schema["fields"]
    ]
    schema = {**POSTS.schema, "fields": fields}
    values = np.empty(3, dtype=object)
    for place, tags in enumerate(([], ["a", None], ["a", "b"])):
        post = {f["name"]: "p" for f in fields} | {"event_time": NOW, "hashtags": tags}
        values[place] = frame(1, encoded(schema, post))
    decoder = Decoder(POSTS, {1: schema}.get, needed_fields(POSTS, {"hashtags"}))
    assert decoder.decode(values, np.full(3, NOW)).reasons.tolist() == [None, "missing", None]


@pytest.mark.parametrize(
    ("name", "avro_type", "values", "reasons"),
    [
        ("status", "long", (200, 2**40), (None, "undecodable")),
        (
            "event_time",
            {"type": "long", "logicalType": "timestamp-micros"},
            (NOW * 1000, NOW * 1000 + 5),
            (None, "undecodable"),
        ),
        ("user_id", "bytes", (b"ok", b"\xff\xfe"), (None, "bad_text")),
    ],
)
def test_a_value_without_room_in_the_streams_type_costs_only_itself(
    name: str, avro_type: Any, values: tuple[Any, Any], reasons: tuple[Any, Any]
) -> None:
    fields = [
        {**f, "type": avro_type} if f["name"] == name else f for f in PAGE_VIEWS.schema["fields"]
    ]
    schema = {**PAGE_VIEWS.schema, "fields": fields}
    sent = np.array([frame(1, body(schema, **{name: one})) for one in values * 2], dtype=object)
    decoder = Decoder(PAGE_VIEWS, {1: schema}.get, FIELDS)
    batch = decoder.decode(sent, np.full(4, NOW))
    assert batch.reasons.tolist() == [*reasons, *reasons]
    one = RowDecoder(PAGE_VIEWS, {1: schema}.get, ("page_id",))
    assert [one.decode(value, NOW) is None for value in sent[:2]] == [False, True]


def test_a_whole_number_is_read_as_the_nearest_that_there_is() -> None:
    fields = [
        {**f, "type": "long"} if f["name"] == "temperature" else f
        for f in DEVICE_READINGS.schema["fields"]
    ]
    schema = {**DEVICE_READINGS.schema, "fields": fields}
    lenient = replace(DEVICE_READINGS, rules=())
    values = np.empty(2, dtype=object)
    for place, temperature in enumerate((20, 2**53 + 1)):
        event = {"event_id": "e", "event_time": NOW, "device_id": "d", "temperature": temperature}
        values[place] = frame(1, encoded(schema, event))
    decoder = Decoder(lenient, {1: schema}.get, needed_fields(lenient, {"temperature"}))
    batch = decoder.decode(values, np.full(2, NOW))
    assert batch.events["temperature"].to_pylist() == [20.0, 2.0**53]


def test_a_number_beyond_its_types_bits_is_not_cut_to_them() -> None:
    # 200 and 2^32 + 200, both as variable-length integers.
    value = good(status=200)
    small, large = b"\x90\x03", b"\x90\x83\x80\x80\x20"
    assert value.count(small) == 1
    batch = decode(value, value.replace(small, large))
    assert batch.reasons.tolist() == [None, "undecodable"]
    assert batch.details[1] == f"Schema {ID}: a number is larger than its type has room for."


@pytest.mark.parametrize("number", [2**32 + 2**30, 2**31, -(2**31) - 1])
def test_nor_is_one_that_takes_as_many_bytes_as_its_type_may(number: int) -> None:
    fields = [{**f, "type": "long"} if f["name"] == "status" else f for f in OLD["fields"]]
    lenient = replace(PAGE_VIEWS, rules=())
    sent = [body({**OLD, "fields": fields}, status=each) for each in (number, 2**31 - 1)]
    values = np.array([frame(OLD_ID, each) for each in sent], dtype=object)
    batch = Decoder(lenient, SCHEMAS.get, FIELDS).decode(values, np.full(2, NOW))
    assert batch.reasons.tolist() == ["undecodable", None]
    assert batch.events["status"].to_pylist() == [2**31 - 1]
