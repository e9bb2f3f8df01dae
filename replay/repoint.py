"""Find public names that show another version than the live one, and point them back."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from deploy.settings import Settings
from replay import names
from replay.astray import Astray, astray, by_replay
from replay.control import Control
from replay.records import ReplayRecord
from replay.steps import Work
from sinks.clickhouse import UNKNOWN_DATABASE, ClickHouse, ClickHouseFailed
from sinks.queries import public_versions

_ASK_SECONDS = 10.0


def names_astray(settings: Settings, control: Control) -> tuple[Astray, ...]:
    """Return the views that show another version than the live one.

    Raises `ControlUnavailable` and `ClickHouseFailed`.
    """
    states = control.version_states()
    with closing(ClickHouse(settings, reader=True, timeout=_ASK_SECONDS)) as clickhouse:
        try:
            return astray(states, public_versions(clickhouse))
        except ClickHouseFailed as error:
            if error.code == UNKNOWN_DATABASE:
                return ()
            raise


def repoint(work: Work, found: Sequence[Astray]) -> None:
    """Let the views `found` show their live versions, whether or not their replay has ended."""
    with closing(ClickHouse(work.settings, timeout=30)) as clickhouse:
        for replay, versions in by_replay(work.control.replays(), found):
            _show(work, clickhouse, replay, versions)


def _show(
    work: Work, clickhouse: ClickHouse, replay: ReplayRecord, versions: dict[str, int]
) -> None:
    with work.step(replay, "repoint: show", versions=versions):
        names.show(clickhouse, versions, replay.id)
