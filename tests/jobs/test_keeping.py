"""Jobs that a cluster forgot are submitted again; those that people ended are not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from deploy.settings import Settings
from jobs import keeping
from jobs.catalogue import JOBS
from jobs.cluster import Cluster, RunningJob
from jobs.desired import DesiredJob, forget, remembered
from jobs.keeping import Keeper
from jobs.submit import SubmissionFailed

CHOSEN = {name: JOBS[name] for name in ("orders", "words")}


class World:
    """A cluster, and submissions to it that do what the real ones do to it and to the files."""

    def __init__(self, home: Path) -> None:
        self.settings = Settings(_env_file=None, home=home)
        self.listed: dict[str, str] = {}
        self.submitted: list[str] = []
        self.refused: set[str] = set()
        self.then: Callable[[], None] = lambda: None

    def jobs(self) -> list[RunningJob]:
        return [RunningJob("a" * 32, name, state, 0) for name, state in self.listed.items()]

    def submit(self, settings: Settings, job: str, version: int = 1, **_: Any) -> None:
        name = job if version == 1 else f"{job}.v{version}"
        self.submitted.append(name)
        with remembered(settings, DesiredJob(name, job, version)):
            if name in self.refused:
                raise SubmissionFailed("refused")
        self.listed[name] = "RUNNING"
        self.then()

    def again(self, settings: Settings, desired: DesiredJob) -> None:
        self.submit(settings, desired.job, desired.version)

    def keeper(self, ill: Callable[[], None] = lambda: None) -> Keeper:
        return Keeper(self.settings, cast(Cluster, self), CHOSEN, ill)

    def news(self) -> list[str]:
        """Return what was submitted since the last call."""
        found, self.submitted = self.submitted, []
        return found


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path)
    monkeypatch.setattr(keeping, "submit", made.submit)
    monkeypatch.setattr(keeping, "submit_again", made.again)
    monkeypatch.setattr(keeping, "usual_version", lambda *_: 1)
    return made


def test_each_job_is_begun_once_and_tried_until_it_runs(world: World) -> None:
    keeper = world.keeper()
    world.refused = {"orders"}
    assert not keeper.look()
    assert world.news() == ["orders", "words"]
    world.refused = set()
    assert keeper.look()
    assert world.news() == ["orders"]
    assert keeper.look()
    assert world.keeper().look()
    assert world.news() == []


def test_what_the_cluster_forgot_runs_again_and_what_was_cancelled_does_not(world: World) -> None:
    keeper = world.keeper()
    keeper.look()
    world.submit(world.settings, "orders", 2)
    forget(world.settings, "orders")
    world.news()
    world.listed.clear()
    world.refused = {"words"}
    assert not keeper.look()
    assert world.news() == ["orders.v2", "words"]
    world.refused = set()
    assert keeper.look()
    assert world.news() == ["words"]
    world.listed["words"] = "CANCELED"
    forget(world.settings, "words")
    assert keeper.look()
    assert world.news() == []


def test_a_job_that_is_cancelled_while_another_is_resumed_stays_cancelled(world: World) -> None:
    keeper = world.keeper()
    keeper.look()
    world.news()
    world.listed.clear()
    world.then = lambda: forget(world.settings, "words")
    assert keeper.look()
    assert world.news() == ["orders"]


def test_a_job_that_started_too_late_is_not_submitted_again(world: World) -> None:
    keeper = world.keeper()
    keeper.look()
    world.listed.clear()
    world.refused = {"words"}
    assert not keeper.look()
    world.news()
    world.listed["words"] = "RUNNING"
    assert keeper.look()
    assert world.news() == []


def test_a_job_that_somebody_is_submitting_is_left_to_him(world: World) -> None:
    keeper = world.keeper()
    keeper.look()
    world.news()
    with remembered(world.settings, DesiredJob("words.v2", "words", 2)):
        assert not keeper.look()
        assert world.news() == []
        world.listed["words.v2"] = "INITIALIZING"
        assert keeper.look()


def test_a_keeper_that_starts_anew_resumes_what_is_not_there(world: World) -> None:
    world.keeper().look()
    world.news()
    del world.listed["words"]
    assert world.keeper().look()
    assert world.news() == ["words"]


def test_a_job_that_failed_to_start_again_is_tried_again_though_it_is_listed(world: World) -> None:
    keeper = world.keeper()
    keeper.look()
    world.news()
    world.listed.clear()
    world.refused = {"words"}
    assert not keeper.look()
    assert world.news() == ["orders", "words"]
    # Flink lists what was cancelled as it did not start.
    world.listed["words"] = "CANCELED"
    world.refused = set()
    assert keeper.look()
    assert world.news() == ["words"]


def test_a_cluster_that_came_back_with_some_jobs_gets_the_others(world: World) -> None:
    keeper = world.keeper()
    keeper.look()
    assert keeper.look()
    world.news()
    del world.listed["words"]
    assert keeper.look()
    assert world.news() == ["words"]


def test_a_job_that_is_missing_is_told_before_it_is_resumed(world: World) -> None:
    told: list[list[str]] = []
    keeper = world.keeper(lambda: told.append(list(world.submitted)))
    assert keeper.look()
    assert keeper.look()
    world.news()
    assert told == []
    del world.listed["words"]
    assert keeper.look()
    assert told == [[]]
    assert world.news() == ["words"]


def test_a_keeper_that_starts_does_not_find_the_jobs_well_by_the_file_of_before(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    healthy = tmp_path / "all-jobs-run"
    healthy.touch()
    found: list[bool] = []

    def look(_: Keeper) -> bool:
        found.append(healthy.exists())
        return True

    monkeypatch.setattr(sys, "argv", ["keeping", str(healthy)])
    monkeypatch.setattr(keeping, "_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(keeping, "stop_signal", lambda: lambda: len(found) == 2)
    monkeypatch.setattr(Keeper, "look", look)
    assert keeping.main() == 0
    assert found == [False, True]
