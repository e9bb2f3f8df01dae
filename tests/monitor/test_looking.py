"""What the monitor says of a look at which not everything answered."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import NoReturn

import pytest
from prometheus_client import CollectorRegistry

from deploy.monitor import __main__ as monitor
from deploy.monitor.asking import Asking
from deploy.monitor.figures import Freshness
from deploy.monitor.looking import Lookout
from deploy.settings import Settings
from jobs.cluster import Cluster
from jobs.commits import CommitWatch
from jobs.state import StateUnavailable
from replay.control import Control, ControlUnavailable
from schemas import reading
from schemas.topics import KafkaUnavailable
from sinks.lag import LagReader, PartitionLag


def test_requests_have_no_line_each_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "serve", lambda *_: None)
    monkeypatch.setattr(monitor, "stop_signal", lambda: lambda: True)
    loggers = [logging.getLogger(name) for name in ("httpx", "kafka")]
    for one in loggers:
        monkeypatch.setattr(one, "level", logging.NOTSET)
    assert monitor.main() == 0
    assert [one.level for one in loggers] == [logging.WARNING] * 2


def test_a_look_that_fails_is_told_of_and_the_next_one_comes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    collectors, looks = list[CollectorRegistry](), iter([False, False, True])
    monkeypatch.setattr(monitor, "serve", lambda registry, *_: collectors.append(registry))
    monkeypatch.setattr(monitor, "stop_signal", lambda: lambda: next(looks))
    monkeypatch.setattr(monitor, "_EVERY_SECONDS", 0)
    monkeypatch.setattr(Lookout, "look", lambda self: refuse(KeyError("page_clicks")))
    assert monitor.main() == 0
    assert [record.message for record in caplog.records] == ["this look failed"] * 2
    assert collectors[0].get_sample_value("kappa_lost_transactions_known") == 0


def refuse(error: Exception) -> NoReturn:
    raise error


@pytest.fixture
def lookout(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lookout]:
    """A monitor that reaches nothing but the jobs' state."""
    monkeypatch.setattr(Asking, "answers", lambda self: {})
    monkeypatch.setattr(
        Control, "version_states", lambda self: refuse(ControlUnavailable("it is away"))
    )
    monkeypatch.setattr(
        LagReader, "readers", lambda self, prefix, but: refuse(KafkaUnavailable("it is away"))
    )
    monkeypatch.setattr(Cluster, "look", lambda self: ([], []))
    made = Lookout(Settings(_env_file=None))
    yield made
    made.close()


def test_losses_are_told_beside_what_does_not_answer(
    lookout: Lookout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CommitWatch, "look", lambda self: {"clicks": 2})
    found = lookout.look()
    assert found.answers == {"kafka": False, "postgres": False}
    assert (found.lost, found.lost_known) == ({"clicks": 2}, True)


def test_a_state_that_can_not_be_read_is_not_taken_for_no_loss(
    lookout: Lookout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CommitWatch, "look", lambda self: refuse(StateUnavailable("ACCESS_DENIED")))
    found = lookout.look()
    assert (found.lost, found.lost_known) == ({}, False)


def test_a_reader_of_arrivals_is_one_of_its_job(
    lookout: Lookout, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = [
        PartitionLag("kappa-transactions", "events.transactions", 0, committed=9, end=9),
        PartitionLag("kappa-transactions-arrivals", "events.transactions", 0, committed=4, end=9),
    ]
    topic = "views.fraud_alerts.v1"
    monkeypatch.setattr(LagReader, "readers", lambda self, prefix, but: read)
    monkeypatch.setattr(
        LagReader, "loader", lambda *_: [PartitionLag("kappa-loader", topic, 0, 1, 1)]
    )
    monkeypatch.setattr(LagReader, "ends", lambda *_: {})
    monkeypatch.setattr(LagReader, "stable_offsets", lambda *_: [])
    monkeypatch.setattr(CommitWatch, "look", lambda self: {})
    clock = [0.0]
    monkeypatch.setattr(lookout, "_clock", lambda: clock[0])
    lookout.look()
    clock[0] = 12.0
    found = lookout.look()
    assert [(lag.group, lag.reader, lag.records) for lag in found.lags] == [
        ("kappa-transactions", "job", 0),
        ("kappa-transactions-arrivals", "job", 5),
        ("kappa-loader", "loader", 0),
    ]
    assert found.freshness == [Freshness("fraud_alerts", 1, 12.0)]
    assert found.running == {"transactions": False}


@pytest.mark.parametrize(("events", "records"), [([], 0), ([["an event"]], 1), (None, 1)])
def test_a_marker_after_the_last_event_is_no_lag(
    lookout: Lookout,
    monkeypatch: pytest.MonkeyPatch,
    events: list[list[str]] | None,
    records: int,
) -> None:
    asked = list[object]()

    def read(kafka: object, topic: str, ranges: object) -> list[list[str]]:
        asked.append((topic, ranges))
        # A group may stand before the first record.
        return refuse(KafkaUnavailable("out of range")) if events is None else events

    monkeypatch.setattr(reading, "read_committed", read)
    clock = [0.0]
    monkeypatch.setattr(lookout, "_clock", lambda: clock[0])
    for name, found in (
        ("readers", [PartitionLag("kappa-page_views", "events.page_views", 3, 8, 9)]),
        ("loader", []),
        ("ends", {}),
        ("stable_offsets", []),
    ):
        monkeypatch.setattr(LagReader, name, lambda *_, found=found, **__: found)
    monkeypatch.setattr(CommitWatch, "look", lambda self: {})
    for moment, expected in ((0.0, 1), (10.0, 1), (30.0, records), (40.0, records)):
        clock[0] = moment
        assert [lag.records for lag in lookout.look().lags] == [expected]
    assert asked == [("events.page_views", {3: (8, 9)})]
