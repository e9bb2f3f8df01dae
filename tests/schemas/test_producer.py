"""Events as they lie in Kafka: exact times, keys, partitions; and nothing lost silently."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

import httpx
import numpy as np
import pyarrow as pa
import pytest
from confluent_kafka import (
    TIMESTAMP_CREATE_TIME,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from bench.workload import Workload, batches
from deploy.settings import Settings
from schemas import producer as producing
from schemas.batches import InvalidBatch
from schemas.framing import split
from schemas.producer import DeliveryFailed, EventProducer, InvalidEvent
from schemas.producer_metrics import MetricsPortTaken, metrics_served
from schemas.registry import Registry
from schemas.streams import PAGE_VIEWS, POSTS, TRANSACTIONS, Stream
from schemas.topics import end_offsets
from tests.schemas.avro import decoded

READ_SECONDS = 30.0


def event(number: int, **changes: Any) -> dict[str, Any]:
    base = {"event_id": f"e{number}", "event_time": 1_431_857_103_000 + number}
    return base | {"user_id": f"user-{number}", "page_id": "/a"} | changes


def records(settings: Settings, stream: Stream) -> list[Message]:
    """Return all records of the stream's topic, by partition and offset."""
    ends = end_offsets(settings.kafka_client, stream.topic)
    consumer = Consumer({**settings.kafka_client, "group.id": stream.topic})
    consumer.assign([TopicPartition(stream.topic, partition, 0) for partition in ends])
    found: list[Message] = []
    deadline = time.monotonic() + READ_SECONDS
    while len(found) < sum(ends.values()):
        assert time.monotonic() < deadline, f"{len(found)} of {sum(ends.values())} records"
        found.extend(consumer.consume(10_000, 0.1))
    consumer.close()
    return sorted(found, key=lambda m: (m.partition() or 0, m.offset() or 0))


class Client:
    """A Kafka client that keeps what it is given, or raises `refusal` instead."""

    def __init__(self, _: Any) -> None:
        self.values: list[bytes | None] = []
        self.timestamps: list[int] = []
        self.refusal: Exception | None = None

    def produce(self, topic: str, value: bytes | None, *_: Any, timestamp: int) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.values.append(value)
        self.timestamps.append(timestamp)

    def poll(self, _: float) -> None:
        pass


Made = Callable[[Stream], tuple[EventProducer, Client]]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    """A producer of a stream without Kafka or a registry, and its client."""
    monkeypatch.setattr(producing, "publish", lambda *_: 1)
    monkeypatch.setattr(producing, "ensure_events_topic", lambda *_: 4)
    monkeypatch.setattr(producing, "Producer", Client)

    def make(stream: Stream) -> tuple[EventProducer, Client]:
        producer = EventProducer({}, cast(Registry, None), stream)
        return producer, cast(Client, producer._producer)

    return make


def murmur2(key: bytes) -> int:
    """Kafka's murmur2 of `key`, written from org.apache.kafka.common.utils.Utils."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = (0x9747B28C ^ len(key)) & mask
    whole = len(key) // 4 * 4
    for i in range(0, whole, 4):
        k = int.from_bytes(key[i : i + 4], "little") * m & mask
        h = (h * m & mask) ^ ((k ^ k >> 24) * m & mask)
    rest = key[whole:]
    if rest:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


def java_partition(key: bytes, partitions: int) -> int:
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def test_event_lies_framed_at_its_time_under_its_key(
    settings: Settings, stream: Stream, registry: Registry
) -> None:
    with EventProducer(settings.kafka_client, registry, stream) as producer:
        producer.send(event(1, user_id="kim é", status=404))
    (record,) = records(settings, stream)
    value = record.value()
    assert record.timestamp() == (TIMESTAMP_CREATE_TIME, 1_431_857_103_001)
    assert record.key() == "kim é".encode()
    assert value is not None
    assert split(value)[0] == producer.schema_id
    assert decoded(value) == event(
        1,
        user_id="kim é",
        status=404,
        duration_ms=None,
        method="GET",
        bytes_sent=None,
        country=None,
        referrer=None,
        user_agent=None,
    )


def test_keys_lie_where_java_clients_put_them(
    settings: Settings, stream: Stream, registry: Registry
) -> None:
    with EventProducer(settings.kafka_client, registry, stream) as producer:
        for number in range(200):
            producer.send(event(number))
    found = records(settings, stream)
    placed = {record.key(): record.partition() for record in found}
    assert len(found) == 200
    assert placed == {key: java_partition(key or b"", 4) for key in placed}


def test_batch_lies_like_the_same_events_sent_singly(
    settings: Settings, stream: Stream, registry: Registry
) -> None:
    (batch,) = batches(Workload(events=3_000), 3_000)
    with EventProducer(settings.kafka_client, registry, stream) as producer:
        producer.send_batch(batch)
        assert producer.sent == 3_000
        for each in batch.to_pylist():
            producer.send(each)
    found = records(settings, stream)
    seen: dict[str, list[Any]] = {}
    for record in found:
        fields = decoded(record.value())
        place = (record.key(), record.partition(), record.timestamp(), fields)
        seen.setdefault(fields["event_id"], []).append(place)
    assert len(seen) == 3_000
    assert all(first == second for first, second in seen.values())
    expected = {each["event_id"]: each for each in batch.to_pylist()}
    assert {key: places[0][3] for key, places in seen.items()} == expected


def test_raw_bytes_go_to_the_partition_named(
    settings: Settings, stream: Stream, registry: Registry
) -> None:
    with EventProducer(settings.kafka_client, registry, stream) as producer:
        producer.send_raw(None, b"user-1", 5, partition=2)
        producer.send_raw(b"\x07", None, 6, partition=3)
    found = [
        (r.partition(), r.key(), r.value(), r.timestamp()[1]) for r in records(settings, stream)
    ]
    assert found == [(2, b"user-1", None, 5), (3, None, b"\x07", 6)]


def test_older_schema_can_still_be_written(
    settings: Settings, stream: Stream, registry: Registry
) -> None:
    older = {**stream.schema, "fields": stream.schema["fields"][:6]}
    with EventProducer(settings.kafka_client, registry, stream, older) as old:
        old.send(event(1))
    with EventProducer(settings.kafka_client, registry, stream) as new:
        new.send(event(2))
    ids = {split(record.value())[0] for record in records(settings, stream)}
    assert ids == {old.schema_id, new.schema_id}
    assert registry.schema_by_id(old.schema_id) == older


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "200"},
        {"user_id": None},
        {"extra": 1},
        {"event_time": None},
        {"event_time": datetime(2015, 5, 17)},
        {"event_time": 0},
        {"event_time": -1},
        {"user_agent": "x" * 3_000_000},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_event_that_the_schema_has_no_room_for_is_refused(
    settings: Settings, stream: Stream, registry: Registry, changes: dict[str, Any]
) -> None:
    with EventProducer(settings.kafka_client, registry, stream) as producer:
        with pytest.raises(InvalidEvent, match="page_views"):
            producer.send(event(1, **changes))
        producer.send(event(2, event_time=datetime(2015, 5, 17, tzinfo=UTC)))
    (record,) = records(settings, stream)
    assert record.timestamp()[1] == 1_431_820_800_000


@pytest.mark.parametrize(
    ("stream", "changes", "why"),
    [
        (TRANSACTIONS, {"amount_cents": 19.99}, "must be an integer and is a fraction, 19.99"),
        (TRANSACTIONS, {"amount_cents": True}, "must be an integer and is a boolean, True"),
        (PAGE_VIEWS, {"status": 2**31}, "is 2147483648 and must fit in 32 bits"),
        (POSTS, {"hashtags": "news"}, "must be a list and is a string, 'news'"),
    ],
)
def test_value_is_refused_rather_than_changed(
    made: Made, stream: Stream, changes: dict[str, Any], why: str
) -> None:
    producer, client = made(stream)
    good: dict[Stream, dict[str, Any]] = {
        PAGE_VIEWS: event(1),
        TRANSACTIONS: {"user_id": "kim", "card_id": "c", "amount_cents": np.int64(1999)},
        POSTS: {"author_id": "kim", "hashtags": ["news"]},
    }
    known = {"event_id": "1", "event_time": 1_431_857_103_000} | good[stream]
    with pytest.raises(InvalidEvent, match=f'"{next(iter(changes))}" {why}'):
        producer.send(known | changes)
    assert client.values == []
    producer.send(known)
    assert len(client.values) == producer.sent == 1


def test_client_that_takes_nothing_more_is_no_fault_of_the_event(made: Made) -> None:
    producer, client = made(PAGE_VIEWS)
    (batch,) = batches(Workload(events=2), 2)
    one = partial(producer.send, event(1))
    client.refusal = KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
    for send in (one, partial(producer.send_batch, batch)):
        with pytest.raises(InvalidEvent, match=r"^page_views: Broker: .* too large\.$"):
            send()
    client.refusal = KafkaException(KafkaError(KafkaError._FATAL))
    for send in (one, partial(producer.send_batch, batch)):
        with pytest.raises(DeliveryFailed, match=r"^1 records were .* Local: Fatal error\.$"):
            send()
    producer._on_delivery(KafkaError(KafkaError.CLUSTER_AUTHORIZATION_FAILED), cast(Message, None))
    with pytest.raises(DeliveryFailed, match=r"^1 records were .* Cluster authorization failed\.$"):
        one()
    assert producer.sent == 0


@pytest.mark.parametrize(
    ("stream", "name", "column", "said"),
    [
        (
            PAGE_VIEWS,
            "status",
            pa.array([2**31], pa.int64()),
            "page_views: column 'status' is no int32: Integer value 2147483648 not in range",
        ),
        (
            PAGE_VIEWS,
            "status",
            pa.array([[200]]),
            "page_views: column 'status' is no int32: Unsupported cast from list",
        ),
        (POSTS, "hashtags", pa.array([["a", None]]), "posts: lists of 'hashtags' have nulls."),
        (POSTS, "author_id", pa.array([None], pa.string()), "posts: column 'author_id' has nulls."),
    ],
)
def test_batch_is_refused_with_its_column(
    made: Made, stream: Stream, name: str, column: pa.Array, said: str
) -> None:
    producer, client = made(stream)
    event = {"event_id": "1", "event_time": 1_431_857_103_000, "user_id": "kim", "page_id": "/"}
    event |= {"author_id": "kim", "hashtags": ["a"]}
    fields = {
        field["name"]: [event.get(field["name"], field.get("default"))]
        for field in stream.schema["fields"]
    }
    producer.send_batch(pa.RecordBatch.from_pydict(fields))
    assert len(client.values) == 1
    with pytest.raises(InvalidBatch, match=f"^{said}"):
        producer.send_batch(pa.RecordBatch.from_pydict({**fields, name: column}))
    assert len(client.values) == producer.sent == 1


def test_batch_is_written_to_the_millisecond_as_a_single_event_is(made: Made) -> None:
    producer, client = made(POSTS)
    moment = datetime(2015, 5, 17, 10, 5, 3, 123_999, tzinfo=UTC)
    post = {"event_id": "1", "event_time": moment, "author_id": "kim", "text": "", "hashtags": []}
    columns = {name: pa.array([value]) for name, value in post.items()}
    columns |= {"hashtags": pa.array([[]], pa.list_(pa.string()))}
    producer.send(post)
    for unit in ("us", "ns"):
        times = columns["event_time"].cast(pa.timestamp(unit, "UTC"))
        producer.send_batch(pa.RecordBatch.from_pydict({**columns, "event_time": times}))
    assert client.values == [client.values[0]] * 3
    assert client.timestamps == [1_431_857_103_123] * 3


def test_event_from_the_future_is_refused_before_it_spoils_its_batch(
    settings: Settings, stream: Stream, registry: Registry
) -> None:
    now = 1_431_857_103.0
    with EventProducer(settings.kafka_client, registry, stream, clock=lambda: now) as producer:
        producer.send(event(0, event_time=int(now * 1000) + 600_000))
        with pytest.raises(InvalidEvent, match="more than 10 minutes ahead of the clock"):
            producer.send(event(1, event_time=int(now * 1000) + 600_001))
    assert len(records(settings, stream)) == 1


def test_what_the_broker_refuses_is_raised_at_flush(
    settings: Settings, stream: Stream, registry: Registry
) -> None:
    producer = EventProducer(settings.kafka_client, registry, stream)
    producer.send_raw(b"good", None, 1, partition=0)
    # The year 2100: the broker takes nothing from more than ten minutes ahead.
    producer.send_raw(b"bad", None, 4_102_444_800_000, partition=1)
    with pytest.raises(DeliveryFailed, match=r"1 records were not .*Invalid timestamp") as caught:
        producer.flush()
    assert caught.value.failed == 1
    assert [record.value() for record in records(settings, stream)] == [b"good"]


def test_what_the_broker_refuses_is_raised_while_more_is_sent(
    settings: Settings, stream: Stream, registry: Registry
) -> None:
    producer = EventProducer(settings.kafka_client, registry, stream)
    deadline = time.monotonic() + 30

    def send_on() -> None:
        while time.monotonic() < deadline:
            producer.send_raw(b"good", None, 1, partition=0)
            time.sleep(0.01)

    producer.send_raw(b"bad", None, 4_102_444_800_000, partition=1)
    with pytest.raises(DeliveryFailed, match=r"1 records were not .*Invalid timestamp"):
        send_on()


def test_more_events_than_the_queue_holds_all_arrive(
    settings: Settings, stream: Stream, registry: Registry
) -> None:
    small = {**settings.kafka_client, "queue.buffering.max.messages": 500}
    with EventProducer(small, registry, stream) as producer:
        for batch in batches(Workload(events=5_000), 2_500):
            producer.send_batch(batch)
        for number in range(5_000):
            producer.send(event(number))
    assert sum(end_offsets(settings.kafka_client, stream.topic).values()) == 10_000


def test_metrics_count_what_was_handed_over_and_say_where_the_port_is_taken(
    settings: Settings, stream: Stream, registry: Registry
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with EventProducer(settings.kafka_client, registry, stream) as producer:
        with metrics_served(producer, "127.0.0.1", port):
            producer.send(event(1))
            producer.send(event(2))
            producer.flush()
            text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
            with (
                pytest.raises(MetricsPortTaken, match=str(port)),
                metrics_served(producer, "127.0.0.1", port),
            ):
                pass
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False)
    assert [line for line in text.splitlines() if line[0] != "#"] == [
        'kappa_producer_events_total{stream="page_views"} 2.0',
        'kappa_producer_failures_total{stream="page_views"} 0.0',
        'kappa_producer_waiting_events{stream="page_views"} 0.0',
    ]
