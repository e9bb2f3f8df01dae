"""How long a rebuild waits for partitions that others have left behind. No stack."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deploy.settings import Settings
from jobs.catalogue import job_named
from jobs.plan import plan
from replay import silence as room
from replay.silence import Newest, silence

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
FIVE, TEN = timedelta(minutes=5), timedelta(minutes=10)
LIVELY, STALE = NOW - timedelta(seconds=30), NOW - timedelta(minutes=20)


@pytest.mark.parametrize(
    ("partitions", "waits"),
    [
        ([Newest(LIVELY, FIVE), Newest(LIVELY, TEN)], timedelta()),
        ([Newest(LIVELY, FIVE), Newest(STALE, TEN)], TEN),
        ([Newest(LIVELY, TEN), Newest(STALE, FIVE)], FIVE),
        ([Newest(LIVELY, FIVE), Newest(None, TEN)], TEN),
        ([Newest(STALE, FIVE), Newest(None, TEN)], TEN),
        ([Newest(STALE, FIVE), Newest(STALE, TEN)], timedelta()),
        ([Newest(None, FIVE), Newest(None, TEN)], timedelta()),
        ([], timedelta()),
    ],
)
def test_only_what_others_left_behind_is_waited_for(
    partitions: list[Newest], waits: timedelta
) -> None:
    assert silence(partitions, NOW) == waits


@pytest.mark.parametrize(("partitions", "waits"), [(5, timedelta()), (6, TEN)])
def test_a_partition_beyond_those_declared_is_waited_for_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, partitions: int, waits: timedelta
) -> None:
    job_plan = plan(job_named("page_views").within(""), 2)
    (source,) = job_plan.inputs
    lively = datetime.now(UTC).timestamp() * 1000
    monkeypatch.setattr(room, "job_offsets", lambda *_: {"page_views": {}})
    monkeypatch.setattr(room, "watermarks", lambda *_: dict.fromkeys(range(5), lively))
    monkeypatch.setattr(room, "partition_count", lambda kafka, topic: partitions)
    monkeypatch.setattr(room, "idle_timeout_of", lambda *_: TEN.total_seconds())
    assert source.stream.partitions == 4
    assert room.silence_of(Settings(home=tmp_path), job_plan) == waits
