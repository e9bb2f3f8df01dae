"""What Kafka refuses is told in its own words, and what passes by itself is asked again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import Consumer, KafkaError

from deploy.settings import Settings
from jobs import status
from jobs.catalogue import job_named
from jobs.plan import plan
from replay import ending
from replay.ending import LoaderHolds, await_loader_gone
from schemas import reading, topics
from schemas.reading import first_at, read_committed
from schemas.topics import KafkaUnavailable, again, delete_consumer_groups, end_offsets
from tests.kafka_answers import (
    ELSEWHERE,
    MOVED,
    NO_GROUP_RIGHT,
    NO_RIGHT,
    Admin,
    Times,
    offset,
)


def test_a_leaders_change_is_waited_for_and_no_longer_than_agreed() -> None:
    left = [KafkaUnavailable("it moves", KafkaError.NOT_LEADER_FOR_PARTITION)]

    def ask() -> int:
        if left:
            raise left.pop()
        return 7

    def moves() -> int:
        raise KafkaUnavailable("it moves", KafkaError.NOT_LEADER_FOR_PARTITION)

    assert again(ask) == 7
    with pytest.raises(KafkaUnavailable, match="it moves"):
        again(moves, seconds=0.2)


def test_a_refusal_has_the_brokers_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    admin = Admin(["t"], [MOVED, offset(3), NO_RIGHT, NO_GROUP_RIGHT])
    monkeypatch.setattr(topics, "_admin", lambda _: admin)
    assert end_offsets({}, "t") == {0: 3}
    with pytest.raises(KafkaUnavailable, match="offsets of t: Broker: Topic auth") as refused:
        end_offsets({}, "t")
    assert refused.value.code == KafkaError.TOPIC_AUTHORIZATION_FAILED
    with pytest.raises(KafkaUnavailable, match="not delete consumer group g: Broker: Group auth"):
        delete_consumer_groups({}, ["g"])


def test_a_time_is_asked_for_again_while_its_partition_moves() -> None:
    assert first_at(cast(Consumer, Times(MOVED, 5)), "t", 0, 1) == 5
    assert first_at(cast(Consumer, Times(-1)), "t", 0, 1) is None
    with pytest.raises(KafkaUnavailable, match=r"times in t, partition 0: .*Topic auth"):
        first_at(cast(Consumer, Times(NO_RIGHT)), "t", 0, 1)


@pytest.mark.parametrize(
    ("code", "partition", "said"),
    [
        (KafkaError.GROUP_AUTHORIZATION_FAILED, None, "t can't be read: Broker: Group auth"),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, 0, "t, partition 0 can't be read: Broker: Topic"),
    ],
)
def test_what_keeps_a_reader_from_reading_is_told(
    monkeypatch: pytest.MonkeyPatch, code: int, partition: int | None, said: str
) -> None:
    refused = SimpleNamespace(partition=lambda: partition, error=lambda: KafkaError(code))
    consumer = SimpleNamespace(
        assign=lambda _: None, consume=lambda *_, **__: [refused], close=lambda: None
    )
    monkeypatch.setattr(reading, "Consumer", lambda _: consumer)
    with pytest.raises(KafkaUnavailable, match=f"^{said}") as told:
        list(read_committed({}, "t", {0: (0, 1)}))
    assert told.value.refused


def test_a_watermark_that_is_not_known_is_a_problem_of_the_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def watermarks(*_: Any) -> dict[int, int]:
        raise KafkaUnavailable("Kafka did not tell of times.")

    monkeypatch.setattr(status, "event_ends", lambda *_: {0: 3})
    monkeypatch.setattr(status, "read_offsets", lambda *_: {0: 3})
    monkeypatch.setattr(status, "watermarks", watermarks)
    job_plan, problems = plan(job_named("page_views"), 1), list[str]()
    assert status._partitions(Settings(), job_plan, job_plan.job.stream, problems) == ()
    assert problems == ["Kafka did not tell of times."]


def test_who_reads_a_topic_is_asked_again_and_a_refusal_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = SimpleNamespace(topic="views.a.v1")
    reads = SimpleNamespace(
        members=[SimpleNamespace(assignment=SimpleNamespace(topic_partitions=[place]))]
    )
    admin = Admin([], [ELSEWHERE, reads, ELSEWHERE, reads, NO_GROUP_RIGHT])
    monkeypatch.setattr(ending, "AdminClient", lambda _: admin)
    await_loader_gone(Settings(), ["views.b.v1"])
    with pytest.raises(LoaderHolds, match=r"a loader reads views\.a\.v1 still"):
        await_loader_gone(Settings(), ["views.a.v1"], seconds=0)
    with pytest.raises(KafkaUnavailable, match="read: Broker: Group authorization failed"):
        await_loader_gone(Settings(), ["views.b.v1"])
