"""Growth of memory over a run in which processes are killed, told from the filling of a heap."""

from __future__ import annotations

import pytest

from tests.faults.memory import Sample, growth, lives


def life(pid: int, first: int, last: int, leak: float = 0.0) -> list[Sample]:
    """Return samples of a process that fills its heap in two minutes, to 500 MiB, and leaks."""
    return [
        Sample(minute, 500 - 150 * max(0, 2 - age) + leak * minute, pid, age)
        for minute in range(first, last)
        for age in [minute - first]
    ]


def test_a_restarted_process_that_fills_its_heap_has_not_grown() -> None:
    samples = [*life(1, 0, 10), *life(2, 10, 20), *life(3, 20, 30)]
    found = growth(samples, 30)
    assert found.restarts == 2
    assert (found.first_third, found.last_third, found.grown, found.slope) == (500, 500, 0, 0)


def test_what_a_process_leaks_is_growth_and_its_slope() -> None:
    found = growth(life(1, 0, 31, leak=2.0), 30)
    # Minutes 2 to 9 and 20 to 30.
    assert (found.first_third, found.last_third, found.grown) == (511, 550, 39)
    assert (found.longest, found.slope) == (30, pytest.approx(2.0))


def test_what_grows_from_one_life_to_the_next_is_growth() -> None:
    samples = [*life(1, 0, 15, leak=2.0), *life(2, 15, 30, leak=2.0)]
    assert growth(samples, 30).grown == 38


def test_of_a_process_killed_before_it_is_warm_nothing_is_said() -> None:
    samples = [*life(1, 0, 2), *life(2, 2, 4)]
    found = growth(samples, 4)
    assert (found.first_third, found.last_third, found.grown, found.slope) == (None,) * 4


def test_a_life_ends_where_another_process_is_the_oldest() -> None:
    samples = [*life(1, 0, 3), *life(2, 3, 5)]
    assert [len(each) for each in lives(samples)] == [3, 2]
