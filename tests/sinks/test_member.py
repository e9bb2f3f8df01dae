"""Partitions that leave a member of the loaders' group. No stack."""

from __future__ import annotations

from typing import Any, cast

import pytest
from confluent_kafka import TopicPartition

from schemas.registry import Registry
from sinks import member
from sinks.clickhouse import ClickHouse, ClickHouseFailed
from sinks.member import Loader
from tests.sinks.test_batches import records

TOPIC = "views.counts.v1"


class Partitions:
    """A consumer that notes which partitions are paused."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.paused: set[int] = set()

    def pause(self, places: list[TopicPartition]) -> None:
        self.paused |= {place.partition for place in places}

    def resume(self, places: list[TopicPartition]) -> None:
        self.paused -= {place.partition for place in places}

    def commit(self, offsets: list[TopicPartition], asynchronous: bool) -> list[TopicPartition]:
        return offsets

    def incremental_assign(self, places: list[TopicPartition]) -> None: ...

    incremental_unassign = incremental_assign


class Away:
    """A ClickHouse that answers again once it is `back`."""

    back = False
    asked = 0

    def table_ids(self) -> dict[str, str]:
        self.asked += 1
        if not self.back:
            raise ClickHouseFailed("ClickHouse does not answer.")
        return {"counts_v1": "t1"}


@pytest.fixture
def consumer(monkeypatch: pytest.MonkeyPatch) -> Partitions:
    made = Partitions({})
    monkeypatch.setattr(member, "Consumer", lambda _: made)
    return made


def loading(consumer: Partitions, clickhouse: Away) -> Loader:
    """Return a loader that reads partitions 0 and 1 of a topic whose rows are all loaded."""
    loader = Loader({}, "", cast(ClickHouse, clickhouse), cast(Registry, None), clock=lambda: 1.0)
    places = [TopicPartition(TOPIC, partition) for partition in (0, 1)]
    loader._assigned(cast(Any, consumer), places)
    consumer.resume(places)
    for place in places:
        loader._batches[TOPIC].place(place.partition, 5, "t1")
    return loader


def test_a_partition_without_news_leaves_and_clickhouse_is_not_asked(consumer: Partitions) -> None:
    clickhouse = Away()
    loader = loading(consumer, clickhouse)
    loader._revoked(cast(Any, consumer), [TopicPartition(TOPIC, 0)])
    assert (clickhouse.asked, consumer.paused) == (0, set())


def test_what_stays_is_read_on_when_clickhouse_is_back(consumer: Partitions) -> None:
    clickhouse = Away()
    loader = loading(consumer, clickhouse)
    batch = loader._batches[TOPIC]
    batch.add(records(0, 6)[5:], 1, now=0.0)
    loader._revoked(cast(Any, consumer), [TopicPartition(TOPIC, 0)])
    assert consumer.paused == {0, 1}
    clickhouse.back = True
    assert batch.due(now=2.0)
    loader._flush(TOPIC)
    assert 1 not in consumer.paused
