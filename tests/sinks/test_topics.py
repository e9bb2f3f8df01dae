"""The names of topics, and what they say."""

from __future__ import annotations

import re

import pytest

from sinks.topics import (
    DeadLetterTopic,
    LateTopic,
    Source,
    UnknownTopicName,
    ViewTopic,
    parse_topic,
    subscription,
)

NAMED: list[tuple[str, str, Source]] = [
    ("views.revenue.v1", "", ViewTopic("revenue", 1)),
    ("views.revenue_v2.v31", "", ViewTopic("revenue_v2", 31)),
    ("t1.views.revenue.v1", "t1.", ViewTopic("revenue", 1)),
    ("dlq.page_views", "", DeadLetterTopic("page_views", 1)),
    ("dlq.page_views.v2", "", DeadLetterTopic("page_views", 2)),
    ("t1.late.page_views.v3", "t1.", LateTopic("page_views", 3)),
]
STRANGE = [
    ("events.page_views", ""),
    ("views.revenue", ""),
    ("views.revenue.v1.old", ""),
    ("views.revenue.vX", ""),
    ("views..v1", ""),
    ("t1.views.revenue.v1", ""),
    ("views.revenue.v1", "t1."),
    ("t1xviews.revenue.v1", "t1."),
    ("dlq.page_views.2", ""),
]


@pytest.mark.parametrize(("topic", "prefix", "source"), NAMED)
def test_a_topic_name_says_what_it_holds(topic: str, prefix: str, source: Source) -> None:
    assert parse_topic(topic, prefix) == source


@pytest.mark.parametrize(("topic", "prefix"), STRANGE)
def test_other_topics_are_refused_by_name(topic: str, prefix: str) -> None:
    with pytest.raises(UnknownTopicName, match=re.escape(topic)):
        parse_topic(topic, prefix)


def test_the_subscription_matches_what_can_be_parsed() -> None:
    for topic, prefix, _ in NAMED:
        assert any(re.search(pattern, topic) for pattern in subscription(prefix)), topic
    for topic, prefix in STRANGE:
        assert not any(re.search(pattern, topic) for pattern in subscription(prefix)), topic


def test_a_topic_names_its_table() -> None:
    assert ViewTopic("revenue", 2).table == "revenue_v2"
    assert DeadLetterTopic("page_views", 2).table == "dead_letters_loaded"
    assert LateTopic("page_views", 1).table == "late_events_loaded"
