"""What the monitor says of a look at which not everything answered."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import NoReturn

import pytest

from deploy.monitor import __main__ as monitor
from deploy.monitor.asking import Asking
from deploy.monitor.looking import Lookout
from deploy.settings import Settings
from jobs.cluster import Cluster
from jobs.commits import CommitWatch
from jobs.state import StateUnavailable
from replay.control import Control, ControlUnavailable
from schemas.topics import KafkaUnavailable
from sinks.lag import LagReader


def test_requests_have_no_line_each_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "serve", lambda *_: None)
    monkeypatch.setattr(monitor, "stop_signal", lambda: lambda: True)
    loggers = [logging.getLogger(name) for name in ("httpx", "kafka")]
    for one in loggers:
        monkeypatch.setattr(one, "level", logging.NOTSET)
    assert monitor.main() == 0
    assert [one.level for one in loggers] == [logging.WARNING] * 2


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
