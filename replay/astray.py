"""Hold what public names show against the versions that are live by the journal. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from replay.records import ReplayRecord, VersionState

REMEDY = "kappa replay repoint"


@dataclass(frozen=True)
class Astray:
    """A view whose public name shows `shown`, while `live` is the version that people should see.

    `interrupted` tells that an open replay has both: a promotion or rollback may have been killed.
    """

    view: str
    shown: int
    live: int
    interrupted: bool = False

    @property
    def sentence(self) -> str:
        """What is wrong, and the command that mends it."""
        other = (
            "; if it was a promotion or a rollback that was interrupted, the same command ends it"
            if self.interrupted
            else ""
        )
        return (
            f"{self.view} shows version {self.shown}, though version {self.live} is live: "
            f"`{REMEDY}` shows that again{other}."
        )

    def as_json(self) -> dict[str, Any]:
        """Return it as commands print it for programs."""
        return {"view": self.view, "shown": self.shown, "live": self.live, "remedy": REMEDY}


def astray(
    states: Mapping[tuple[str, int], VersionState], shown: Mapping[str, int]
) -> tuple[Astray, ...]:
    """Return the views of `shown` that show another version than the live one of `states`.

    A view that no replay ever built has no state, and shows what it should.
    """
    live: dict[str, int] = {}
    for (view, version), state in states.items():
        if state is VersionState.LIVE:
            # A version that was replaced by hand may still be called live.
            live[view] = max(version, live.get(view, version))
    open_ones = (VersionState.STANDBY, VersionState.BUILDING)
    return tuple(
        Astray(view, shown[view], version, states.get((view, shown[view])) in open_ones)
        for view, version in sorted(live.items())
        if shown.get(view, version) != version
    )


def by_replay(
    replays: Iterable[ReplayRecord], found: Iterable[Astray]
) -> list[tuple[ReplayRecord, dict[str, int]]]:
    """Return the live versions of the views `found`, under the newest replay that knows each."""
    left = {one.view: one.live for one in found}
    grouped: list[tuple[ReplayRecord, dict[str, int]]] = []
    for replay in sorted(replays, key=lambda one: -one.id):
        own = {
            view: version
            for view, version in left.items()
            if view in replay.views
            and version in (replay.to_version, replay.from_versions.get(view))
        }
        if own:
            grouped.append((replay, own))
            left = {view: version for view, version in left.items() if view not in own}
    return grouped
