"""What stands in the way of ending a replay, and what ends with it. No stack."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from deploy.settings import Settings
from jobs.cluster import Cluster
from jobs.state import CHECKPOINT_DIR, state_folders
from replay import ending
from replay.control import Control
from replay.plan import plan_replay
from replay.records import ReplayRecord, ReplayState, VersionState
from replay.steps import Work
from replay.switch import NotAllowed
from sinks.clickhouse import ClickHouse
from tests.flink_rest import flink
from tests.replay.test_plan import ERRORS, SEVERAL

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PLAN = plan_replay(
    replace(SEVERAL, shown={"per_minute": 1, "orders_accounting": 1}, new_streams=("payments",)),
    ERRORS,
    from_earliest=False,
)


class Plane:
    """A control plane that takes note of nothing but states, of a replay and of versions."""

    def __init__(self) -> None:
        self.versions: dict[tuple[str, int], VersionState] = {}

    def journal(self, replay_id: int) -> list[Any]:
        return []

    def begin_step(self, *line: object) -> None: ...

    def write(self, *line: object) -> None: ...

    def change(
        self,
        replay: ReplayRecord,
        state: ReplayState,
        versions: dict[tuple[str, int], VersionState],
    ) -> ReplayRecord:
        self.versions |= versions
        return replace(replay, state=state)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """What people see while the replay to give up stands at version 2; to be changed."""
    shown = {"per_minute": 1, "orders_accounting": 1, "payments_accounting": 2}
    monkeypatch.setattr(ending, "public_versions", lambda clickhouse: shown)
    monkeypatch.setattr(ending, "_shown", lambda clickhouse, replay: list(shown.items()))
    monkeypatch.setattr(ending, "_remove_version", lambda *what: None)
    monkeypatch.setattr(
        ClickHouse, "command", lambda self, sql: shown.pop(sql.split("`")[1]), raising=True
    )
    return shown


def abort() -> ReplayRecord:
    replay = ReplayRecord(1, "", "orders", PLAN.views, 2, ReplayState.BUILT, PLAN, NOW, NOW)
    return ending.abort(Work(Settings(), cast(Control, Plane())), replay)


def test_the_accounting_of_a_new_stream_goes_with_the_version_that_began_it(
    seen: dict[str, int],
) -> None:
    assert abort().state is ReplayState.ABORTED
    assert seen == {"per_minute": 1, "orders_accounting": 1}


def test_what_people_see_is_not_given_up(seen: dict[str, int]) -> None:
    seen["per_minute"] = 2
    with pytest.raises(NotAllowed, match=r"per_minute \(version 2\) is what people see"):
        abort()


def test_a_view_that_no_job_declares_any_more_goes_with_the_version_that_wrote_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = {"per_minute": 2, "orders_accounting": 2, "payments_accounting": 2, "gone": 1}
    topics: list[str] = []
    commands: list[str] = []
    for step in ("delete_consumer_groups", "clear_groups", "await_loader_gone", "_settle_names"):
        monkeypatch.setattr(ending, step, lambda *_: None)
    monkeypatch.setattr(ending, "public_versions", lambda clickhouse: shown)
    monkeypatch.setattr(ending.names, "announced", lambda clickhouse: {})
    monkeypatch.setattr(ending, "delete_topics", lambda kafka, dropped: topics.extend(dropped))
    monkeypatch.setattr(ClickHouse, "command", lambda self, sql: commands.append(sql))
    monkeypatch.setattr(ClickHouse, "table_ids", lambda self: {})
    replay = ReplayRecord(1, "n", "orders", PLAN.views, 2, ReplayState.PROMOTED, PLAN, NOW, NOW)
    kept = {CHECKPOINT_DIR: tmp_path.as_uri()}
    with flink("a" * 32, "n.orders.v2", 0, "RUNNING", configuration=kept) as url:
        settings = Settings(_env_file=None, namespace="n", home=tmp_path, flink_url=url)
        folder = state_folders(Cluster(url), "n.orders")[0]
        # Another job has taken one over, and the replay has replaced one more.
        folder.keep_layout(dict.fromkeys(("gone", "word_counts", "per_minute"), "as it was"))
        plane = Plane()
        work = Work(settings, cast(Control, plane))
        assert ending.undeclared_too(work, replay) == ["gone"]
        ended = ending.retire(work, replay, now=NOW, grace=timedelta())
        assert folder.layout() is None
    assert ended.state is ReplayState.RETIRED
    assert "n.views.gone.v1" in topics
    assert "n.views.word_counts.v1" not in topics
    assert "DROP VIEW IF EXISTS `gone`" in commands
    assert "DROP TABLE IF EXISTS `gone_v1` SYNC" in commands
    assert not any("`per_minute`" in command for command in commands)
    assert plane.versions["gone", 1] is VersionState.RETIRED


def test_a_view_stays_with_a_version_in_which_people_see_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "_shown", lambda clickhouse, replay: [("order_funnel", 1)])
    replay = ReplayRecord(1, "", "orders", PLAN.views, 2, ReplayState.PROMOTED, PLAN, NOW, NOW)
    kept = {CHECKPOINT_DIR: tmp_path.as_uri()}
    with flink("a" * 32, "orders.v2", 0, "RUNNING", configuration=kept) as url:
        settings = Settings(_env_file=None, flink_url=url)
        state_folders(Cluster(url), "orders")[0].keep_layout({"gone": "as it was"})
        assert ending.undeclared_too(Work(settings, cast(Control, Plane())), replay) == []
