"""Which jobs a restarted cluster gets back: those submitted last, if the submission succeeded."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import pytest

from deploy.settings import Settings
from jobs.desired import DesiredJob, alone, desired_jobs, forget, remembered

OLD = DesiredJob("page_views", "page_views", 1, code="aaaa")
NEW = DesiredJob("page_views", "page_views", 1, ("top_pages",), "n", {"parallelism": 4}, "bbbb")


class Failed(Exception):
    pass


def test_a_job_is_kept_from_before_it_runs_until_it_is_forgotten(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with remembered(settings, NEW):
        assert desired_jobs(settings) == [NEW]
    assert desired_jobs(settings) == [NEW]
    forget(settings, NEW.name)
    assert desired_jobs(settings) == []


def test_a_submission_that_fails_leaves_what_was_kept_before(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    for before in ([], [OLD]):
        for job in before:
            with remembered(settings, job):
                pass
        with pytest.raises(Failed), remembered(settings, NEW):
            raise Failed
        assert desired_jobs(settings) == before


def test_a_job_that_runs_stays_kept_though_nobody_waits_for_it_any_more(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)

    def given_up() -> None:
        with remembered(settings, NEW) as kept:
            kept.runs = True
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        given_up()
    assert desired_jobs(settings) == [NEW]


def test_a_job_that_is_cancelled_while_it_is_submitted_is_not_kept_again(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with remembered(settings, OLD):
        pass

    def cancelled() -> None:
        with remembered(settings, NEW):
            forget(settings, NEW.name)
            raise Failed

    with pytest.raises(Failed):
        cancelled()
    assert desired_jobs(settings) == []


def test_one_name_is_submitted_by_one_at_a_time(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with (
        alone(settings, "orders"),
        alone(settings, "words"),
        (tmp_path / "jobs" / "orders.lock").open() as other,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with alone(settings, "orders"):
        pass
    assert desired_jobs(settings) == []


def test_what_other_versions_keep_of_a_job_is_passed_over(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with remembered(settings, OLD):
        pass
    path = tmp_path / "jobs" / "page_views.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "of_later": 1}))
    assert desired_jobs(settings) == [OLD]


def test_a_home_below_that_of_the_user_is_the_supervisors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with remembered(Settings(home=Path("~/kappa")), OLD):
        pass
    assert desired_jobs(Settings(home=tmp_path / "kappa")) == [OLD]
