"""Every view equals its oracle: in order, in disorder, and past a killed TaskManager."""

from __future__ import annotations

import pytest

from jobs.catalogue import job_named
from tests.harness import Environment, flink, read_topic, wait_for
from tests.views.conftest import DEADLINE, World
from tests.views.domains import DOMAINS, NAMES, VIEWS
from tests.views.world import ordered, view_rows

pytestmark = pytest.mark.stack


@pytest.mark.parametrize("name", NAMES)
def test_what_is_too_late_or_broken_is_set_apart_once_and_nothing_else(
    world: World, name: str
) -> None:
    # What is set apart was sent before what closes the last windows.
    for view in DOMAINS[name].COLUMNS:
        _await_rows(world, name, view)
    for topic, expected in world.apart[name].items():
        assert _values(world.envs[name], topic) == expected, topic


@pytest.mark.parametrize(("name", "view"), VIEWS)
def test_view_equals_its_oracle(world: World, name: str, view: str) -> None:
    assert world.expected[name][view], "the generated events make no row of the view"
    _await_rows(world, name, view)


@pytest.mark.parametrize("name", DOMAINS)
def test_every_view_of_the_job_is_compared(name: str) -> None:
    assert set(DOMAINS[name].COLUMNS) == {view.name for view in job_named(DOMAINS[name].JOB).views}


@pytest.mark.parametrize("name", NAMES)
def test_the_job_runs(world: World, name: str) -> None:
    assert flink(world.envs[name], f"/jobs/{world.job_ids[name]}")["state"] == "RUNNING"


def _await_rows(world: World, name: str, view: str) -> None:
    domain, expected = DOMAINS[name], ordered(world.expected[name][view])
    wait_for(
        lambda: view_rows(world.envs[name], domain, view),
        DEADLINE,
        lambda: _difference(expected, view_rows(world.envs[name], domain, view)),
        until=lambda rows: rows == expected,
    )


def _values(env: Environment, topic: str) -> list[bytes | None]:
    return [message.record.value for message in read_topic(env, topic)]


def _difference(expected: list[tuple[object, ...]], found: list[tuple[object, ...]]) -> str:
    missing = [row for row in expected if row not in found]
    strange = [row for row in found if row not in expected]
    return (
        f"{len(expected)} rows expected, {len(found)} found; missing {len(missing)}, the first "
        f"{missing[:3]}; not expected {len(strange)}, the first {strange[:3]}"
    )
