"""Values from outside against a schema: what passes, what is refused, and in which words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from schemas.streams import PAGE_VIEWS, POSTS
from schemas.values import BadValue, conform, epoch_ms

LEAST = {"event_id": "a", "event_time": 1_431_857_103_000, "user_id": "u", "page_id": "/"}


def test_missing_optional_fields_take_the_schema_defaults() -> None:
    assert conform(LEAST, PAGE_VIEWS.schema) == {
        "event_id": "a",
        "event_time": 1_431_857_103_000,
        "user_id": "u",
        "page_id": "/",
        "duration_ms": None,
        "status": 200,
        "method": "GET",
        "bytes_sent": None,
        "country": None,
        "referrer": None,
        "user_agent": None,
    }


@pytest.mark.parametrize(
    "text",
    [
        "2015-05-17T10:05:03Z",
        "2015-05-17T12:05:03+02:00",
        "2015-05-17T04:35:03.000-05:30",
        "20150517T100503Z",
        "2015-05-17 10:05:03.000999+00:00",
    ],
)
def test_iso_times_of_any_offset_become_epoch_milliseconds(text: str) -> None:
    event = conform({**LEAST, "event_time": text}, PAGE_VIEWS.schema)
    assert event["event_time"] == 1_431_857_103_000


def test_epoch_ms_of_a_datetime_is_exact_and_heeds_its_offset() -> None:
    assert epoch_ms(datetime(2015, 5, 17, 10, 5, 3, 123_999, tzinfo=UTC)) == 1_431_857_103_123
    east = timezone(timedelta(hours=9))
    assert epoch_ms(datetime(2015, 5, 17, 19, 5, 3, tzinfo=east)) == 1_431_857_103_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"event_time": "2015-05-17T10:05:03"}, 'field "event_time" is no time: .* no UTC offset'),
        ({"event_time": "yesterday"}, 'field "event_time" is no time: .*yesterday'),
        ({"event_time": 1.5}, 'field "event_time" must be epoch milliseconds .* a fraction, 1.5'),
        ({"event_time": None}, 'field "event_time" must be .* is null'),
        ({"event_time": True}, 'field "event_time" must be .* a boolean, True'),
        ({"event_time": 0}, 'field "event_time" is 0 and must be after 1970'),
        ({"event_time": 2**63}, 'field "event_time" is 9223372036854775808 and must'),
        ({"status": "200"}, "field \"status\" must be an integer and is a string, '200'"),
        ({"status": 2**31}, 'field "status" is 2147483648 and must fit in 32 bits'),
        ({"status": None}, 'field "status" must be an integer and is null'),
        ({"bytes_sent": -(2**63) - 1}, 'field "bytes_sent" .* must fit in 64 bits'),
        ({"duration_ms": 1.0}, 'field "duration_ms" must be an integer and is a fraction, 1.0'),
        ({"user_id": 7}, 'field "user_id" must be a string and is an integer, 7'),
        ({"user_id": "\ud800"}, 'field "user_id" holds a lone surrogate'),
        ({"country": ["DE"]}, 'field "country" must be a string and is a list'),
        ({"pageid": "/"}, 'field "pageid" is not in the schema; pass --ignore-unknown'),
    ],
)
def test_bad_value_is_refused_by_field_and_reason(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadValue, match=message):
        conform({**LEAST, **change}, PAGE_VIEWS.schema)


def test_missing_field_without_default_is_refused() -> None:
    with pytest.raises(BadValue, match='field "user_id" is missing'):
        conform({k: v for k, v in LEAST.items() if k != "user_id"}, PAGE_VIEWS.schema)


def test_unknown_fields_can_be_left_out() -> None:
    event = conform({**LEAST, "extra": 1}, PAGE_VIEWS.schema, ignore_unknown=True)
    assert "extra" not in event


@pytest.mark.parametrize(
    ("hashtags", "message"),
    [
        ("news", "field \"hashtags\" must be a list and is a string, 'news'"),
        ({"news": 1}, 'field "hashtags" must be a list and is an object'),
        (None, 'field "hashtags" must be a list and is null'),
        (["a", 7], r'field "hashtags\[\]" must be a string and is an integer, 7'),
        (["a", None], r'field "hashtags\[\]" must be a string and is null'),
    ],
)
def test_only_a_list_of_its_items_is_a_list(hashtags: Any, message: str) -> None:
    post = {"event_id": "1", "event_time": 1_431_857_103_000, "author_id": "kim"}
    assert conform({**post, "hashtags": ["a", "b"]}, POSTS.schema)["hashtags"] == ["a", "b"]
    with pytest.raises(BadValue, match=message):
        conform({**post, "hashtags": hashtags}, POSTS.schema)


@pytest.mark.parametrize("document", [[], "text", 3, None])
def test_what_is_no_object_is_no_event(document: Any) -> None:
    with pytest.raises(BadValue, match="must be an object"):
        conform(document, PAGE_VIEWS.schema)


def test_a_number_beyond_all_fractions_is_refused() -> None:
    schema = {"type": "record", "name": "R", "fields": [{"name": "a", "type": "double"}]}
    with pytest.raises(BadValue, match="larger than any floating-point number"):
        conform({"a": 10**400}, schema)
