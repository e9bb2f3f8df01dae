"""Send mended dead letters to their events topic again, each exactly once.

What is about to be sent is written to the journal before it is sent, in one Kafka transaction with
a fixed transactional id, and noted as sent after it. Whoever finds an entry of a killed process
first ends that one's transaction and then looks in the topic whether it took place.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, LiteralString

from confluent_kafka import KafkaException, Producer
from psycopg.types.json import Jsonb

from replay.control import Control
from replay.letters import Mended, Place
from schemas.reading import read_committed
from schemas.streams import Stream
from schemas.topics import KafkaUnavailable, end_offsets, kafka_error

ORIGIN_HEADER = "reinjected_from"
"""Header of an event that was sent again: topic, partition and offset of its dead letter's."""

_SCHEMA: LiteralString = """
CREATE TABLE IF NOT EXISTS kappa.reinjected_events (
    namespace text NOT NULL,
    stream text NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    state text NOT NULL,
    holder text NOT NULL,
    sent_after jsonb NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (namespace, stream, partition, "offset")
);
"""
_SCHEMA_LOCK = 0x6B617073
_SECONDS = 30.0
_OPEN_SECONDS, _POLL_SECONDS = 60.0, 0.2
# While a transaction is open, readers wait: one of a killed process must end soon.
_TRANSACTION_MS = 30_000


class Reinjection:
    """The dead letters of one stream that were sent again."""

    def __init__(self, control: Control, kafka: Mapping[str, Any], stream: Stream) -> None:
        self._control, self._kafka, self._stream = control, dict(kafka), stream
        self._where = (control.namespace, stream.name)
        with control.transaction() as connection:
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_SCHEMA_LOCK,))
            connection.execute(_SCHEMA)

    def places(self) -> frozenset[Place]:
        """Return the letters that were sent again."""
        return self._found("sent")

    def noted(self) -> frozenset[Place]:
        """Return the letters that were sent again, and those of which that is not known yet."""
        return self._found("sent", "sending")

    def _found(self, *states: str) -> frozenset[Place]:
        with self._control.transaction() as connection:
            rows = connection.execute(
                'SELECT partition, "offset" FROM kappa.reinjected_events'
                " WHERE namespace = %s AND stream = %s AND state = ANY(%s)",
                (*self._where, list(states)),
            ).fetchall()
        return frozenset((row["partition"], row["offset"]) for row in rows)

    def send(self, mended: Sequence[Mended]) -> int:
        """Send the events of those letters that were not sent yet; return how many that were.

        The caller holds the stream's lock, so that nobody else sends at the same time.
        """
        producer = self._producer()
        try:
            # Ends the transaction that a killed process may have left.
            producer.init_transactions(_SECONDS)
            self._settle()
            done = self.places()
            fresh = [one for one in mended if one.letter.place not in done]
            if fresh:
                self._note(fresh)
                self._produce(producer, fresh)
                self._mark_sent({one.letter.place for one in fresh})
        except KafkaException as error:
            raise KafkaUnavailable(
                f"{self._stream.topic}: {kafka_error(error).str()}; the same command goes on."
            ) from error
        return len(fresh)

    def _producer(self) -> Producer:
        return Producer(
            {
                **self._kafka,
                "transactional.id": f"kappa-dlq-{self._stream.topic}",
                "transaction.timeout.ms": _TRANSACTION_MS,
                "partitioner": "murmur2_random",
                "log_level": 3,
            }
        )

    def _produce(self, producer: Producer, mended: Sequence[Mended]) -> None:
        producer.begin_transaction()
        for one in mended:
            origin = f"{self._stream.topic}/{one.letter.partition}/{one.letter.offset}"
            while True:
                try:
                    producer.produce(
                        self._stream.topic,
                        one.value,
                        one.key,
                        timestamp=one.timestamp_ms,
                        headers=[(ORIGIN_HEADER, origin.encode())],
                    )
                    break
                except BufferError:
                    producer.poll(0.05)
            producer.poll(0)
        producer.commit_transaction(_SECONDS)

    def _note(self, mended: Sequence[Mended]) -> None:
        after = end_offsets(self._kafka, self._stream.topic)
        rows = [
            (*self._where, *one.letter.place, "sending", self._control.holder, Jsonb(after))
            for one in mended
        ]
        with self._control.transaction() as connection:
            connection.cursor().executemany(
                "INSERT INTO kappa.reinjected_events VALUES (%s, %s, %s, %s, %s, %s, %s)", rows
            )

    def _mark_sent(self, places: Collection[Place]) -> None:
        with self._control.transaction() as connection:
            connection.cursor().executemany(
                "UPDATE kappa.reinjected_events SET state = 'sent', changed_at = clock_timestamp()"
                ' WHERE namespace = %s AND stream = %s AND partition = %s AND "offset" = %s',
                [(*self._where, *place) for place in places],
            )

    def _settle(self) -> None:
        """Find out what became of the entries that a killed process left, and note it."""
        with self._control.transaction() as connection:
            rows = connection.execute(
                'SELECT partition, "offset", sent_after FROM kappa.reinjected_events'
                " WHERE namespace = %s AND stream = %s AND state = 'sending'",
                self._where,
            ).fetchall()
        if not rows:
            return
        left = {(row["partition"], row["offset"]) for row in rows}
        after = {int(part): at for part, at in rows[0]["sent_after"].items()}
        for row in rows:
            for part, at in row["sent_after"].items():
                after[int(part)] = min(after.get(int(part), at), at)
        arrived = left & self._origins_after(after)
        self._mark_sent(arrived)
        with self._control.transaction() as connection:
            connection.cursor().executemany(
                "DELETE FROM kappa.reinjected_events"
                ' WHERE namespace = %s AND stream = %s AND partition = %s AND "offset" = %s',
                [(*self._where, *place) for place in left - arrived],
            )

    def _closed_ends(self) -> dict[int, int]:
        """Return the topic's ends now, once no transaction that was open hides what is before."""
        topic = self._stream.topic
        wanted = end_offsets(self._kafka, topic)
        deadline = time.monotonic() + _OPEN_SECONDS
        while True:
            ends = end_offsets(self._kafka, topic, read_committed=True)
            if all(ends[part] >= end for part, end in wanted.items()):
                return ends
            if time.monotonic() > deadline:
                raise KafkaUnavailable(
                    f"a transaction has been open on {topic} for {_OPEN_SECONDS:.0f} s, and behind "
                    "it nobody sees which events were sent; try again when it is over."
                )
            time.sleep(_POLL_SECONDS)

    def _origins_after(self, after: Mapping[int, int]) -> set[Place]:
        topic = self._stream.topic
        ends = self._closed_ends()
        ranges = {part: (after.get(part, 0), end) for part, end in ends.items()}
        found: set[Place] = set()
        for messages in read_committed(self._kafka, topic, ranges):
            for message in messages:
                headers = message.headers() or ()
                found |= {_place(text) for name, text in headers if name == ORIGIN_HEADER}
        return found


def _place(origin: str | bytes | None) -> Place:
    text = origin.decode() if isinstance(origin, bytes) else origin or ""
    _, partition, offset = text.rsplit("/", 2)
    return int(partition), int(offset)
