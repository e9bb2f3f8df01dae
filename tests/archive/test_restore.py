"""The copy that a rebuild reads: archive, then topic, each record at its own offset."""

from __future__ import annotations

from pathlib import Path

import pytest

from replay.archive import catch_up, read_records
from replay.archive_files import Archive, ArchiveAway, ArchivedRecord, ArchiveFailed
from replay.restored import copy_topic, restore
from schemas.topics import begin_offsets, end_offsets
from tests.archive.topics import delete_before, transaction
from tests.harness import Environment, produce, read_topic
from tests.oracle import Record


def events(first: int, end: int, partition: int) -> list[Record]:
    return [Record(partition, -1, 1_000 + n, b"k%d" % n, b"v%d" % n) for n in range(first, end)]


def restored(env: Environment, limit: int | None = None) -> list[Record]:
    """Restore up to the topic's ends, or `limit` of each partition; return the copy's records."""
    kafka, topic = env.settings.kafka_client, env.stream.topic
    ends = end_offsets(kafka, topic, read_committed=True)
    pinned = {part: end if limit is None else min(end, limit) for part, end in ends.items()}
    copy = copy_topic(env.stream, 2)
    held = restore(kafka, topic, Archive(env.settings.archive, topic), copy, pinned)
    assert held == sum(pinned.values())
    return [message.record for message in read_topic(env, copy)]


def archive(env: Environment) -> None:
    topic = env.stream.topic
    catch_up(env.settings.kafka_client, topic, Archive(env.settings.archive, topic))


def test_the_copy_has_every_record_at_its_offset_and_a_second_run_goes_on(
    env: Environment,
) -> None:
    sent = produce(env, [*events(0, 30, 0), *events(0, 20, 2)])
    archive(env)
    sent += produce(env, [*events(30, 40, 0), *events(0, 5, 1)])
    delete_before(env, {0: 30, 2: 12})
    assert restored(env, limit=7) == sorted(
        (record for record in sent if record.offset < 7), key=lambda r: r.place
    )
    assert restored(env) == sorted(sent, key=lambda r: r.place)
    assert restored(env) == sorted(sent, key=lambda r: r.place)


def test_a_copy_is_kept_and_gone_on_with_where_the_store_is_away_for_a_while(
    env: Environment,
) -> None:
    sent = produce(env, [*events(0, 30, 0), *events(0, 20, 2)])
    archive(env)
    kafka, topic, copy = env.settings.kafka_client, env.stream.topic, copy_topic(env.stream, 2)
    place = Archive(env.settings.archive, topic)
    file = Path(place.files(2)[0].path)
    hidden = file.with_suffix(".hidden")

    def take_away(_: int) -> None:
        if not hidden.exists():
            file.rename(hidden)
            # It can be listed and not be opened.
            file.mkdir()

    with pytest.raises(ArchiveAway, match="the same command goes on"):
        restore(kafka, topic, place, copy, {0: 30, 2: 20}, take_away)
    ends = end_offsets(kafka, copy)
    assert (ends[0], ends[2]) == (30, 0)
    file.rmdir()
    hidden.rename(file)
    assert restored(env) == sorted(sent, key=lambda r: r.place)


def with_transactions(env: Environment) -> list[Record]:
    """Write events, some in transactions that end well or not, and return what is there of them."""
    produce(env, events(0, 3, 0))
    # One marker after one event, after two, and at the end.
    transaction(env, events(3, 4, 0))
    transaction(env, events(4, 6, 0))
    # Five offsets without an event: three markers, and two that were taken back.
    for _ in range(2):
        transaction(env, events(6, 7, 0), commit=False)
    produce(env, events(7, 9, 0))
    transaction(env, events(9, 10, 0))
    produce(env, events(0, 5, 2))
    return [message.record for message in read_topic(env, env.stream.topic)]


def test_offsets_that_transactions_left_are_left_in_the_copy_too(env: Environment) -> None:
    there = with_transactions(env)
    assert [r.offset for r in there if r.partition == 0] == [0, 1, 2, 3, 5, 6, 12, 13, 14]
    archive(env)
    delete_before(env, {0: 8})
    for limit in (5, 8, None):
        assert restored(env, limit) == [r for r in there if limit is None or r.offset < limit]


@pytest.mark.parametrize("written", [4, 5])
def test_a_copy_that_was_left_amid_a_transaction_is_written_anew(
    env: Environment, written: int
) -> None:
    there = with_transactions(env)
    archive(env)
    restored(env, limit=3)
    # The event at offset 3 was in a transaction that did not end, or the one marker is missing.
    copy = copy_topic(env.stream, 2)
    last = [Record(0, -1, 1_003, b"k3", b"v3")]
    if written == 4:
        produce(env, last, copy)
    else:
        transaction(env, last, commit=False, topic=copy)
    assert end_offsets(env.settings.kafka_client, copy)[0] == written
    assert restored(env) == there


def test_a_first_offset_without_an_event_stays_without(env: Environment, tmp_path: Path) -> None:
    place, event = Archive(str(tmp_path), env.stream.topic), ArchivedRecord(1, 5, b"k", b"v")
    place.write(0, 0, [event], 2)
    kafka, copy = env.settings.kafka_client, copy_topic(env.stream, 2)
    for _ in range(2):
        assert restore(kafka, env.stream.topic, place, copy, {0: 2}) == 2
        assert begin_offsets(kafka, copy)[0] == 1
        assert list(read_records(kafka, copy, 0, 1, 2)) == [event]


def test_events_that_are_nowhere_are_missed(env: Environment) -> None:
    produce(env, events(0, 5, 0))
    archive(env)
    produce(env, events(5, 10, 0))
    delete_before(env, {0: 8})
    with pytest.raises(ArchiveFailed, match="offsets 5 to 7 are in neither the archive nor the"):
        restored(env)
