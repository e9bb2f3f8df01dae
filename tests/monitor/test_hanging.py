"""What a look finds while a service hangs. No stack."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.monitor import looking
from deploy.monitor.apart import Apart
from deploy.monitor.looking import Lookout
from deploy.settings import Settings
from replay.control import Control, ControlUnavailable
from replay.records import VersionState

STATES = {("pages", 1): VersionState.LIVE}


class Nothing:
    """Kafka, Flink, registry and ClickHouse as they are where nothing was made yet."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: {"look": ([], []), "answers": {}, "ends": {}, "shown": {}}.get(
            name, []
        )


class Lost(Nothing):
    """A watch that finds lost transactions of one job."""

    def look(self) -> dict[str, int]:
        return {"page_views": 2}


@pytest.fixture
def hangs(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Return what PostgreSQL waits for before it answers."""
    answers = threading.Event()

    def version_states(_: Control) -> dict[tuple[str, int], VersionState]:
        answers.wait(60)
        return STATES

    monkeypatch.setattr(Control, "version_states", version_states)
    monkeypatch.setattr(Control, "replays", lambda _: [])
    for name in ("LagReader", "Cluster", "Asking"):
        monkeypatch.setattr(looking, name, Nothing)
    monkeypatch.setattr(looking, "CommitWatch", Lost)
    monkeypatch.setattr(looking, "_CONTROL_SECONDS", 0.1)
    yield answers
    answers.set()


def test_lost_transactions_are_found_while_postgresql_hangs(
    hangs: threading.Event, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lookout = Lookout(Settings(home=tmp_path))
    for _ in range(2):
        found = lookout.look()
        assert (found.lost, found.answers["postgres"]) == ({"page_views": 2}, False)
    hangs.set()
    monkeypatch.setattr(looking, "_CONTROL_SECONDS", 60)
    assert lookout.look().answers["postgres"]


def test_a_call_that_nobody_waited_for_gives_the_next_answer() -> None:
    asked, goes_on = [], threading.Event()

    def ask() -> int:
        asked.append(1)
        goes_on.wait(60)
        return len(asked)

    plane = Apart(ask)
    for _ in range(2):
        with pytest.raises(TimeoutError):
            plane.answer(0.01)
    goes_on.set()
    assert [plane.answer(60), plane.answer(60)] == [1, 2]


def test_what_the_call_raises_is_raised() -> None:
    def ask() -> None:
        raise ControlUnavailable("PostgreSQL is away.")

    with pytest.raises(ControlUnavailable, match="is away"):
        Apart(ask).answer(60)
