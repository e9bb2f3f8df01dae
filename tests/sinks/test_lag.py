"""Lags read while topics come and go, and who is asked about which topics. No stack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from deploy.settings import Settings
from jobs.catalogue import job_named
from jobs.plan import plan
from replay import build
from schemas.topics import KafkaUnavailable
from sinks import lag
from sinks.clickhouse import ClickHouse
from sinks.lag import LagReader, PartitionLag
from tests.kafka_answers import NO_RIGHT, NO_TOPIC, Admin, answer, offset


def test_a_look_at_all_topics_passes_over_one_that_goes_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Going(Admin):
        def list_offsets(self, places: Mapping[TopicPartition, Any], **_: Any) -> Any:
            self.names = ["views.a.v1"]
            return super().list_offsets(places)

    admin = Going(["views.a.v1", "views.b.v1"], [NO_TOPIC, offset(9), offset(2), NO_RIGHT])
    monkeypatch.setattr(lag, "AdminClient", lambda _: admin)
    reader = LagReader({})
    assert reader.loader("g") == [PartitionLag("g", "views.a.v1", 0, 2, 9)]
    with pytest.raises(KafkaUnavailable, match=r"not read the offsets of views\.a\.v1: .*auth"):
        reader.ends("views.")


def test_a_rebuild_asks_for_the_rows_of_its_own_topics_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job_plan = plan(job_named("page_views"), 2)
    own = build.output_topics(job_plan)
    other = "views.page_views_per_minute.v1"
    # What nobody has told of yet is not loaded.
    loaded = [dict.fromkeys(own[:1], 0), dict.fromkeys(own, 4)]
    told: list[int] = []
    admin = Admin([other, *own], [])

    def offsets(places: Mapping[TopicPartition, Any], **_: Any) -> dict[TopicPartition, Any]:
        assert all(place.topic in own for place in places)
        return {place: answer(offset(4)) for place in places}

    def committed(_: LagReader, group: str) -> list[TopicPartition]:
        return [TopicPartition(topic, 0, at) for topic, at in loaded.pop(0).items()]

    monkeypatch.setattr(admin, "list_offsets", offsets)
    monkeypatch.setattr(lag, "AdminClient", lambda _: admin)
    monkeypatch.setattr(LagReader, "_committed", committed)
    monkeypatch.setattr(lag, "_counts", lambda *_: True)
    monkeypatch.setattr(build, "end_offsets", lambda *_, **__: {0: 4})
    monkeypatch.setattr(ClickHouse, "table_ids", lambda _: {})
    monkeypatch.setattr(build, "_POLL_SECONDS", 0)
    done = build.await_rows(Settings(), job_plan, lambda now: told.append(now.done))
    assert done == {"records": 4 * len(own)}
    assert told[-1] == 4 * len(own)
