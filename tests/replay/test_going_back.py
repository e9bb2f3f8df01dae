"""What people are told before they go back to an old version. No stack."""

from __future__ import annotations

from typing import cast

import pytest

from deploy.settings import Settings
from jobs.catalogue import job_named
from jobs.plan import plan
from replay import build
from replay.commands import _behind
from replay.control import Control
from replay.steps import Work
from schemas.topics import KafkaUnavailable
from tests.flink_rest import flink
from tests.replay.test_plan import recorded

RECORD = recorded("page_views", {"page_stats": 1})


@pytest.mark.parametrize(
    ("state", "restored", "lag", "told"),
    [
        ("RUNNING", 4, 100_000, ""),
        ("RUNNING", 4, 100_001, "is 100,001 events behind, which the rows to be shown lack yet."),
        ("RESTARTING", 4, 0, ""),
        (
            "RESTARTING",
            5,
            0,
            "fails again and again (E: broken), so the rows to be shown end where it stopped.",
        ),
        ("FAILED", 4, 0, "does not run, so the rows to be shown end where it stopped."),
    ],
)
def test_who_goes_back_is_told_what_the_old_rows_lack(
    monkeypatch: pytest.MonkeyPatch, state: str, restored: int, lag: int, told: str
) -> None:
    monkeypatch.setattr(build, "old_plan", lambda *_: plan(job_named("page_views"), 1))
    monkeypatch.setattr(build, "events_behind", lambda *_: lag)
    with flink(
        "a" * 32, "page_views", 5, state, failure="E: broken", newest=5, restored=restored
    ) as url:
        work = Work(Settings(_env_file=None, flink_url=url), cast(Control, None))
        assert _behind(work, RECORD, 1) == (f"page_views {told}" if told else "")


def test_to_go_back_takes_neither_flink_nor_kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise KafkaUnavailable("no answer")

    monkeypatch.setattr(build, "old_plan", away)
    work = Work(Settings(_env_file=None, flink_url="http://127.0.0.1:9"), cast(Control, None))
    assert _behind(work, RECORD, 1) == ""
