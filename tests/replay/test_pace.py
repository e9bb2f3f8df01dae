"""How fast a rebuild may read beside the live job. No stack."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from deploy.settings import Settings
from jobs.cluster import Cluster
from replay import options, throttle
from replay.pace import Limits, Strain, checkpoint_seconds, is_close, next_limit, next_size
from tests.flink_rest import flink

ANY_RATE, BOUNDED = Limits(None, 1_000, 30.0), Limits(30_000.0, 1_000, 30.0)
EASY = Strain(0, 0.1)
LAGGING = Strain(1_001, 0.1)
SLOW = Strain(0, 30.1)
UNEASY = Strain(501, 0.1)


def test_a_rebuild_keeps_to_what_was_asked_for_and_else_to_what_the_help_says() -> None:
    assert options.Pace().limits == Limits(None, 100_000, 30.0)
    assert options.Pace(1.0, 2, 3.0).limits == Limits(1.0, 2, 3.0)


@pytest.mark.parametrize(
    ("limit", "read_rate", "limits", "strain", "expected"),
    [
        (None, 40_000.0, ANY_RATE, EASY, None),
        (None, 40_000.0, ANY_RATE, LAGGING, 20_000.0),
        (None, 40_000.0, ANY_RATE, SLOW, 20_000.0),
        (20_000.0, 18_000.0, ANY_RATE, LAGGING, 9_000.0),
        (20_000.0, 18_000.0, ANY_RATE, UNEASY, 20_000.0),
        (20_000.0, 18_000.0, ANY_RATE, EASY, 40_000.0),
        (80_000.0, 30_000.0, ANY_RATE, EASY, None),
        (20_000.0, 18_000.0, BOUNDED, EASY, 30_000.0),
        (30_000.0, 29_000.0, BOUNDED, EASY, 30_000.0),
        (600.0, 500.0, ANY_RATE, LAGGING, 500.0),
    ],
)
def test_the_limit_falls_with_the_live_jobs_strain_and_comes_back(
    limit: float | None,
    read_rate: float,
    limits: Limits,
    strain: Strain,
    expected: float | None,
) -> None:
    assert next_limit(limit, read_rate, limits, strain) == expected


def test_a_checkpoint_counts_for_the_time_it_takes_also_before_it_is_complete() -> None:
    completed = {"status": "COMPLETED", "trigger_timestamp": 1_000, "end_to_end_duration": 2_500}
    under_way = {"status": "IN_PROGRESS", "trigger_timestamp": 60_000, "end_to_end_duration": -1}
    none_yet = {"latest": {"completed": None}, "history": []}
    one = {"latest": {"completed": completed}, "history": [completed]}
    two = {"latest": {"completed": completed}, "history": [under_way, completed]}
    assert checkpoint_seconds(none_yet, 100.0) == 0.0
    assert checkpoint_seconds(one, 100.0) == 2.5
    assert checkpoint_seconds(two, 61.0) == 2.5
    assert checkpoint_seconds(two, 100.0) == 40.0


def test_an_event_is_taken_for_smaller_where_too_many_came_and_never_for_larger() -> None:
    assert next_size(200.0, 1_000, 2_000) == 100.0
    assert next_size(200.0, 1_000, 1_100) == 200.0
    assert next_size(200.0, 1_000, 100) == 200.0
    assert next_size(200.0, 1_000, 0) == 200.0


def test_a_quota_that_is_nearly_right_is_left_alone() -> None:
    assert is_close(110.0, 100.0)
    assert is_close(100.0, 110.0)
    assert not is_close(100.0, 120.0)


@dataclass
class Kafka:
    """A clock that is driven, and a consumer that reads what its quota lets through."""

    now: float = 0.0
    done: float = 0.0
    quota: float | None = None

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    def read(self, seconds: float, at_most: float) -> None:
        self.now += seconds
        self.done += seconds * min(at_most, at_most if self.quota is None else self.quota / 50)


def test_a_throttle_holds_a_rebuild_back_and_lets_it_go(monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = Kafka()
    monkeypatch.setattr(throttle, "time", kafka)
    # The sample says 100 bytes, and what comes over the wire has 50.
    monkeypatch.setattr(throttle, "sampled_bytes", lambda *_: 100.0)
    monkeypatch.setattr(
        throttle, "limit_consumers", lambda *given: setattr(kafka, "quota", given[2])
    )
    monkeypatch.setattr(throttle, "free_groups", lambda *_: setattr(kafka, "quota", None))
    monkeypatch.setattr(throttle.Throttle, "_checkpoint_seconds", lambda _: 0.1)
    bounds = Limits(None, 1_000, 30.0)
    held = throttle.Throttle(Settings(), ["job.v2"], "job", ["events"], bounds, _changed=0.0)
    limits: list[float | None] = []

    def run(seconds: int, live_lag: int, at_most: float = 8_000.0) -> None:
        for _ in range(seconds):
            kafka.read(1.0, at_most)
            held.look(round(kafka.done), live_lag)
            limits.append(held.limit)

    run(30, 0)
    assert (set(limits), kafka.quota) == ({None}, None)
    run(13, 1_001)
    assert (held.limit, kafka.quota) == (4_000.0, 400_000.0)
    run(30, 600)
    # Too much came through, so the quota is halved and the limit is what it was.
    assert (held.limit, kafka.quota) == (4_000.0, 200_000.0)
    run(60, 600, at_most=10.0)
    assert kafka.quota == 200_000.0
    run(200, 0)
    assert (held.limit, kafka.quota) == (None, None)
    assert held.slowed == 1


@pytest.mark.parametrize(
    ("state", "ran_ms", "spared"),
    [
        ("RUNNING", 60_000, True),
        ("RUNNING", 59_999, False),
        ("RESTARTING", 600_000, False),
        ("FAILED", 600_000, False),
    ],
)
def test_a_live_job_that_fails_again_and_again_holds_nothing_back(
    state: str, ran_ms: int, spared: bool
) -> None:
    with flink("a" * 32, "page_views", 5, state, ran_ms=ran_ms) as url:
        found = throttle.spared_job(Cluster(url), "page_views")
    assert (found is not None) is spared
