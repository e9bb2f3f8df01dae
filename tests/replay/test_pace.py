"""How fast a rebuild may read beside the live job. No stack."""

from __future__ import annotations

import pytest

from replay.pace import Limits, Strain, checkpoint_seconds, is_close, next_limit, next_size

ANY_RATE, BOUNDED = Limits(None, 1_000, 30.0), Limits(30_000.0, 1_000, 30.0)
EASY = Strain(0, 0.1)
LAGGING = Strain(1_001, 0.1)
SLOW = Strain(0, 30.1)
UNEASY = Strain(501, 0.1)


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
