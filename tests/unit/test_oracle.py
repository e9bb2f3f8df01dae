"""The oracle itself, on inputs small enough to work out by hand."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from tests.oracle import (
    MINUTE,
    PER_MINUTE,
    SITE,
    SLIDING,
    Record,
    Row,
    Verdict,
    closed,
    judge,
)
from tests.schemas.avro import varint

SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "PageView",
    "fields": [
        {"name": "event_id", "type": "string"},
        {"name": "event_time", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "user_id", "type": "string"},
        {"name": "page_id", "type": "string"},
        {"name": "duration_ms", "type": ["null", "long"], "default": None},
        {"name": "status", "type": "int", "default": 200},
    ],
}
SCHEMAS = {7: SCHEMA}


def text(value: str) -> bytes:
    return varint(len(value.encode())) + value.encode()


def frame(
    seconds: float,
    user: str = "u",
    page: str = "/a",
    duration: int | None = None,
    status: int = 200,
    event_id: str = "e",
    schema_id: int = 7,
) -> bytes:
    """Return the bytes of one event, written by hand so that no Avro writer is trusted."""
    duration_bytes = varint(0) if duration is None else varint(1) + varint(duration)
    return (
        struct.pack(">bI", 0, schema_id)
        + text(event_id)
        + varint(round(seconds * 1000))
        + text(user)
        + text(page)
        + duration_bytes
        + varint(status)
    )


def records(*events: tuple[float, bytes | None], partition: int = 0) -> list[Record]:
    return [
        Record(partition, offset, round(seconds * 1000), b"u", value)
        for offset, (seconds, value) in enumerate(events)
    ]


def at(seconds: float, **fields: Any) -> tuple[float, bytes]:
    return seconds, frame(seconds, **fields)


def rows(verdict: Verdict, view: str) -> list[Row]:
    return sorted(verdict.views[view].values(), key=lambda row: (row.window_start, row.page_id))


def reason(value: bytes | None, seconds: float = 5) -> str:
    verdict = judge(records((seconds, value)), SCHEMAS)
    return verdict.dead[0, 0]


def test_an_event_after_a_newer_one_still_belongs_to_its_own_minute() -> None:
    verdict = judge(records(at(5, user="x"), at(70, user="y"), at(30, user="z")), SCHEMAS)
    assert rows(verdict, PER_MINUTE) == [
        Row("/a", 0, 60_000, views=2, unique_users=2, avg_duration_ms=None, errors=0),
        Row("/a", 60_000, 120_000, views=1, unique_users=1, avg_duration_ms=None, errors=0),
    ]
    assert rows(verdict, SITE) == [
        Row(None, 0, 60_000, views=2, unique_users=2, avg_duration_ms=None, errors=0),
        Row(None, 60_000, 120_000, views=1, unique_users=1, avg_duration_ms=None, errors=0),
    ]
    assert verdict.watermarks == {0: 60_000}


def test_sliding_windows_hold_each_event_five_times() -> None:
    verdict = judge(records(at(5, user="x"), at(70, user="y"), at(30, user="x")), SCHEMAS)
    assert rows(verdict, SLIDING) == [
        Row("/a", -240_000, 60_000, 2, 1, None, 0),
        Row("/a", -180_000, 120_000, 3, 2, None, 0),
        Row("/a", -120_000, 180_000, 3, 2, None, 0),
        Row("/a", -60_000, 240_000, 3, 2, None, 0),
        Row("/a", 0, 300_000, 3, 2, None, 0),
        Row("/a", 60_000, 360_000, 1, 1, None, 0),
    ]


def test_users_count_once_durations_skip_nulls_and_errors_start_at_500() -> None:
    verdict = judge(
        records(
            at(1, user="x", page="/a", duration=100, status=499),
            at(2, user="x", page="/a", duration=None, status=500),
            at(3, user="y", page="/a", duration=201, status=503),
            at(4, user="y", page="/b", duration=None, status=200),
            at(5, user="x", page="/b", duration=None, status=404),
        ),
        SCHEMAS,
    )
    assert rows(verdict, PER_MINUTE) == [
        Row("/a", 0, 60_000, views=3, unique_users=2, avg_duration_ms=150.5, errors=2),
        Row("/b", 0, 60_000, views=2, unique_users=2, avg_duration_ms=None, errors=0),
    ]
    assert rows(verdict, SITE) == [
        Row(None, 0, 60_000, views=5, unique_users=2, avg_duration_ms=150.5, errors=2),
    ]


def test_windows_start_at_full_minutes_and_end_before_the_next() -> None:
    verdict = judge(records(at(59.999), at(60.0)), SCHEMAS)
    assert [(row.window_start, row.views) for row in rows(verdict, PER_MINUTE)] == [
        (0, 1),
        (60_000, 1),
    ]


def test_an_event_within_the_lateness_corrects_its_minute() -> None:
    # 30 s belongs to the minute that ends at 60 s; it is taken while the watermark is under
    # 59.999 s + 300 s = 359.999 s, so while the newest event is under 369.999 s.
    verdict = judge(records(at(5), at(369.998), at(30)), SCHEMAS)
    assert verdict.late == {}
    assert verdict.views[PER_MINUTE][0, "/a"].views == 2


def test_an_event_beyond_the_lateness_is_late_and_names_the_minute_it_missed() -> None:
    verdict = judge(records(at(5), at(369.999), at(30), at(60)), SCHEMAS)
    assert verdict.late == {(0, 2): (0, 60_000)}
    assert sorted(verdict.aggregated) == [(0, 0), (0, 1), (0, 3)]
    assert verdict.views[PER_MINUTE][0, "/a"].views == 1
    assert verdict.views[SLIDING][0, "/a"].views == 2  # 5 s and 60 s


def test_each_partition_has_its_own_watermark() -> None:
    ahead = records(at(4000), partition=0)
    behind = records(at(30), partition=1)
    verdict = judge(ahead + behind, SCHEMAS)
    assert verdict.late == {}
    assert verdict.watermarks == {0: 3_990_000, 1: 20_000}


def test_a_dead_letter_moves_the_watermark_like_any_record() -> None:
    verdict = judge(records(at(5), (4000, None), at(30)), SCHEMAS)
    assert verdict.dead == {(0, 1): "empty"}
    assert verdict.late == {(0, 2): (0, 60_000)}


def test_a_broken_record_is_dead_even_where_a_good_one_were_late() -> None:
    verdict = judge(records(at(4000), (30, b"\x01")), SCHEMAS)
    assert (verdict.late, verdict.dead) == ({}, {(0, 1): "bad_magic"})


def test_every_offset_has_one_fate() -> None:
    verdict = judge(records(at(5), (6, None), at(4000), at(7)), SCHEMAS)
    fates = [*verdict.aggregated, *verdict.late, *verdict.dead]
    assert sorted(fates) == [(0, 0), (0, 1), (0, 2), (0, 3)]


def test_closed_windows_end_at_or_before_the_watermark() -> None:
    verdict = judge(records(at(5), at(70)), SCHEMAS)
    assert sorted(closed(verdict.views[SITE], 60_000)) == [(0, None)]
    assert sorted(closed(verdict.views[SITE], 59_999)) == []
    assert [key[0] // MINUTE for key in sorted(closed(verdict.views[SLIDING], 60_000))] == [-4]


GOOD = frame(5)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "empty"),
        (b"", "empty"),
        (b"\x01" + GOOD[1:], "bad_magic"),
        (b"{}", "bad_magic"),
        (GOOD[:4], "truncated"),
        (GOOD[:5], "undecodable"),
        (GOOD[:-1], "undecodable"),
        (GOOD[:5] + b"\xff" * 20, "undecodable"),
        (GOOD + b"\x00", "trailing_bytes"),
        (frame(5, schema_id=8), "unknown_schema_id"),
        (frame(5, page="/" + "a" * 65_536), "oversize"),
        (frame(5, page=""), "bad_length"),
        (frame(5, user="u" * 257), "bad_length"),
        (frame(5, user="ü" * 129), "bad_length"),
        (frame(5, status=99), "out_of_range"),
        (frame(5, status=600), "out_of_range"),
        (frame(5, duration=-1), "out_of_range"),
        (frame(5, duration=86_400_001), "out_of_range"),
        (frame(6), "wrong_time"),
        (frame(5, page="/x").replace(b"/x", b"/\xff"), "bad_text"),
    ],
)
def test_a_broken_record_has_its_reason(value: bytes | None, expected: str) -> None:
    assert reason(value) == expected


def test_bounds_are_inclusive() -> None:
    good = [
        at(1, duration=0, status=100, user="u" * 256, event_id="e" * 64),
        at(2, duration=86_400_000, status=599, page="/" * 2048),
    ]
    assert judge(records(*good), SCHEMAS).dead == {}


def test_a_field_the_writer_does_not_have_takes_its_default_or_is_missing() -> None:
    old = {**SCHEMA, "fields": SCHEMA["fields"][:4]}
    short = struct.pack(">bI", 0, 1) + text("e") + varint(5000) + text("u") + text("/a")
    verdict = judge(records((5, short)), {1: old})
    assert verdict.views[SITE][0, None] == Row(None, 0, 60_000, 1, 1, None, 0)

    pageless = {**SCHEMA, "fields": SCHEMA["fields"][:3]}
    shorter = struct.pack(">bI", 0, 1) + text("e") + varint(5000) + text("u")
    assert judge(records((5, shorter)), {1: pageless}).dead == {(0, 0): "missing"}
