"""The usual traffic of a page, with figures reckoned by hand."""

import numpy as np
import pandas as pd
import pytest

from udfs.ewma import FIRST_MINUTES, baseline
from udfs.sql_functions import ordered_baseline


def test_first_minutes_have_no_baseline() -> None:
    assert baseline(np.array([1.0])) is None
    assert baseline(np.array([5.0] * FIRST_MINUTES)) is None
    assert baseline(np.array([5.0] * (FIRST_MINUTES + 1))) == pytest.approx(5.0)


def test_the_minute_itself_does_not_count() -> None:
    assert baseline(np.array([2.0] * 10 + [1_000.0])) == pytest.approx(2.0)


def test_a_newer_minute_weighs_a_twentieth() -> None:
    # (10 * 0.95 + 0.05 * 30) = 11, and then nine minutes of 11 change nothing.
    assert baseline(np.array([10.0, 30.0, *[11.0] * 9, 0.0])) == pytest.approx(11.0)
    # The newest minute before the last: 0.95 * 10 + 0.05 * 110.
    assert baseline(np.array([*[10.0] * 10, 110.0, 0.0])) == pytest.approx(15.0)


def test_it_is_the_recurrence() -> None:
    views = np.random.default_rng(3).poisson(20, 500).astype(float)
    mean = views[0]
    for value in views[1:-1]:
        mean = 0.95 * mean + 0.05 * value
    assert baseline(views) == pytest.approx(mean, rel=1e-9)


@pytest.mark.parametrize("usual", range(1, 30))
def test_steady_traffic_is_its_own_mean_to_the_last_digit(usual: int) -> None:
    for minutes in (11, 60, 360):
        assert baseline(np.array([float(usual)] * minutes + [10.0 * usual])) == usual


def test_minutes_are_taken_in_their_order() -> None:
    minutes = pd.Series(pd.date_range("2026-01-05", periods=12, freq="min"))
    views = pd.Series([10.0] * 10 + [110.0, 0.0])
    assert ordered_baseline(minutes, views) == pytest.approx(15.0)
    assert ordered_baseline(minutes[::-1], views[::-1]) == pytest.approx(15.0)
