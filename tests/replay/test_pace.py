"""How fast a rebuild may read beside the live job. No stack."""

from __future__ import annotations

import pytest

from replay.pace import MOST_CHECKPOINT_SECONDS, MOST_LIVE_LAG, Strain, next_limit, next_quota

EASY = Strain(0, 0.1)
LAGGING = Strain(MOST_LIVE_LAG + 1, 0.1)
SLOW = Strain(0, MOST_CHECKPOINT_SECONDS + 1)
UNEASY = Strain(MOST_LIVE_LAG // 2 + 1, 0.1)


@pytest.mark.parametrize(
    ("limit", "read_rate", "ceiling", "strain", "expected"),
    [
        (None, 40_000.0, None, EASY, None),
        (None, 40_000.0, None, LAGGING, 20_000.0),
        (None, 40_000.0, None, SLOW, 20_000.0),
        (20_000.0, 18_000.0, None, LAGGING, 9_000.0),
        (20_000.0, 18_000.0, None, UNEASY, 20_000.0),
        (20_000.0, 18_000.0, None, EASY, 40_000.0),
        (80_000.0, 30_000.0, None, EASY, None),
        (20_000.0, 18_000.0, 30_000.0, EASY, 30_000.0),
        (30_000.0, 29_000.0, 30_000.0, EASY, 30_000.0),
        (600.0, 500.0, None, LAGGING, 500.0),
    ],
)
def test_the_limit_falls_with_the_live_jobs_strain_and_comes_back(
    limit: float | None,
    read_rate: float,
    ceiling: float | None,
    strain: Strain,
    expected: float | None,
) -> None:
    assert next_limit(limit, read_rate, ceiling, strain) == expected


def test_the_quota_follows_the_rate_that_was_read() -> None:
    assert next_quota(None, 1_000, 0) == 150_000
    assert next_quota(150_000, 1_000, 500) == 300_000
    assert next_quota(150_000, 1_000, 100) == 300_000
    assert next_quota(150_000, 1_000, 1_500) == 100_000
    assert next_quota(150_000, 1_000, 1_050) == 150_000
