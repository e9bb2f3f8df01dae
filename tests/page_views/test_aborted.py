"""Events of a transaction that was aborted: in no view, and no measure of time."""

from __future__ import annotations

from confluent_kafka import Producer

from tests import datasets
from tests.harness import Environment, end_transaction, produce, register, rows, start
from tests.oracle import MINUTE, SITE
from tests.settling import assert_status, settle


def test_what_a_producer_aborted_is_in_no_view_and_makes_nothing_late(env: Environment) -> None:
    schema_id = register(env, datasets.V1)
    start(env)
    good = datasets.dense_traffic(schema_id, events=2_000, minutes=10)
    produce(env, good[:1_000])
    aborted = write_and_abort(env, schema_id)
    produce(env, good[1_000:])

    verdict = settle(env)
    assert (len(verdict.aggregated), verdict.late, verdict.dead) == (len(good), {}, {})
    assert rows(env, f"SELECT sum(views) FROM {env.settings.database}.{SITE}") == [(len(good),)]
    # Each partition has a marker after the events.
    assert_status(env, verdict, markers=aborted + datasets.PARTITIONS)


def write_and_abort(env: Environment, schema_id: int) -> int:
    """Abort events of minutes that are open and of hours later, on all partitions; tell how many.

    Taken for events, the first would be counted, and the others make late what comes after them.
    """
    kafka = {"bootstrap.servers": env.settings.kafka}
    producer = Producer({**kafka, "transactional.id": env.stream.topic})
    producer.init_transactions(20)
    producer.begin_transaction()
    moments = [datasets.EVENING + 5 * MINUTE, datasets.EVENING + 2 * datasets.HOUR]
    users = [datasets.user_on(partition) for partition in range(datasets.PARTITIONS)]
    for number, (user, moment) in enumerate((u, m) for m in moments for u in users):
        event = {"event_id": f"aborted-{number}", "event_time": moment, "user_id": user}
        partition, timestamp, key, value = datasets.draft({**event, "page_id": "/a"}, schema_id)
        producer.produce(env.stream.topic, value, key, partition, timestamp=timestamp)
    assert producer.flush(20) == 0
    end_transaction(producer, kafka, env.stream.topic, commit=False)
    return len(moments) * len(users)
