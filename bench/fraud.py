"""How soon a fraudulent transaction has its alert, and how many transactions a second are scored.

python -m bench.fraud --per-second 500 --seconds 60 --backlog 1000000
"""

from __future__ import annotations

import io
import itertools
import random
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import fastavro
import numpy as np
import typer
from confluent_kafka import Consumer, Producer, TopicPartition

from bench.generators import Event
from bench.generators.transactions import event
from bench.steady import STEADY_FROM, STEADY_TO
from bench.throughput import borrowed_namespace
from deploy.console import CommandError, print_json, print_table, run_alone
from deploy.settings import Settings
from jobs.catalogue import job_named
from jobs.plan import plan
from jobs.run import prepare
from jobs.submit import cancel, submit
from jobs.views import View
from schemas.framing import header, split
from schemas.registry import Registry, publish_schema
from schemas.streams import Stream

_DEADLINE_SECONDS = 600.0
_WARM_UP_SECONDS = 10.0
_THEFTS = 0.02
_USUAL_CENTS, _STOLEN_CENTS = 1_000, 90_000
_HOME, _ELSEWHERE = (52.5, 13.4), (40.7, -74.0)


@dataclass(frozen=True)
class Measured:
    """One run: milliseconds from produced to alert visible, and transactions scored a second.

    `sustained` is the rate at which a backlog was worked off, start-up left out.
    """

    backlog: int
    sustained: float
    per_second: float
    transactions: int
    alerts: int
    p50_ms: float
    p99_ms: float
    greatest_ms: float


@dataclass
class Watcher:
    """Notes when each alert becomes visible to a reader with Kafka's usual settings."""

    kafka: dict[str, str]
    view: View
    partitions: int
    seen: dict[str, float] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Read the topic until `stop`."""
        consumer = Consumer(
            {**self.kafka, "group.id": "bench-fraud", "enable.auto.commit": False}
            | {"fetch.wait.max.ms": 10}
        )
        topic, schema = self.view.topic(1), fastavro.parse_schema(self.view.avro_schema)
        consumer.assign([TopicPartition(topic, p, 0) for p in range(self.partitions)])
        while not self._stop.is_set():
            message = consumer.poll(0.1)
            if message is not None and message.error() is None:
                now, (_, body) = time.monotonic(), split(message.value())
                alert: Any = fastavro.schemaless_reader(io.BytesIO(body), schema, None)
                self.seen.setdefault(alert["transaction_id"], now)
        consumer.close()

    def stop(self) -> None:
        """End `run`."""
        self._stop.set()

    def await_alerts(self, wanted: set[str]) -> None:
        """Wait until every one of `wanted` was seen."""
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while missing := wanted - self.seen.keys():
            if time.monotonic() > deadline:
                raise CommandError(f"{len(missing)} of {len(wanted)} alerts did not come.")
            time.sleep(0.1)


def payments(seed: int, users: int) -> Iterator[tuple[Event, bool]]:
    """Yield transactions without end, and whether each must raise an alert; times are missing.

    A theft is a large payment far away by someone who has just paid at home.
    """
    chance = random.Random(seed)
    histories: dict[int, deque[int]] = defaultdict(lambda: deque(maxlen=20))
    for number in itertools.count():
        user = chance.randrange(users)
        last = histories[user]
        can_be_told = (
            last and last[-1] == _USUAL_CENTS and sum(last) * 5 < _STOLEN_CENTS * len(last)
        )
        is_theft = bool(can_be_told) and chance.random() < _THEFTS
        north, east = _ELSEWHERE if is_theft else _HOME
        last.append(_STOLEN_CENTS if is_theft else _USUAL_CENTS)
        yield (
            event(
                0,
                event_id=f"tx-{seed}-{number}",
                user_id=f"user-{seed}-{user}",
                card_id=f"card-{user}",
                amount_cents=last[-1],
                merchant="shop",
                latitude=north,
                longitude=east,
            ),
            is_theft,
        )


class Sender:
    """Writes transactions to the topic of `stream`."""

    def __init__(self, settings: Settings, stream: Stream) -> None:
        with Registry(**settings.registry_access) as registry:
            self._header = header(publish_schema(registry, stream))
        self._schema: Any = fastavro.parse_schema(stream.schema)
        self._topic = stream.topic
        self._producer = Producer(
            {**settings.kafka_client, "linger.ms": 0, "enable.idempotence": True}
            | {"queue.buffering.max.messages": 1_000_000}
        )

    def send(self, payment: Event, time_ms: int) -> None:
        """Hand one transaction to the client."""
        body = io.BytesIO()
        fastavro.schemaless_writer(body, self._schema, payment | {"event_time": time_ms})
        self._producer.produce(
            self._topic,
            self._header + body.getvalue(),
            payment["user_id"],
            timestamp=time_ms,
        )
        self._producer.poll(0)

    def flush(self) -> None:
        """Wait until all of them are written."""
        self._producer.flush()


def measure(
    settings: Settings, per_second: float, seconds: float, backlog: int, users: int, **options: int
) -> Measured:
    """Fill a topic of its own, run the job over it, then send at `per_second`, and clean up."""
    with borrowed_namespace(settings) as there:
        return _measure_in(there, per_second, seconds, backlog, users, options)


def _measure_in(
    there: Settings,
    per_second: float,
    seconds: float,
    backlog: int,
    users: int,
    options: Mapping[str, int],
) -> Measured:
    job = job_named("transactions").within(there.namespace)
    prepare(there, plan(job, 1))
    sender = Sender(there, job.stream)
    alerts = next(view for view in job.views if view.name == "fraud_alerts")
    watcher = Watcher(there.kafka_client, alerts, job.stream.partitions)
    threading.Thread(target=watcher.run, daemon=True).start()
    due = _fill(sender, backlog, users)
    submitted = submit(there, "transactions", restore="none", options=dict(options))
    try:
        watcher.await_alerts(due)
        sustained = _rate(sorted(watcher.seen.values()), backlog)
        warm_up = _paced(sender, 2, per_second, _WARM_UP_SECONDS, users)
        sent = _paced(sender, 3, per_second, seconds, users)
        watcher.await_alerts(warm_up.keys() | sent.keys())
        if false := watcher.seen.keys() - due - warm_up.keys() - sent.keys():
            raise CommandError(
                f"{len(false)} alerts were raised for no theft, such as {min(false)}."
            )
    finally:
        watcher.stop()
        cancel(there, submitted.name)
    waited = [1000 * (watcher.seen[name] - at) for name, at in sent.items()]
    p50, p99 = np.percentile(waited, (50, 99))
    return Measured(
        backlog,
        round(sustained),
        per_second,
        round(per_second * seconds),
        len(waited),
        round(p50, 1),
        round(p99, 1),
        round(max(waited), 1),
    )


def _fill(sender: Sender, count: int, users: int) -> set[str]:
    """Send `count` transactions of the last minutes; return those that must raise an alert."""
    begin = round(time.time() * 1000) - count // 10
    due = set()
    for number, (payment, is_theft) in zip(range(count), payments(1, users), strict=False):
        sender.send(payment, begin + number // 10)
        if is_theft:
            due.add(payment["event_id"])
    sender.flush()
    return due


def _paced(
    sender: Sender, seed: int, per_second: float, seconds: float, users: int
) -> dict[str, float]:
    """Send at an even pace; return when each that must raise an alert was due."""
    begin, sent = time.monotonic(), {}
    count = round(per_second * seconds)
    for number, (payment, is_theft) in zip(range(count), payments(seed, users // 20), strict=False):
        due = begin + number / per_second
        time.sleep(max(due - time.monotonic(), 0.0))
        if is_theft:
            # Sent later, it would hide how long it has waited.
            sent[payment["event_id"]] = due
        sender.send(payment, round(time.time() * 1000))
    sender.flush()
    return sent


def _rate(seen: list[float], transactions: int) -> float:
    """Return transactions a second over the steady part of the alerts' moments."""
    first, last = (round(part * (len(seen) - 1)) for part in (STEADY_FROM, STEADY_TO))
    return (last - first) / len(seen) * transactions / (seen[last] - seen[first])


def main(
    per_second: Annotated[float, typer.Option(min=1, help="Transactions per second.")] = 500,
    seconds: Annotated[float, typer.Option(min=1, help="How long at that pace.")] = 60,
    backlog: Annotated[
        int, typer.Option(min=1000, help="Transactions waiting at first.")
    ] = 1_000_000,
    users: Annotated[int, typer.Option(min=100)] = 20_000,
    parallelism: Annotated[int, typer.Option(min=1)] = 2,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Measure on the running embedded stack (`kappa up` first).

    Example: python -m bench.fraud --per-second 500 --seconds 60
    """
    found = measure(Settings(), per_second, seconds, backlog, users, parallelism=parallelism)
    if as_json:
        print_json(asdict(found))
        return
    rows = [(name.replace("_", " "), value) for name, value in asdict(found).items()]
    print_table("Fraud: produced to alert visible", ("", "measured"), rows)


if __name__ == "__main__":
    run_alone(main)
