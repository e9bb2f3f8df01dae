"""Dead letters and late events as rows and tables."""

from __future__ import annotations

from datetime import datetime

import pytest
from confluent_kafka import Message

from sinks.dead_letters import (
    DEAD_LETTERS,
    LATE_EVENTS,
    create_raw_table,
    create_raw_view,
    raw_rows,
)
from sinks.rows import BadRecord
from sinks.topics import DeadLetterTopic, LateTopic

DEAD_HEADERS = {
    "reason": "bad_magic",
    "detail": "The first byte is 0x7b.",
    "topic": "events.page_views",
    "partition": "3",
    "offset": "99",
    "timestamp": "1714521600000",
    "schema_id": "",
}


def test_a_dead_letter_keeps_its_bytes_and_says_where_it_was() -> None:
    made = letter(DEAD_HEADERS, value=b"\xff{}", key=b"user-1")
    assert raw_rows(DeadLetterTopic("page_views", 2), [made]).to_pylist() == [
        {
            "stream": "page_views",
            "version": 2,
            "reason": "bad_magic",
            "detail": "The first byte is 0x7b.",
            "topic": "events.page_views",
            "partition": 3,
            "offset": 99,
            "timestamp": datetime(2024, 5, 1),
            "schema_id": None,
            "key": b"user-1",
            "value": b"\xff{}",
            "_revision": 5,
            "_partition": 1,
            "_emitted_at": datetime(2024, 5, 1, 0, 0, 1),
        }
    ]


def test_a_dead_letter_may_have_no_bytes_and_any_schema_id() -> None:
    made = letter({**DEAD_HEADERS, "schema_id": "4294967295"}, value=None, key=None)
    (row,) = raw_rows(DeadLetterTopic("page_views", 1), [made]).to_pylist()
    assert (row["value"], row["key"], row["schema_id"]) == (None, None, 4294967295)


def test_a_time_beyond_what_clickhouse_holds_is_its_last() -> None:
    made = letter({**DEAD_HEADERS, "timestamp": "9223372036854775807"})
    (row,) = raw_rows(DeadLetterTopic("page_views", 1), [made]).to_pylist()
    assert row["timestamp"] == datetime(2299, 12, 31, 23, 59, 59, 999000)


def test_a_late_event_names_the_window_it_missed() -> None:
    headers = {
        "topic": "events.page_views",
        "partition": "0",
        "offset": "7",
        "timestamp": "1714521605000",
        "window_start": "1714521600000",
        "window_end": "1714521660000",
    }
    (row,) = raw_rows(LateTopic("page_views", 1), [letter(headers)]).to_pylist()
    assert row["window_start"] == datetime(2024, 5, 1)
    assert row["window_end"] == datetime(2024, 5, 1, 0, 1)


@pytest.mark.parametrize(
    "broken",
    [
        {"reason": None},
        {"offset": "many"},
        {"offset": "18446744073709551616"},
        {"partition": "-1"},
        {"partition": "4294967296"},
        {"schema_id": "-1"},
        {"schema_id": "4294967296"},
    ],
)
def test_a_letter_without_its_headers_is_named(broken: dict[str, str | None]) -> None:
    headers = {k: v for k, v in {**DEAD_HEADERS, **broken}.items() if v is not None}
    with pytest.raises(BadRecord, match=r"topic dlq\.page_views, partition 1, offset 5"):
        raw_rows(DeadLetterTopic("page_views", 1), [letter(headers)])


@pytest.mark.parametrize("name", DEAD_HEADERS)
def test_a_header_without_a_value_is_named(name: str) -> None:
    made = letter(DEAD_HEADERS)
    made.set_headers([*(made.headers() or ()), (name, None)])
    with pytest.raises(BadRecord, match=r"topic dlq\.page_views, partition 1, offset 5"):
        raw_rows(DeadLetterTopic("page_views", 1), [made])


def test_the_loaded_table_keeps_one_row_of_an_event() -> None:
    statement = create_raw_table(DEAD_LETTERS)
    assert "ENGINE = ReplacingMergeTree(`_revision`)" in statement
    assert "ORDER BY (`stream`, `version`, `topic`, `partition`, `offset`)" in statement
    assert "fsync_after_insert = 1" in statement


def test_the_public_name_shows_no_event_twice() -> None:
    assert "FROM `late_events_loaded` FINAL" in create_raw_view(LATE_EVENTS)
    assert "_revision" not in create_raw_view(LATE_EVENTS)


def letter(
    headers: dict[str, str], value: bytes | None = b"raw", key: bytes | None = b"k"
) -> Message:
    return Message(
        topic="dlq.page_views",
        partition=1,
        offset=5,
        key=key,
        value=value,
        headers=[(name, text.encode()) for name, text in headers.items()],
        timestamp=(1, 1714521601000),
    )
