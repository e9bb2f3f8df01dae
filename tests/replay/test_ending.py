"""What stands in the way of giving a replay up, and what does not. No stack."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from deploy.settings import Settings
from replay import ending
from replay.control import Control
from replay.plan import plan_replay
from replay.records import ReplayRecord, ReplayState
from replay.steps import Work
from replay.switch import NotAllowed
from sinks.clickhouse import ClickHouse
from tests.replay.test_plan import ERRORS, SEVERAL

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PLAN = plan_replay(
    replace(SEVERAL, shown={"per_minute": 1, "orders_accounting": 1}, new_streams=("payments",)),
    ERRORS,
    from_earliest=False,
)


class Plane:
    """A control plane that takes note of nothing but a replay's state."""

    def journal(self, replay_id: int) -> list[Any]:
        return []

    def begin_step(self, *line: object) -> None: ...

    def write(self, *line: object) -> None: ...

    def change(self, replay: ReplayRecord, state: ReplayState, versions: object) -> ReplayRecord:
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
