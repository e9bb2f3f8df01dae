"""The usual traffic of a page, with figures reckoned by hand."""

import math

import numpy as np
import pytest

from tests.costs import cost
from udfs.ewma import FIRST_MINUTES, baselines


def baseline(views: list[float]) -> float:
    """Return what the last of `views` is to be compared with."""
    (mean,) = baselines(np.array(views, dtype=float), np.array([0]), np.array([len(views) - 1]))
    return float(mean)


def by_loop(views: list[float]) -> float:
    mean = views[0]
    for value in views[1:]:
        mean = 0.95 * mean + 0.05 * value
    return round(mean, 9)


def test_first_minutes_have_no_baseline() -> None:
    assert math.isnan(baseline([1.0]))
    assert math.isnan(baseline([5.0] * FIRST_MINUTES))
    assert baseline([5.0] * (FIRST_MINUTES + 1)) == 5.0


def test_the_minute_itself_does_not_count() -> None:
    assert baseline([2.0] * 10 + [1_000.0]) == 2.0


def test_a_newer_minute_weighs_a_twentieth() -> None:
    # (10 * 0.95 + 0.05 * 30) = 11, and then nine minutes of 11 change nothing.
    assert baseline([10.0, 30.0, *[11.0] * 9, 0.0]) == 11.0
    # The newest minute before the last: 0.95 * 10 + 0.05 * 110.
    assert baseline([*[10.0] * 10, 110.0, 0.0]) == 15.0


@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_recurrence_to_the_last_bit_whatever_else_is_asked_for(seed: int) -> None:
    chance = np.random.default_rng(seed)
    views = chance.poisson(20, 2_000).astype(float)
    begins = chance.integers(0, 1_600, 40_000)
    ends = begins + chance.integers(0, 361, len(begins))

    together = baselines(views, begins, ends)

    for place in chance.integers(0, len(begins), 500):
        begin, end = begins[place : place + 1], ends[place : place + 1]
        (alone,) = baselines(views, begin, end)
        np.testing.assert_array_equal(together[place], alone)
        if end - begin >= FIRST_MINUTES:
            assert alone == by_loop(views[begin[0] : end[0]].tolist())
        else:
            assert math.isnan(alone)


@pytest.mark.parametrize("usual", range(1, 30))
def test_steady_traffic_is_its_own_mean_to_the_last_digit(usual: int) -> None:
    for minutes in (11, 60, 360):
        assert baseline([float(usual)] * minutes + [10.0 * usual]) == usual


def test_minutes_of_many_pages_are_judged_at_once() -> None:
    pages, minutes, judged = 1_000, 526, 166
    views = np.random.default_rng(5).poisson(5, pages * minutes).astype(float)
    ends = np.arange(len(views)).reshape(pages, minutes)[:, -judged:].ravel()
    means = baselines(views, ends - 360, ends)
    # A call for each minute that is judged would cost hundreds of times as much as its share.
    some = ends[: 10 * judged]
    together = cost(lambda: baselines(views[: 10 * minutes], some - 360, some))
    singly = [views[: 10 * minutes][end - 360 : end] for end in some]
    alone = cost(lambda: [baseline(one) for one in singly], 1)
    assert together < alone / 10
    assert abs(means - 5).max() < 5
