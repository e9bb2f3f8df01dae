"""When a batch is due, and how far its partitions are."""

from __future__ import annotations

from confluent_kafka import Message

from sinks.batches import Batch, Limits
from sinks.topics import ViewTopic

LIMITS = Limits(batch_bytes=10_000, batch_seconds=0.5, longest_pause_seconds=2.0)


def test_a_batch_is_due_by_age() -> None:
    batch = placed()
    assert not batch.due(now=0.0)
    batch.add(records(0, 3), 30, now=1.0)
    assert not batch.due(now=1.4)
    assert batch.due(now=1.5)


def test_a_batch_is_due_by_size_at_once() -> None:
    batch = placed()
    batch.add(records(0, 1), 10_000, now=1.0)
    assert batch.due(now=1.0)


def test_what_was_read_is_committed_only_when_it_is_loaded() -> None:
    batch = placed()
    batch.add(records(0, 3), 30, now=1.0)
    assert batch.uncommitted() == {}
    batch.loaded("t1")
    assert {p: x.loaded for p, x in batch.uncommitted().items()} == {0: 3}
    batch.committed(0, 3)
    batch.settled()
    assert batch.uncommitted() == {}
    assert not batch.due(now=99.0)


def test_a_transactions_end_moves_the_offset_without_a_record() -> None:
    batch = placed()
    batch.reached(0, 8, now=1.0)
    assert batch.due(now=2.0)
    batch.loaded("t1")
    assert {p: x.loaded for p, x in batch.uncommitted().items()} == {0: 8}


def test_records_of_a_partition_that_is_not_placed_are_not_taken() -> None:
    batch = placed()
    batch.hold([0])
    batch.add(records(0, 3), 30, now=1.0)
    assert (batch.records, batch.uncommitted()) == ([], {})


def test_forgetting_a_partition_drops_its_records_only() -> None:
    batch = placed(0, 1)
    batch.add(records(0, 2) + records(1, 1), 30, now=1.0)
    batch.forget([0])
    assert [(r.partition(), r.offset()) for r in batch.records] == [(1, 0)]
    assert batch.bytes == 301


def test_partitions_loaded_into_another_table_are_told_apart() -> None:
    batch = placed(0)
    batch.place(1, 5, "t0")
    batch.place(2, None, "")
    assert batch.strangers("t1") == {1}


def test_failures_are_repeated_after_growing_pauses() -> None:
    batch = placed()
    batch.add(records(0, 1), 10, now=0.0)
    assert [batch.failed(now=1.0) for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0]
    assert not batch.due(now=2.9)
    assert batch.due(now=3.0)
    assert batch.failing_since == 1.0


def placed(*partitions: int) -> Batch:
    batch = Batch(ViewTopic("counts", 1), LIMITS)
    for partition in partitions or (0,):
        batch.place(partition, 0, "t1")
    return batch


def records(partition: int, count: int) -> list[Message]:
    return [
        Message(topic="views.counts.v1", partition=partition, offset=offset, value=b"x")
        for offset in range(count)
    ]
