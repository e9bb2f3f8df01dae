"""Which jobs a restarted cluster gets back: those submitted last, if the submission succeeded."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.settings import Settings
from jobs.desired import DesiredJob, desired_jobs, forget, remembered

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
