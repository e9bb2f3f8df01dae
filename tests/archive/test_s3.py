"""An archive in an S3-compatible store: moto's server, and events that only it still has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from replay.archive_files import Archive, ArchiveFailed
from schemas.topics import end_offsets
from tests import datasets
from tests.archive.topics import delete_before
from tests.harness import (
    Environment,
    kappa,
    produce,
    register,
    start_loader,
    submit_page_views,
)
from tests.object_store import ObjectStore, object_store
from tests.oracle import judge
from tests.replay.running import done, refused, run, shown
from tests.settling import wait_for_rows


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    with object_store(monkeypatch) as store:
        yield store


@pytest.fixture
def in_store(env: Environment, s3: ObjectStore) -> Environment:
    """Return a namespace whose archive is in the store."""
    url = f"s3://{s3.bucket}/kept?endpoint_override={s3.address}&scheme=http&region=us-east-1"
    env.settings = env.settings.model_copy(update={"archive_url": url})
    return env


def test_an_archive_in_s3_is_written_grows_and_is_verified(
    in_store: Environment, s3: ObjectStore
) -> None:
    env, topic = in_store, in_store.stream.topic
    sent = produce(env, datasets.late_events(register(env, datasets.V1)))
    ends = end_offsets(env.settings.kafka_client, topic)
    assert kappa(env, "archive", "run")["added"] == len(sent)
    first = [f"kept/{topic}/partition={part}/{0:020d}.parquet" for part, end in ends.items() if end]
    assert s3.objects() == first

    more = produce(env, [sent[0], sent[0]])
    assert kappa(env, "archive", "run")["added"] == 2
    part, offset = more[0].place
    assert s3.objects() == sorted([*first, f"kept/{topic}/partition={part}/{offset:020d}.parquet"])
    status = kappa(env, "archive", "status")["partitions"]
    assert {one["partition"]: one["next"] or 0 for one in status} == end_offsets(
        env.settings.kafka_client, topic
    )
    verified = kappa(env, "archive", "verify")["partitions"]
    assert sum(one["compared"] for one in verified) == len(sent) + 2
    assert [one["problems"] for one in verified] == [[]] * len(ends)


@pytest.mark.long
def test_a_rebuild_reads_what_only_s3_still_has(in_store: Environment) -> None:
    env = in_store
    came = produce(env, datasets.late_events(register(env, datasets.V1)))
    submit_page_views(env)
    start_loader(env)
    verdict = judge(came, env.registered)
    wait_for_rows(env, verdict)
    assert kappa(env, "archive", "run")["added"] == len(came)
    delete_before(env, end_offsets(env.settings.kafka_client, env.stream.topic))
    assert "lacks offsets 0 to" in refused(env, "plan")
    done(env, "run", "--from-archive", "--yes")
    assert set(shown(env).values()) == {2}
    wait_for_rows(env, verdict)


def test_a_store_that_does_not_answer_is_named(env: Environment) -> None:
    nowhere = "s3://bucket/kept?endpoint_override=127.0.0.1:9&scheme=http&region=us-east-1"
    ended = run(env, "archive", "run", "--to", nowhere)
    assert ended.returncode == 1
    assert "can't list the archive at s3://bucket/kept" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_credentials_in_a_uri_are_refused_and_not_repeated() -> None:
    with pytest.raises(ArchiveFailed, match="AWS_ACCESS_KEY_ID") as refusal:
        Archive("s3://key:hidden@bucket/kept", "events")
    assert "hidden" not in str(refusal.value)
