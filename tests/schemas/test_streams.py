"""What the declarations promise about themselves."""

from __future__ import annotations

from dataclasses import replace

import fastavro
import pytest

from schemas.streams import (
    PAGE_REQUESTS,
    PAGE_VIEWS,
    STREAMS,
    Range,
    Stream,
    UnknownStream,
    stream_named,
)


@pytest.mark.parametrize("stream", STREAMS.values(), ids=str)
def test_rules_and_times_name_fields_of_the_schema(stream: Stream) -> None:
    known = {field["name"] for field in stream.schema["fields"]}
    used = {rule.field for rule in stream.rules} | set(stream.required)
    assert used | {stream.key_field, stream.event_time_field} <= known


@pytest.mark.parametrize("stream", STREAMS.values(), ids=str)
def test_schema_is_avro_and_its_event_time_has_milliseconds(stream: Stream) -> None:
    fastavro.parse_schema(stream.schema)
    types = {field["name"]: field["type"] for field in stream.schema["fields"]}
    wanted = {"type": "long", "logicalType": "timestamp-millis"}
    assert types[stream.event_time_field] == wanted


@pytest.mark.parametrize("stream", STREAMS.values(), ids=str)
def test_sums_of_money_fit(stream: Stream) -> None:
    money = {
        field["name"]
        for field in stream.schema["fields"]
        if field["name"].endswith(("_cents", "_micros"))
    }
    most = {rule.field: rule.maximum for rule in stream.rules if isinstance(rule, Range)}
    for name in money:
        times = 1_440 if "budget" in name else 90_000_000
        assert (most[name] or 2**63) * times < 2**63, name


def test_namespace_prefixes_topic_and_subject() -> None:
    stream = replace(PAGE_VIEWS, namespace="t1")
    assert stream.topic == "t1.events.page_views"
    assert stream.subject == "t1.events.page_views-value"
    assert stream.dead_letter_topic(2) == "t1.dlq.page_views.v2"


def test_misspelt_stream_is_told_the_nearest() -> None:
    with pytest.raises(UnknownStream, match='"page_view" is no stream; did you mean "page_views"'):
        stream_named("page_view")


def test_a_second_reading_has_the_events_of_the_first_and_letters_of_its_own() -> None:
    assert PAGE_REQUESTS.topic == PAGE_VIEWS.topic
    assert PAGE_REQUESTS.subject == PAGE_VIEWS.subject
    assert PAGE_REQUESTS.schema == PAGE_VIEWS.schema
    assert PAGE_REQUESTS.dead_letter_topic() == "dlq.page_requests"
    assert PAGE_REQUESTS.late_topic(2) == "late.page_requests.v2"
