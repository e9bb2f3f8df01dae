"""Records of a view topic as rows: schemas, origin, newest revisions, bad records."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pyarrow as pa
import pytest
from confluent_kafka import Message

from schemas.framing import frame
from sinks.rows import BadRecord, by_schema, newest_revisions, view_rows
from sinks.tables import _TYPES, table_spec
from tests.sinks.samples import COUNTS, WIDER, body, record

T0 = datetime(2024, 5, 1)


def test_a_row_has_its_values_and_its_origin() -> None:
    made = record({"page": "/a", "window_start": 1714521600000, "views": 3}, offset=7, partition=2)
    assert view_rows([made], COUNTS).to_pylist() == [
        {
            "page": "/a",
            "window_start": T0,
            "views": 3,
            "_revision": 7,
            "_partition": 2,
            "_emitted_at": datetime(2024, 5, 1, 0, 0, 1),
        }
    ]


def test_records_are_parted_by_the_schema_that_wrote_them() -> None:
    records = [
        message(0, frame(1, b"a")),
        message(1, frame(2, b"b")),
        message(2, frame(1, b"c")),
    ]
    parts = by_schema(records)
    assert {number: [r.offset() for r in part] for number, part in parts.items()} == {
        1: [0, 2],
        2: [1],
    }


def test_a_later_schema_has_its_own_columns() -> None:
    row = {"page": "/a", "window_start": 1714521600000, "views": 3, "bots": 1}
    rows = view_rows([record(row, schema=WIDER)], WIDER)
    assert rows.column_names[:4] == ["page", "window_start", "views", "bots"]


@pytest.mark.parametrize("name", _TYPES)
def test_every_type_that_a_column_may_have_can_be_decoded(name: str) -> None:
    kind = {"type": "long", "logicalType": name} if name == "timestamp-millis" else name
    value: Any = {"string": "/a", "boolean": True}.get(name, 1)
    fields = [{"name": "a", "type": kind}, {"name": "b", "type": ["null", kind]}]
    schema = {**COUNTS, "key": ["a"], "fields": fields}
    assert len(table_spec("counts", schema).columns) == 2
    for row in ({"a": value, "b": value}, {"a": value, "b": None}):
        assert view_rows([record(row, schema=schema)], schema).num_rows == 1


def test_only_the_newest_revision_of_a_key_stays() -> None:
    rows = table([("/a", 1, 10, 5), ("/b", 1, 20, 6), ("/a", 1, 11, 8), ("/a", 2, 30, 9)])
    assert newest_revisions(rows, ("page", "window_start")).to_pylist() == [
        {"page": "/b", "window_start": 1, "views": 20, "_revision": 6},
        {"page": "/a", "window_start": 1, "views": 11, "_revision": 8},
        {"page": "/a", "window_start": 2, "views": 30, "_revision": 9},
    ]


def test_the_greatest_revision_wins_in_whatever_order_partitions_were_read() -> None:
    rows = table([("/a", 1, 11, 8), ("/b", 1, 20, 3), ("/a", 1, 10, 5)])
    assert newest_revisions(rows, ("page", "window_start")).to_pylist() == [
        {"page": "/a", "window_start": 1, "views": 11, "_revision": 8},
        {"page": "/b", "window_start": 1, "views": 20, "_revision": 3},
    ]


def test_distinct_keys_all_stay() -> None:
    rows = table([("/a", 1, 1, 1), ("/a", 2, 1, 2), ("/b", 1, 1, 3)])
    assert newest_revisions(rows, ("page", "window_start")) is rows


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (None, "null"),
        (b"", "null or has no bytes"),
        (b"\x01\x00\x00\x00\x01x", "first byte"),
        (b"\x00\x00", "fewer than a header"),
    ],
)
def test_a_record_without_a_frame_is_named(value: bytes | None, complaint: str) -> None:
    good = message(0, frame(1, b""))
    with pytest.raises(
        BadRecord, match=f"topic views.counts.v1, partition 2, offset 41: .*{complaint}"
    ):
        by_schema([good, message(41, value), good])


def test_a_body_that_is_no_row_is_named() -> None:
    good = record({"page": "/a", "window_start": 0, "views": 3})
    bad = message(42, frame(1, b"\x01"))
    with pytest.raises(BadRecord, match=r"topic views\.counts\.v1, partition 2, offset 42"):
        view_rows([good, bad, good], COUNTS)


def test_a_body_is_written_as_avro_has_it() -> None:
    assert body({"page": "/a", "window_start": 0, "views": 3}, COUNTS) == b"\x04/a\x00\x06"


def message(offset: int, value: bytes | None) -> Message:
    return Message(
        topic="views.counts.v1", partition=2, offset=offset, value=value, timestamp=(1, 0)
    )


def table(rows: list[tuple[Any, ...]]) -> pa.Table:
    names = ("page", "window_start", "views", "_revision")
    types = (pa.string(), pa.int64(), pa.int64(), pa.uint64())
    columns = zip(*rows, strict=True)
    return pa.table({n: pa.array(c, t) for n, c, t in zip(names, columns, types, strict=True)})
