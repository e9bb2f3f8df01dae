"""How far both versions of a query's rows are final, by what Flink tells of their operators."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from deploy.settings import Settings
from jobs.catalogue import job_named
from jobs.cluster import RunningJob
from jobs.plan import JobPlan, plan
from jobs.views import View
from replay import checking
from replay.checking import passed_by_all
from replay.control import Control
from replay.differences import Cut, Expectation, Verdict
from replay.offsets import Offsets
from replay.records import ReplayRecord, ReplayState
from replay.report import VerifyReport, ViewReport, print_reports
from replay.steps import Work
from replay.switch import NotAllowed
from sinks.lag import LagReader
from tests.flink_rest import flink
from tests.replay.test_plan import recorded

NONE = -(2**63)


def test_a_query_has_passed_what_its_own_operators_have_in_both_versions() -> None:
    told = {
        1: [
            ("Source: orders_source", []),
            ("Window -> sales_by_segment_topic[9]: Writer -> Committer", [90_000, 80_000]),
            ("Window -> revenue_per_minute_topic[5]: Writer", [40_000]),
            ("Rank -> current_segments_topic[7]: Writer", [NONE]),
        ],
        2: [
            ("Window -> sales_by_segment_topic[9]: Writer -> Committer", [70_000]),
            ("Window -> revenue_per_minute_topic[5]: Writer", [50_000]),
            ("Rank -> current_segments_topic[7]: Writer", [60_000]),
            ("Window -> resales_by_segment_topic[8]: Writer", [10_000]),
        ],
    }
    orders = job_named("orders").within("")
    versions = [plan(orders, version) for version in told]
    with ExitStack() as running:
        clusters = [
            running.enter_context(
                flink(f"{one.version}" * 32, one.name, 5, "RUNNING", watermarks=told[one.version])
            )
            for one in versions
        ]
        settings = Settings(flink_url=",".join(clusters))
        found = passed_by_all(settings, *versions)
    assert found == {
        "sales_by_segment": datetime.fromtimestamp(70, UTC),
        "revenue_per_minute": datetime.fromtimestamp(40, UTC),
    }


def test_no_version_is_waited_for_in_a_stream_that_the_old_one_does_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: dict[int, Offsets] = {
        1: {"orders": {0: 300}},
        2: {"orders": {0: 300}, "payments": {0: 40}},
    }

    def job_offsets(reader: LagReader, job_plan: JobPlan) -> Offsets:
        return read[job_plan.version]

    monkeypatch.setattr(checking, "job_offsets", job_offsets)
    monkeypatch.setattr(checking, "_CATCH_UP_SECONDS", 0.0)
    orders = job_named("orders").within("")
    found = checking._await_both_read(Settings(), plan(orders, 1), plan(orders, 2))
    assert found == (read[1], read[1])


@pytest.mark.parametrize(
    ("moved", "unexplained", "looks"),
    [
        (True, 1, [True, False]),
        (True, 0, [True]),
        (False, 1, [True]),
    ],
)
def test_a_difference_is_looked_at_again_where_events_came_while_rows_were_compared(
    monkeypatch: pytest.MonkeyPatch, moved: bool, unexplained: int, looks: list[bool]
) -> None:
    record = recorded("orders", {"revenue_per_minute": 1, "orders_accounting": 1})
    still: Offsets = {"orders": {0: 300}}
    newest: Offsets = {"orders": {0: 301}} if moved else still
    looked: list[bool] = []

    def cut(*plans: object, all_rows: bool = True) -> Cut:
        return Cut(still, drained=all_rows)

    def verified(*views: object, cut: Cut, **said: object) -> VerifyReport:
        looked.append(cut.drained)
        counts = {Verdict.UNEXPLAINED: unexplained} if cut.drained else {}
        view = ViewReport("revenue_per_minute", 1, 9, 9, counts=counts)
        return VerifyReport("", 3, record.created_at, cut, Expectation(), (view,))

    orders = job_named("orders").within("")
    monkeypatch.setattr(checking, "old_plan", lambda settings, replay, old: plan(orders, old))
    monkeypatch.setattr(checking, "Cluster", lambda *clusters: Running())
    monkeypatch.setattr(checking, "job_offsets", lambda reader, job_plan: newest)
    monkeypatch.setattr(checking, "_cut", cut)
    monkeypatch.setattr(checking, "verify", verified)

    report = checking._compare(Settings(), record, 1, lambda view: None)

    assert looked == looks
    assert report.unexplained == (0 if len(looks) > 1 else unexplained)


def test_views_of_several_versions_are_compared_apart_and_reported_apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = recorded("page_views", {"page_views_per_minute": 2, "site_traffic_per_minute": 1})
    planned = replace(record.plan, expected=Expectation(("errors", "bytes")))
    record = replace(record, state=ReplayState.BUILT, plan=planned)
    unused = {1: ("errors", "bytes"), 2: ("bytes",)}

    def verified(
        *_: object, views: list[View], old_version: int, cut: Cut, partial: bool, **said: Any
    ) -> VerifyReport:
        assert partial
        (view,) = (ViewReport(one.name, old_version, 9, 9) for one in views)
        return VerifyReport(
            said["replay"],
            said["new_version"],
            record.created_at,
            cut,
            said["expected"],
            (view,),
            unused[old_version],
        )

    monkeypatch.setattr(checking, "old_plan", lambda settings, replay, old: plan(JOB, old))
    monkeypatch.setattr(checking, "Cluster", lambda *clusters: Running())
    monkeypatch.setattr(checking, "_cut", lambda *plans: Cut())
    monkeypatch.setattr(checking, "verify", verified)

    found = checking.check(Work(Settings(home=tmp_path), cast(Control, Journal())), record)

    assert [(one.name, one.views[0].view, one.unused) for one in found] == [
        ("replay-1-v1", "site_traffic_per_minute", ("bytes",)),
        ("replay-1-v2", "page_views_per_minute", ("bytes",)),
    ]
    assert sorted(path.name for path in (tmp_path / "reports").iterdir()) == [
        "replay-1-v1.html",
        "replay-1-v1.json",
        "replay-1-v2.html",
        "replay-1-v2.json",
    ]
    print_reports(found, True)
    document = json.loads(capsys.readouterr().out)
    assert document["unexplained"] == 0
    assert [one["replay"] for one in document["reports"]] == ["replay-1-v1", "replay-1-v2"]


def test_what_was_found_is_told_where_no_page_of_it_can_be_saved(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    record = replace(recorded("page_views", {"page_views_per_minute": 1}), state=ReplayState.BUILT)
    report = VerifyReport("", 3, record.created_at, Cut(), Expectation(), ())
    monkeypatch.setattr(checking, "_compare", lambda *_: report)
    home = tmp_path / "home"
    home.write_text("a file, in which no folder can be")
    said: list[str] = []

    found = checking.check(Work(Settings(home=home), cast(Control, Journal()), said.append), record)

    assert found == [report]
    assert said == [
        "The comparison could not be saved as a page: [Errno 20] Not a directory: "
        f"'{home / 'reports'}'"
    ]


JOB = job_named("page_views").within("")


class Journal:
    """A control plane that takes every entry."""

    def begin_step(self, replay: ReplayRecord, step: str, detail: Mapping[str, Any]) -> None:
        pass

    def write(self, replay: int, step: str, state: str, detail: Mapping[str, Any]) -> None:
        pass


class Running:
    """A cluster on which every job runs."""

    def live_job(self, name: str) -> RunningJob:
        return RunningJob("a" * 32, name, "RUNNING", 0)


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("RESTARTING", "fails again and again (TooMany: 1000 of 1000)|verify again once it runs"),
        ("CANCELED", "does not run|start it with `kappa submit`"),
    ],
)
def test_nobody_waits_for_a_version_that_is_down(
    monkeypatch: pytest.MonkeyPatch, state: str, told: str
) -> None:
    record = recorded("page_views", {"page_views_per_minute": 1})
    monkeypatch.setattr(checking, "old_plan", lambda settings, replay, old: plan(JOB, old))
    failed = {"failure": "TooMany: 1000 of 1000", "newest": 4, "restored": 4}
    with (
        flink("a" * 32, "page_views", 5, state, **failed) as old,
        flink("b" * 32, "page_views.v3", 5, "RUNNING") as new,
        pytest.raises(NotAllowed) as refused,
    ):
        checking._compare(Settings(flink_url=f"{old},{new}"), record, 1, lambda view: None)
    how, remedy = told.split("|")
    assert str(refused.value) == (
        f"page_views {how}, so its rows stand still and can't be compared; {remedy}, or promote "
        "with --force and a reason."
    )


def test_a_version_that_has_just_failed_and_starts_again_is_waited_for() -> None:
    with flink("a" * 32, "page_views", 5, "RESTARTING", newest=5, restored=4) as url:
        checking._refuse_stopped(Settings(flink_url=url), plan(JOB, 1))
