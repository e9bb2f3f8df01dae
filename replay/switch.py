"""Promote a rebuild and roll it back: all views of a replay switch for the same queries."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing

from replay import names
from replay.records import ReplayRecord, ReplayState, VersionState
from replay.steps import Work
from sinks.clickhouse import ClickHouse
from sinks.queries import public_versions


class NotAllowed(Exception):
    """A step that the replay's state forbids; the message says what to do instead."""


PREPARE = "promote: prepare names"
_SWITCH = "promote: switch"

_INSTEAD = {
    ReplayState.BUILDING: "`kappa replay build` finishes it.",
    ReplayState.BUILT: "`kappa replay promote` comes first.",
    ReplayState.PROMOTED: "`kappa replay rollback` shows the old version again.",
    ReplayState.ROLLED_BACK: "`kappa replay promote` or `kappa replay abort` come next.",
    ReplayState.RETIRING: "`kappa replay retire` finishes it.",
    ReplayState.ABORTING: "`kappa replay abort` finishes it.",
    ReplayState.RETIRED: "a new replay builds the next version.",
    ReplayState.ABORTED: "a new replay builds the next version.",
}


def instead(replay: ReplayRecord) -> str:
    """Return what can be done with a replay in its state."""
    return _INSTEAD[replay.state]


def promote(work: Work, replay: ReplayRecord, reason: str = "") -> ReplayRecord:
    """Let people see the new version; `reason` is why differences are accepted, if there are any.

    The old version is written on, so that `roll_back` loses nothing.
    """
    states = (ReplayState.BUILT, ReplayState.ROLLED_BACK, ReplayState.PROMOTED)
    _require(replay, "promoted", replay.state in states)
    new = dict.fromkeys(replay.views, replay.to_version)
    return _switch(work, replay, "promote", new, ReplayState.PROMOTED, reason)


def roll_back(work: Work, replay: ReplayRecord, reason: str = "") -> ReplayRecord:
    """Let people see the old version again."""
    promoted = replay.state in (ReplayState.PROMOTED, ReplayState.ROLLED_BACK)
    if replay.state is ReplayState.BUILT:
        # A promotion that was killed may have switched without recording it.
        promoted = any(entry.step == _SWITCH for entry in work.control.journal(replay.id))
    _require(replay, "rolled back", promoted)
    old = replay.from_versions
    return _switch(work, replay, "roll back", old, ReplayState.ROLLED_BACK, reason)


def _require(replay: ReplayRecord, verb: str, allowed: bool) -> None:
    if not allowed:
        raise NotAllowed(
            f"replay {replay.id} of {replay.job} is {replay.state.words} and can't be {verb}; "
            f"{instead(replay)}"
        )


def _switch(
    work: Work,
    replay: ReplayRecord,
    verb: str,
    target: Mapping[str, int],
    state: ReplayState,
    reason: str,
) -> ReplayRecord:
    with closing(ClickHouse(work.settings, timeout=30)) as clickhouse:
        with work.step(replay, f"{verb}: prepare names"):
            _let_switch(clickhouse, replay, public_versions(clickhouse))
        with work.step(replay, f"{verb}: switch", versions=dict(target), reason=reason) as outcome:
            outcome["effective_from"] = names.switch(clickhouse, target, replay.id)
        with work.step(replay, f"{verb}: record"):
            replay = work.control.change(replay, state, version_states(replay, target))
        with work.step(replay, f"{verb}: keep names"):
            # No pointer counts either for a query that began before: it finds its views meanwhile.
            time.sleep(names.NOTICE_SECONDS)
            # A clock that is set back must not bring back what was shown before.
            _let_switch(clickhouse, replay, target)
    return replay


def _let_switch(clickhouse: ClickHouse, replay: ReplayRecord, shown: Mapping[str, int]) -> None:
    """Let the names of all views read both versions, and show `shown` while no pointer counts."""
    for view, old in replay.from_versions.items():
        names.prepare(clickhouse, view, old, replay.to_version, shown.get(view, old))


def version_states(
    replay: ReplayRecord, shown: Mapping[str, int]
) -> dict[tuple[str, int], VersionState]:
    """Return what each version of the replay is for when `shown` is what people see."""
    states = {}
    for view, old in replay.from_versions.items():
        for version in (old, replay.to_version):
            live = shown[view] == version
            states[view, version] = VersionState.LIVE if live else VersionState.STANDBY
    return states
