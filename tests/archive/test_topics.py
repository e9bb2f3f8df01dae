"""`kappa archive` on a real topic: whole, resumed, verified, with what transactions leave."""

from __future__ import annotations

import json
import signal
from typing import Any

from confluent_kafka import Producer

from replay.archive import catch_up
from replay.archive_files import Archive, ArchivedRecord
from schemas.topics import begin_offsets, end_offsets
from tests.archive.topics import delete_before
from tests.harness import Environment, end_transaction, kappa, produce, read_topic
from tests.harness import wait_for as wait
from tests.oracle import Record
from tests.replay.running import run, start


def events(count: int, partition: int = 0) -> list[Record]:
    return [Record(partition, -1, 1_000 + n, b"k%d" % n, b"v%d" % n) for n in range(count)]


def archive_of(env: Environment) -> Archive:
    return Archive(env.settings.archive, env.stream.topic)


def offsets(env: Environment, partition: int = 0) -> list[int]:
    archive = archive_of(env)
    end = archive.next_offset(partition) or 0
    return [record.offset for record in archive.records(partition, 0, end)]


def by_partition(document: Any) -> dict[int, Any]:
    return {one["partition"]: one for one in document["partitions"]}


def test_the_archive_holds_what_the_topic_holds_and_grows_with_it(env: Environment) -> None:
    produce(env, [*events(30), *events(20, partition=2)])
    assert kappa(env, "archive", "run")["added"] == 50
    assert kappa(env, "archive", "run")["added"] == 0
    produce(env, events(5))
    assert by_partition(kappa(env, "archive", "status"))[0]["behind"] == 5
    assert kappa(env, "archive", "run")["added"] == 5
    archived = [
        Record(part, r.offset, r.timestamp_ms, r.key, r.value)
        for part in (0, 2)
        for r in archive_of(env).records(part, 0, 100)
    ]
    assert archived == [m.record for m in read_topic(env, env.stream.topic)]
    verified = by_partition(kappa(env, "archive", "verify"))
    assert {p: (one["next"], one["compared"]) for p, one in verified.items()} == {
        0: (35, 35),
        1: (None, 0),
        2: (20, 20),
        3: (None, 0),
    }


def test_a_killed_run_goes_on_with_no_record_twice_or_missing(env: Environment) -> None:
    produce(env, [Record(0, -1, 1_000 + n, b"k", b"v" * 500) for n in range(90_000)])
    archive = archive_of(env)
    process = start(env, "archive", "run")
    wait(lambda: archive.next_offset(0), 60, "a file is written")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    kappa(env, "archive", "run")
    assert offsets(env) == list(range(90_000))
    assert kappa(env, "archive", "verify")["partitions"][0]["problems"] == []


def test_what_is_not_committed_is_not_archived(env: Environment) -> None:
    produce(env, events(3))
    producer = Producer(
        {"bootstrap.servers": env.settings.kafka, "transactional.id": env.settings.namespace}
    )
    producer.init_transactions(30)

    def send(value: bytes) -> None:
        producer.begin_transaction()
        producer.produce(env.stream.topic, value, partition=0, timestamp=1)
        producer.flush(30)

    kafka, topic = env.settings.kafka_client, env.stream.topic
    send(b"aborted")
    end_transaction(producer, kafka, topic, commit=False)
    send(b"committed")
    end_transaction(producer, kafka, topic)
    send(b"open")
    kappa(env, "archive", "run")
    # 3 is aborted, 4 and 6 are markers, 7 is still open.
    assert offsets(env) == [0, 1, 2, 5]
    assert archive_of(env).next_offset(0) == 7
    end_transaction(producer, kafka, topic)
    kappa(env, "archive", "run")
    assert offsets(env) == [0, 1, 2, 5, 7]
    assert kappa(env, "archive", "verify")["partitions"][0]["problems"] == []


def test_a_record_that_differs_from_the_topic_is_found(env: Environment) -> None:
    produce(env, events(2))
    archive_of(env).write(
        0,
        0,
        [ArchivedRecord(0, 1_000, b"k0", b"v0"), ArchivedRecord(1, 1_001, b"k1", b"other")],
        2,
    )
    ended = run(env, "archive", "verify", "--json")
    assert ended.returncode == 1
    assert json.loads(ended.stdout)["partitions"][0]["problems"] == [
        "offset 1 is another in the archive than in the topic"
    ]


def test_events_that_were_deleted_before_they_were_archived_are_named(env: Environment) -> None:
    produce(env, events(4))
    kappa(env, "archive", "run")
    produce(env, events(4))
    delete_before(env, {0: 6})
    ended = run(env, "archive", "run")
    assert ended.returncode == 1
    assert "offsets 4 to 5 are in neither the archive nor the topic" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_small_files_join(env: Environment) -> None:
    produce(env, events(25))
    kafka, topic = env.settings.kafka_client, env.stream.topic
    assert catch_up(kafka, topic, archive_of(env), file_records=4) == 25
    assert [file.first for file in archive_of(env).files(0)] == [0, 4, 8, 12, 16, 20, 24]
    assert offsets(env) == list(range(25))
    assert begin_offsets(kafka, topic)[0] == 0
    assert end_offsets(kafka, topic)[0] == 25
