"""Write events to a stream's topic: framed, keyed, at their own time, nothing lost silently."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Any, Self

import fastavro
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from schemas.framing import header
from schemas.registry import Registry, publish
from schemas.streams import Stream
from schemas.topics import MAX_FUTURE_MS, MAX_MESSAGE_BYTES, ensure_events_topic, kafka_error
from schemas.values import conform_value, epoch_ms

if TYPE_CHECKING:
    import pyarrow as pa

    from schemas.batches import BatchEncoder

_DELIVERY_SECONDS = 120.0
_POLL_EVERY, _POLL_SECONDS = 1024, 1.0
_BY_KEY = -1

PRODUCER_SETTINGS: dict[str, Any] = {
    "acks": "all",
    "enable.idempotence": True,
    "compression.type": "lz4",
    "linger.ms": 20,
    "batch.size": 512 * 1024,
    "message.max.bytes": MAX_MESSAGE_BYTES,
    "queue.buffering.max.messages": 200_000,
    "queue.buffering.max.kbytes": 256 * 1024,
    "delivery.timeout.ms": int(_DELIVERY_SECONDS * 1000),
    # Java clients place a key so; a key must have one partition, whoever sends it.
    "partitioner": "murmur2_random",
    "delivery.report.only.error": True,
    # Errors come back as exceptions.
    "log_level": 3,
}


class InvalidEvent(ValueError):
    """An event that its stream's schema can't express."""


class DeliveryFailed(Exception):
    """Records that Kafka did not confirm; `failed` says how many."""

    def __init__(self, topic: str, failed: int, reason: str) -> None:
        super().__init__(f"{failed} records were not delivered to {topic}: {reason}.")
        self.failed = failed


class EventProducer:
    """Sends a stream's events; use it as a context manager, whose end waits for delivery.

    `schema` is the writer's schema, the stream's current one by default; it is registered first,
    and the topic is created where it is missing. `sent` counts the records handed over, `failed`
    those that Kafka did not confirm. `clock` gives seconds since the epoch.
    """

    def __init__(
        self,
        kafka: Mapping[str, Any],
        registry: Registry,
        stream: Stream,
        schema: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        written = dict(schema or stream.schema)
        self.stream = stream
        self.schema_id = publish(registry, stream.subject, written)
        self.partitions = ensure_events_topic(kafka, stream)
        self.sent = self.failed = 0
        self._clock = clock
        self._header = header(self.schema_id)
        self._written = written
        self._schema = fastavro.parse_schema(written)
        self._unguarded = _unguarded(written)
        self._encoder: BatchEncoder | None = None
        self._producer = Producer({**kafka, **PRODUCER_SETTINGS, "on_delivery": self._on_delivery})
        self._failed = 0
        self._first_error = ""
        self._polled = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is None:
            self.flush()
        else:
            # What was accepted still goes out, but it must not hide the error under way.
            self._producer.flush(10.0)

    def send(self, event: Mapping[str, Any]) -> None:
        """Encode `event` and hand it over; raises `InvalidEvent` where the schema has no room.

        Missing fields take their defaults. `event_time` is epoch milliseconds or a datetime.
        """
        stream = self.stream
        body = BytesIO()
        body.write(self._header)
        try:
            for name, avro_type in self._unguarded:
                if name in event:
                    conform_value(event[name], avro_type, name)
            fastavro.schemaless_writer(body, self._schema, event, strict_allow_default=True)
            timestamp = epoch_ms(event[stream.event_time_field])
            key = event[stream.key_field].encode()
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise InvalidEvent(f"{stream.name}: {error} in event {dict(event)!r}.") from error
        self._require_past(timestamp)
        self.send_raw(body.getvalue(), key, timestamp)

    def send_raw(
        self,
        value: bytes | None,
        key: bytes | None,
        timestamp_ms: int,
        partition: int | None = None,
    ) -> None:
        """Hand over bytes as they are; without `partition` the key decides.

        A time too far ahead is left for the broker to refuse.
        """
        self._require_time(timestamp_ms)
        place = _BY_KEY if partition is None else partition
        topic = self.stream.topic
        while True:
            try:
                self._producer.produce(topic, value, key, place, timestamp=timestamp_ms)
                break
            except BufferError:
                self._make_room()
            except KafkaException as error:
                raise self._refusal(kafka_error(error)) from error
        self.sent += 1
        if self.sent % _POLL_EVERY == 0 or time.monotonic() >= self._polled + _POLL_SECONDS:
            self._poll()

    def send_batch(self, batch: pa.RecordBatch) -> None:
        """Encode and hand over `batch`, a column for each field of the schema; see `send`."""
        if self._encoder is None:
            # Imports pyarrow, which callers with single events need not pay for.
            from schemas.batches import BatchEncoder

            self._encoder = BatchEncoder(self.stream, self._written, self._header)
        records = self._encoder.encode(batch)
        if not records.values:
            return
        self._require_time(min(records.timestamps))
        self._require_past(max(records.timestamps))
        topic, produce = self.stream.topic, self._producer.produce
        rows = zip(records.values, records.keys, records.timestamps, strict=True)
        for value, key, timestamp_ms in rows:
            while True:
                try:
                    produce(topic, value, key, _BY_KEY, timestamp=timestamp_ms)
                    break
                except BufferError:
                    self._make_room()
                except KafkaException as error:
                    raise self._refusal(kafka_error(error)) from error
        self.sent += len(records.values)
        self._poll()

    @property
    def waiting(self) -> int:
        """Number of records handed over that Kafka has not confirmed yet."""
        return len(self._producer)

    def flush(self) -> None:
        """Wait until Kafka has confirmed everything sent; raises `DeliveryFailed`."""
        deadline = time.monotonic() + _DELIVERY_SECONDS + 10.0
        while waiting := self._producer.flush(1.0):
            if time.monotonic() > deadline:
                raise DeliveryFailed(self.stream.topic, waiting, "no answer from Kafka")
        self._raise_failures()

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failed += 1
            self.failed += 1
            self._first_error = self._first_error or error.str()

    def _require_time(self, timestamp_ms: int) -> None:
        # Kafka clients take a timestamp of zero to mean "now".
        if timestamp_ms <= 0:
            raise InvalidEvent(
                f"{self.stream.name}: Kafka can't hold a time of {timestamp_ms} ms; event times "
                "start after 1970-01-01T00:00:00Z."
            )

    def _require_past(self, timestamp_ms: int) -> None:
        # The broker would refuse the record, and with it all others of its batch.
        if timestamp_ms > self._clock() * 1000 + MAX_FUTURE_MS:
            raise InvalidEvent(
                f"{self.stream.name}: {self.stream.event_time_field} {timestamp_ms} is more than "
                f"{MAX_FUTURE_MS // 60_000} minutes ahead of the clock."
            )

    def _poll(self) -> None:
        """Learn what became of records; raises `DeliveryFailed`."""
        self._polled = time.monotonic()
        self._producer.poll(0)
        self._raise_failures()

    def _refusal(self, error: KafkaError) -> InvalidEvent | DeliveryFailed:
        """Return what to raise where the client takes no record, whose own fault is only its size.

        Raises `DeliveryFailed` where what was sent before tells more.
        """
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            return InvalidEvent(f"{self.stream.name}: {error.str()}.")
        self._poll()
        return DeliveryFailed(self.stream.topic, 1, error.str())

    def _make_room(self) -> None:
        self._raise_failures()
        self._producer.poll(0.05)

    def _raise_failures(self) -> None:
        if self._failed:
            failed, self._failed = self._failed, 0
            raise DeliveryFailed(self.stream.topic, failed, self._first_error)


def _unguarded(schema: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Return (name, type) of the fields whose values fastavro changes rather than refuse.

    It cuts off fractions, writes more than 32 bits as an int, and a text as a list of its letters.
    Branches of a union it tells apart, and a time it converts.
    """
    return tuple(
        (field["name"], kind)
        for field in schema["fields"]
        if not isinstance(kind := field["type"], list)
        and not (isinstance(kind, dict) and "logicalType" in kind)
        and (kind["type"] if isinstance(kind, dict) else kind) in ("int", "long", "array")
    )
