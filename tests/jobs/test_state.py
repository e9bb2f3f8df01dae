"""A job's state is found, described and dropped alike on disk and in an S3-compatible store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from deploy.flink import configuration
from deploy.settings import Settings
from jobs.cluster import Cluster
from jobs.state import StateUnavailable, latest_state, state_folders
from tests.object_store import ObjectStore, object_store

JOB = "n.page_views.v2"


class Configured:
    """A cluster of which only the configuration is known."""

    def __init__(self, **entries: str) -> None:
        self._entries = entries

    def configuration(self) -> dict[str, str]:
        return self._entries


def cluster(base: str, **more: str) -> Cluster:
    """Return a cluster that keeps its state below `base`."""
    entries = {
        "execution.checkpointing.dir": f"{base}/checkpoints",
        "execution.checkpointing.savepoint-dir": f"{base}/savepoints",
        **more,
    }
    return cast(Cluster, Configured(**entries))


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    with object_store(monkeypatch) as store:
        yield store


@pytest.fixture
def in_s3(s3: ObjectStore) -> Cluster:
    """Return a cluster that keeps its state in the bucket."""
    return cluster(f"s3://{s3.bucket}/flink", **{"s3.endpoint": f"http://{s3.address}"})


def test_the_newest_complete_state_is_found_on_disk(tmp_path: Path) -> None:
    old = put(tmp_path / f"checkpoints/{JOB}/0a/chk-9/_metadata", at=3_000)
    put(tmp_path / f"checkpoints/{JOB}/0b/chk-2/_metadata", at=2_000)
    put(tmp_path / f"checkpoints/{JOB}/0b/chk-10/op-state", at=5_000)
    put(tmp_path / f"savepoints/{JOB.removesuffix('.v2')}/savepoint-1/_metadata", at=6_000)
    here = cluster(tmp_path.as_uri())
    assert latest_state(here, JOB) == old.parent.as_uri()
    saved = put(tmp_path / f"savepoints/{JOB}/savepoint-2/_metadata", at=4_000)
    assert latest_state(here, JOB) == saved.parent.as_uri()
    assert latest_state(here, "n.orders") is None


def test_state_is_found_where_flink_writes_it_whatever_the_folder_is_called(tmp_path: Path) -> None:
    home = tmp_path / "my 100% é#1?"
    configured = configuration(Settings(_env_file=None, home=home))
    here = cast(Cluster, Configured(**configured))
    newest = put(home / f"data/flink/checkpoints/{JOB}/0a/chk-3/_metadata", at=1_000).parent
    # Flink takes the location for the folder's name as it stands.
    assert latest_state(here, JOB) == f"file://{newest}"
    checkpoints, _ = state_folders(here, JOB)
    checkpoints.keep_layout({"a": "1"})
    assert (home / f"data/flink/checkpoints/{JOB}/layout.json").exists()
    checkpoints.drop()
    assert latest_state(here, JOB) is None


def test_the_newest_complete_state_is_found_in_s3(s3: ObjectStore, in_s3: Cluster) -> None:
    assert latest_state(in_s3, JOB) is None
    folder = f"s3://{s3.bucket}/flink"
    s3.put(f"flink/savepoints/{JOB}/savepoint-1/_metadata", at=1_000)
    assert latest_state(in_s3, JOB) == f"{folder}/savepoints/{JOB}/savepoint-1"
    for number, at in ((9, 2_000), (10, 2_000), (11, 1_500)):
        s3.put(f"flink/checkpoints/{JOB}/0a/chk-{number}/_metadata", at=at)
    s3.put(f"flink/checkpoints/{JOB}/0a/shared/sst", at=3_000)
    s3.put(f"flink/checkpoints/{JOB}/0a/chk-12/op-state", at=3_000)
    s3.put(f"flink/checkpoints/{JOB}0/0a/chk-9/_metadata", at=3_000)
    assert latest_state(in_s3, JOB) == f"{folder}/checkpoints/{JOB}/0a/chk-10"
    s3.put(f"flink/savepoints/{JOB}/savepoint-2/_metadata", at=2_000)
    assert latest_state(in_s3, JOB) == f"{folder}/savepoints/{JOB}/savepoint-2"


def test_what_state_in_s3_computes_is_kept_and_goes_with_it(
    s3: ObjectStore, in_s3: Cluster
) -> None:
    checkpoints, savepoints = state_folders(in_s3, JOB)
    assert checkpoints.layout() is None
    checkpoints.keep_layout({"per_minute": "count"})
    assert checkpoints.layout() == {"per_minute": "count"}
    s3.put(f"flink/checkpoints/{JOB}/0a/chk-7/_metadata", at=1_000)
    s3.put(f"flink/checkpoints/{JOB}0/0a/chk-9/_metadata", at=1_000)
    for folder in (checkpoints, savepoints, checkpoints):
        folder.drop()
    assert [key for key in s3.objects() if not key.endswith("/")] == [
        f"flink/checkpoints/{JOB}0/0a/chk-9/_metadata"
    ]


def test_a_store_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    away = cluster("s3://bucket/flink", **{"s3.endpoint": "http://127.0.0.1:9"})
    with pytest.raises(StateUnavailable, match=f"s3://bucket/flink/checkpoints/{JOB}"):
        latest_state(away, JOB)


def put(path: Path, *, at: float) -> Path:
    """Write an empty file that was last changed at `at`, epoch seconds."""
    path.parent.mkdir(parents=True)
    path.touch()
    os.utime(path, (at, at))
    return path


def test_what_is_noted_beside_state_is_whole_or_as_it_was(tmp_path: Path) -> None:
    (folder, _) = state_folders(cluster(tmp_path.as_uri()), JOB)
    folder.keep_layout({"a": "1"})
    with pytest.raises(TypeError):
        folder.keep_layout({"a": object()})  # type: ignore[dict-item]
    assert folder.layout() == {"a": "1"}
    folder.keep_layout({"a": "2"})
    assert folder.layout() == {"a": "2"}
    assert os.listdir(tmp_path / "checkpoints" / JOB) == ["layout.json"]
