"""What the control plane remembers of a replay: facts as the other modules see them. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from replay.differences import Expectation
from replay.offsets import Offsets


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
    """What a replay does, decided before it begins.

    `from_versions` is the version that each view shows now. `begin` are the first offsets of each
    stream that the job reads, `pinned` the end offsets that the rebuild must have read before it
    counts as built. `rate` is in events a second. `archive` is the place of the archive with the
    events that the topic lacks, if it lacks any. `counted_twice` are the mended dead letters that
    the rebuild counts beside what was sent for them.
    """

    job: str
    views: tuple[str, ...]
    from_versions: Mapping[str, int]
    to_version: int
    begin: Offsets
    pinned: Offsets
    from_earliest: bool
    expected: Expectation
    schema_ids: tuple[int, ...]
    slots_needed: int
    slots_free: int | None
    bytes_needed: int
    bytes_free: int
    rate: float
    rate_from: str
    archive: str = ""
    counted_twice: int = 0

    @property
    def events(self) -> int:
        """Number of events to read."""
        return events_before(self.pinned, self)

    @property
    def seconds(self) -> float:
        """Time that reading them takes at `rate`."""
        return self.events / self.rate

    def as_json(self) -> dict[str, Any]:
        """Return the plan as JSON, from which `plan_from_json` makes it again."""
        return {**asdict(self), "events": self.events, "seconds": round(self.seconds, 1)}


def events_before(read: Offsets, plan: ReplayPlan) -> int:
    """Return how many of the plan's pinned events are before the offsets `read`."""
    return sum(
        max(0, min(read.get(stream, {}).get(part, 0), end) - plan.begin[stream].get(part, 0))
        for stream, ends in plan.pinned.items()
        for part, end in ends.items()
    )


def plan_from_json(document: Mapping[str, Any]) -> ReplayPlan:
    """Return the plan that `ReplayPlan.as_json` wrote."""
    fields = {name: document[name] for name in ReplayPlan.__dataclass_fields__ if name in document}
    for name in ("begin", "pinned"):
        # Plans of jobs with one stream were kept without its name once.
        named = {document["stream"]: fields[name]} if "stream" in document else fields[name]
        fields[name] = {
            stream: {int(part): offset for part, offset in offsets.items()}
            for stream, offsets in named.items()
        }
    for name in ("views", "schema_ids"):
        fields[name] = tuple(fields[name])
    expected = fields["expected"]
    fields["expected"] = Expectation(
        columns=tuple(expected["columns"]), conditions=tuple(expected["conditions"])
    )
    return ReplayPlan(**fields)


@dataclass(frozen=True)
class ReplayRecord:
    """One replay. `views` are those rebuilt, and after them an accounting for each stream."""

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
