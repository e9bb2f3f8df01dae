"""What the control plane remembers of a replay: facts as the other modules see them. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from replay.differences import Expectation


class ReplayState(StrEnum):
    """Where a replay stands; the last two are its ends."""

    BUILDING = "building"
    BUILT = "built"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    RETIRING = "retiring"
    ABORTING = "aborting"
    RETIRED = "retired"
    ABORTED = "aborted"

    @property
    def open(self) -> bool:
        """Whether the replay still holds its leases."""
        return self not in (ReplayState.RETIRED, ReplayState.ABORTED)

    @property
    def words(self) -> str:
        """The state in a sentence."""
        return self.replace("_", " ")


class VersionState(StrEnum):
    """What one version of a view is for at the moment."""

    BUILDING = "building"
    STANDBY = "standby"
    LIVE = "live"
    RETIRING = "retiring"
    RETIRED = "retired"
    ABORTED = "aborted"


@dataclass(frozen=True)
class ReplayPlan:
    """What a replay does, decided before it begins. Offsets are those of the next record.

    `from_versions` is the version that each view shows now. `pinned` are the end offsets that the
    rebuild must have read before it counts as built. `rate` is in events a second. `archive` is
    the place of the archive with the events that the topic lacks, if it lacks any.
    """

    job: str
    stream: str
    views: tuple[str, ...]
    from_versions: Mapping[str, int]
    to_version: int
    begin: Mapping[int, int]
    pinned: Mapping[int, int]
    from_earliest: bool
    expected: Expectation
    schema_ids: tuple[int, ...]
    slots_needed: int
    slots_free: int
    bytes_needed: int
    bytes_free: int
    rate: float
    rate_from: str
    archive: str = ""

    @property
    def events(self) -> int:
        """Number of events to read."""
        return sum(end - self.begin.get(part, 0) for part, end in self.pinned.items())

    @property
    def seconds(self) -> float:
        """Time that reading them takes at `rate`."""
        return self.events / self.rate

    def as_json(self) -> dict[str, Any]:
        """Return the plan as JSON, from which `plan_from_json` makes it again."""
        return {**asdict(self), "events": self.events, "seconds": round(self.seconds, 1)}


def plan_from_json(document: Mapping[str, Any]) -> ReplayPlan:
    """Return the plan that `ReplayPlan.as_json` wrote."""
    fields = {name: document[name] for name in ReplayPlan.__dataclass_fields__ if name in document}
    for name in ("begin", "pinned"):
        fields[name] = {int(part): offset for part, offset in fields[name].items()}
    for name in ("views", "schema_ids"):
        fields[name] = tuple(fields[name])
    expected = fields["expected"]
    fields["expected"] = Expectation(
        columns=tuple(expected["columns"]), conditions=tuple(expected["conditions"])
    )
    return ReplayPlan(**fields)


@dataclass(frozen=True)
class ReplayRecord:
    """One replay. `views` are those rebuilt, and the accounting of their stream after them."""

    id: int
    namespace: str
    job: str
    views: tuple[str, ...]
    to_version: int
    state: ReplayState
    plan: ReplayPlan
    created_at: datetime
    changed_at: datetime

    @property
    def from_versions(self) -> Mapping[str, int]:
        """The version of each view before the replay."""
        return self.plan.from_versions


@dataclass(frozen=True)
class JournalEntry:
    """One line of a replay's journal; `state` is "started", "done" or "failed"."""

    step: str
    state: str
    at: datetime
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Lease:
    """Who may change the versions of a view: one replay, until it is retired or aborted."""

    view: str
    replay_id: int
    holder: str
    taken_at: datetime
