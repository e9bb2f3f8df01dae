"""A promotion for a reason does not need a comparison that can't be made. No stack."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import pytest

from deploy.settings import Settings
from jobs.cluster import ClusterError, ClusterUnavailable
from replay import checking, switch
from replay.commands import _promote
from replay.comparison import CannotVerify
from replay.control import Control
from replay.differences import Expectation
from replay.plan import plan_replay
from replay.records import ReplayRecord, ReplayState
from replay.steps import Work
from replay.switch import NotAllowed
from schemas.topics import KafkaUnavailable
from sinks.clickhouse import ClickHouseFailed
from tests.replay.test_plan import FACTS

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BUILT = ReplayRecord(
    7,
    "",
    "page_views",
    ("per_minute",),
    2,
    ReplayState.BUILT,
    plan_replay(FACTS, Expectation(), from_earliest=False),
    NOW,
    NOW,
)
WORK = Work(Settings(), cast(Control, None))


@pytest.mark.parametrize(
    "failure",
    [
        CannotVerify("per_minute: there is no table per_minute_v1."),
        ClickHouseFailed("Timeout exceeded.", 159),
        ClusterError("page_views completes no checkpoint; see `kappa status`."),
        ClusterUnavailable("no Flink cluster answers."),
        KafkaUnavailable("Kafka does not answer."),
        NotAllowed("page_views does not run."),
    ],
)
def test_what_can_not_be_compared_is_promoted_only_for_a_reason(
    failure: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    promoted = []

    def check(*_: Any) -> None:
        raise failure

    def promote(_: Work, replay: ReplayRecord, reason: str) -> ReplayRecord:
        promoted.append(reason)
        return replay

    monkeypatch.setattr(checking, "check", check)
    monkeypatch.setattr(switch, "promote", promote)
    with pytest.raises(type(failure)):
        _promote(WORK, BUILT, "", yes=True)
    assert promoted == []
    assert _promote(WORK, BUILT, "it must be", yes=True) is BUILT
    assert promoted == ["it must be"]
    told = f"{failure} It is promoted without a comparison, for the reason given.\n"
    assert told in capsys.readouterr().err
