"""What a rebuild takes over from the job that read a copy of its events. No stack."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from deploy.settings import Settings
from jobs.cluster import Cluster
from jobs.desired import DesiredJob, desired_jobs, remembered
from jobs.start import Start
from jobs.state import CHECKPOINT_DIR, state_folders
from replay import build, handover
from replay.control import Control
from replay.pace import Limits
from replay.steps import Work
from tests.flink_rest import flink
from tests.replay.test_plan import recorded

JOB_ID, RECORD = "a" * 32, recorded("page_views", {"page_stats": 1})
SECOND = build.rebuilt_plan(Settings(_env_file=None), RECORD)
FIRST = handover.reading_copy(SECOND)


class Journal:
    """A control plane that takes note of nothing."""

    def begin_step(self, *line: object) -> None: ...

    def write(self, *line: object) -> None: ...


def test_the_state_of_a_rebuild_says_what_it_is_of_once_the_copy_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in ("delete_topics", "delete_consumer_groups", "clear_groups"):
        monkeypatch.setattr(handover, step, lambda *_: None)
    for step in ("_restore", "refuse_lost"):
        monkeypatch.setattr(build, step, lambda *_: None)
    monkeypatch.setattr(build, "_begin", lambda *_: ((), ()))
    monkeypatch.setattr(build, "begin_after", lambda *_: Start())
    monkeypatch.setattr(build, "panes_of_stopped", lambda *_: "file:///savepoint-1")
    submitted: list[dict[str, str] | None] = []
    monkeypatch.setattr(build, "_submit", lambda work, *_: submitted.append(layouts()[1]) or {})

    def layouts() -> list[dict[str, str] | None]:
        return [state_folders(Cluster(url), one.name)[0].layout() for one in (FIRST, SECOND)]

    kept = {CHECKPOINT_DIR: tmp_path.as_uri()}
    with flink(JOB_ID, FIRST.name, 0, "FINISHED", configuration=kept) as url:
        settings = Settings(_env_file=None, home=tmp_path, flink_url=url)
        state_folders(Cluster(url), FIRST.name)[0].keep_layout(FIRST.layout)
        # It was stopped, and whoever did it was killed before that was noted.
        with remembered(settings, DesiredJob(FIRST.name, "page_views", 3)):
            pass
        work = Work(settings, cast(Control, Journal()))
        build._read_copy(work, RECORD, lambda progress: None, Limits())
        handover.drop_copy(work, FIRST)
        assert submitted == [SECOND.layout]
        assert layouts() == [None, SECOND.layout]
        handover.carry_layout(settings, FIRST, SECOND)
        assert layouts() == [None, SECOND.layout]
        assert desired_jobs(settings) == []


def test_a_cluster_that_keeps_no_state_has_no_layout_to_carry() -> None:
    with flink(JOB_ID, FIRST.name, 0, "FINISHED") as url:
        handover.carry_layout(Settings(_env_file=None, flink_url=url), FIRST, SECOND)
