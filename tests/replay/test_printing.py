"""What `kappa replay status` says to people: where each replay stands, and what comes next."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from replay.differences import Expectation
from replay.plan import plan_replay
from replay.printing import print_plan, print_status
from replay.records import JournalEntry, Lease, ReplayRecord, ReplayState, VersionState
from tests.replay.test_plan import FACTS

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
PLAN = plan_replay(FACTS, Expectation(), from_earliest=False)
VIEW = PLAN.views[0]


def replay(number: int, state: ReplayState) -> ReplayRecord:
    return ReplayRecord(number, "", "page_views", PLAN.views, 2, state, PLAN, NOW, NOW)


def test_a_status_ends_with_what_comes_next(capsys: pytest.CaptureFixture[str]) -> None:
    replays = [replay(2, ReplayState.BUILT), replay(1, ReplayState.ABORTED)]
    states = {(VIEW, 1): VersionState.LIVE, (VIEW, 2): VersionState.BUILDING}
    print_status(replays, states, [Lease(VIEW, 2, "me@here", NOW)], {2: []})
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == (
        f"Replay 2: version 2 of {', '.join(PLAN.views)} is built and goes on reading; next: kappa "
        "replay verify, kappa replay promote."
    )
    assert any(VIEW in line and "1 live, 2 building" in line for line in lines)


def test_a_journal_reads_as_people_write(capsys: pytest.CaptureFixture[str]) -> None:
    details = [
        {"pinned": {"page_views": {0: 2_500, 1: 30}}},
        {"rate": 23_412.123456, "slowed": 0, "most_live_lag": 5_483},
        {"files": ["one.html", "two.html"], "found": True},
        {"versions": {VIEW: 2}, "effective_from": int(NOW.timestamp())},
    ]
    journal = [JournalEntry("step", "done", NOW, detail) for detail in details]
    print_status([replay(1, ReplayState.RETIRED)], {}, [], {1: journal})
    out = capsys.readouterr().out
    for text in (
        "pinned: page_views (0: 2,500, 1: 30)",
        "rate: 23,412; most live lag: 5,483",
        "files: one.html two.html; found: yes",
        f"versions: {VIEW}: 2; effective from: 2026-01-01 12:00:00 UTC",
    ):
        assert text in out
    assert "Leases" not in out


def test_a_plan_names_views_by_the_version_that_they_come_from(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_plan(PLAN)
    assert f"1 → 2: {', '.join(PLAN.views)}" in capsys.readouterr().out


def test_a_plan_tells_what_it_counts_twice(capsys: pytest.CaptureFixture[str]) -> None:
    print_plan(replace(PLAN, counted_twice=1_200))
    assert "accepted: 1,200 mended dead letters" in capsys.readouterr().out
