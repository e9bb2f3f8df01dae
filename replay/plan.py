"""Decide what a replay must rebuild, and whether it may begin. No I/O."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from jobs.views.names import accounting_name
from replay.differences import Expectation, UnusableExpectation, expectations
from replay.offsets import Offsets
from replay.records import ReplayPlan, ReplayRecord, ReplayState, VersionState
from sinks.pointers import VersionsDiffer, joint_columns
from sinks.tables import TableColumn

DEFAULT_RATE = 50_000.0
"""Events a second that a rebuild is taken to read until one was measured."""

# The rebuild's tables, and its view topics beside them; both copies are of about the same size.
_COPIES = 2


class Refused(Exception):
    """A replay that must not begin; each reason names its subject and the remedy."""

    def __init__(self, reasons: tuple[str, ...]) -> None:
        super().__init__(" ".join(reasons))
        self.reasons = reasons


@dataclass(frozen=True)
class Facts:
    """What the system said when the replay was planned.

    `topics` is the events topic of each stream that the job reads, by the stream's name; `begin`
    and `end` are its first offsets and those after its last event.
    `versions_used` are all versions that the views ever had, by the control plane and by the
    topics. `columns` are those of each declared view, as it is shown and as the code has it.
    `unreadable` says, for each schema version that can't be read, why. `table_bytes` is the size of
    the views' tables now, `measured_rate` that of the job's last rebuild. `archive` is the place of
    the archive to use, `archived` by partition how far that goes from offset zero, where the job
    reads one stream. `queries` are those of the views that are written in SQL. `new_streams` are
    those that no version shown reads. `doubled` are by stream the places of dead letters that were
    mended and sent again, and that the rules of now take as they were.
    """

    job: str
    topics: Mapping[str, str]
    views: tuple[str, ...]
    shown: Mapping[str, int]
    versions_used: frozenset[int]
    begin: Offsets
    end: Offsets
    columns: Mapping[str, tuple[Sequence[TableColumn], Sequence[TableColumn]]]
    schema_ids: tuple[int, ...]
    unreadable: tuple[str, ...]
    slots_needed: int
    slots_free: int | None
    table_bytes: int
    bytes_free: int
    measured_rate: float | None
    archive: str = ""
    archived: Mapping[int, int] = field(default_factory=dict)
    queries: tuple[str, ...] = ()
    new_streams: tuple[str, ...] = ()
    doubled: Mapping[str, Collection[tuple[int, int]]] = field(default_factory=dict)

    @property
    def replaced(self) -> tuple[str, ...]:
        """The views to rebuild, without the accounting of streams that the job did not read."""
        begun = {accounting_name(stream) for stream in self.new_streams}
        return tuple(view for view in self.views if view not in begun)


def plan_replay(
    facts: Facts, expected: Expectation, *, from_earliest: bool, count_twice: bool = False
) -> ReplayPlan:
    """Return what to do, or raise `Refused` with every reason against it."""
    twice = _counted_twice(facts)
    reasons = tuple(_reasons(facts, expected, from_earliest))
    if not count_twice:
        reasons += tuple(_twice_reason(facts.topics[name], at) for name, at in twice.items())
    if reasons:
        raise Refused(reasons)
    rate = facts.measured_rate
    archive = facts.archive if _gaps(facts) else ""
    return ReplayPlan(
        job=facts.job,
        views=facts.replaced,
        from_versions={view: facts.shown[view] for view in facts.replaced},
        to_version=max(facts.versions_used | set(facts.shown.values())) + 1,
        begin=_from_zero(facts.begin) if archive else facts.begin,
        pinned=facts.end,
        from_earliest=from_earliest and not archive,
        expected=expected,
        schema_ids=facts.schema_ids,
        slots_needed=facts.slots_needed,
        slots_free=facts.slots_free,
        bytes_needed=facts.table_bytes * _COPIES,
        bytes_free=facts.bytes_free,
        rate=rate or DEFAULT_RATE,
        rate_from="the last rebuild" if rate else "the default, as none was measured yet",
        archive=archive,
        counted_twice=sum(map(len, twice.values())),
    )


def refuse_lost(plan: ReplayPlan, topics: Mapping[str, str], begin: Offsets, at: Offsets) -> None:
    """Raise `Refused` where a topic has dropped events that the rebuild is still to read.

    `topics` and the first offsets `begin` are of each stream, by its name. `at` is where its job
    goes on; what it says nothing of begins where the plan does.
    """
    lost = [
        f"partition {part} of {topics[stream]} lacks offsets {wanted} to {first - 1}"
        for stream, parts in begin.items()
        for part, first in parts.items()
        if first > (wanted := _goes_on_at(plan, at, stream, part))
    ]
    if lost:
        raise Refused(
            (
                f"{', '.join(lost)}: they were dropped since the replay was planned, and it would "
                "miss them. `kappa replay abort`, then build anew with --from-archive or "
                "--from-earliest; the topic's retention.ms is to be -1.",
            )
        )


def _goes_on_at(plan: ReplayPlan, at: Offsets, stream: str, part: int) -> int:
    # Beyond the pinned offsets a rebuild from an archive reads the topic.
    planned = (plan.pinned if plan.archive else plan.begin)[stream].get(part, 0)
    # A job that reads a stream twice has zero where the second reader is yet to begin.
    return max(planned, at.get(stream, {}).get(part, planned))


def goes_on(current: ReplayRecord, views: tuple[str, ...], expected: Expectation) -> bool:
    """Tell whether a wish to build `views` is the one that the open replay `current` is about."""
    same_views = set(current.views) - accounting_of(current) == set(views)
    same_fix = expected in (current.plan.expected, Expectation())
    return same_views and same_fix and current.state in (ReplayState.BUILDING, ReplayState.BUILT)


def is_done(
    replay: ReplayRecord,
    views: tuple[str, ...],
    expected: Expectation,
    states: Mapping[tuple[str, int], VersionState],
) -> bool:
    """Tell whether `replay` built just these `views`, and its versions are what people see."""
    promoted = (ReplayState.PROMOTED, ReplayState.RETIRING, ReplayState.RETIRED)
    same_views = set(replay.views) - accounting_of(replay) == set(views)
    same_fix = expected in (replay.plan.expected, Expectation())
    live = all(states.get((view, replay.to_version)) is VersionState.LIVE for view in views)
    return replay.state in promoted and same_views and same_fix and live


def accounting_of(replay: ReplayRecord) -> set[str]:
    """Return the views that say which events were aggregated; every rebuild writes them."""
    return {accounting_name(stream) for stream in replay.plan.pinned}


def _reasons(facts: Facts, expected: Expectation, from_earliest: bool) -> list[str]:
    reasons = []
    if unknown := [view for view in facts.replaced if view not in facts.shown]:
        reasons.append(
            f"{', '.join(unknown)}: nothing is live to be replaced; name the other views, or let a "
            f"first version join them with `kappa submit {facts.job} --view {unknown[0]} "
            "--version N`, N one that no view had."
        )
    names = {
        view: (frozenset(one.name for one in old), frozenset(one.name for one in new))
        for view, (old, new) in facts.columns.items()
    }
    try:
        expectations(expected, names)
    except UnusableExpectation as error:
        reasons.append(str(error))
    reasons.extend(_type_reasons(facts))
    gaps = _gaps(facts)
    if gaps and facts.archive:
        reasons.extend(_archive_reasons(facts, gaps))
    elif not from_earliest:
        reasons += [_gap_reason(facts.topics[stream], lost) for stream, lost in gaps.items()]
    reasons.extend(facts.unreadable)
    if facts.slots_free is not None and facts.slots_free < facts.slots_needed:
        reasons.append(
            f"Flink has {facts.slots_free} free slots and the rebuild needs "
            f"{facts.slots_needed}; cancel a job, add a TaskManager, or lower KAPPA_PARALLELISM."
        )
    needed = facts.table_bytes * _COPIES
    if facts.bytes_free < needed:
        reasons.append(
            f"the rebuild needs about {needed / 1e6:,.0f} MB and {facts.bytes_free / 1e6:,.0f} MB "
            "are free; make room, or retire an old version."
        )
    return reasons


def _type_reasons(facts: Facts) -> list[str]:
    """Return why people could not be shown both versions of a view through one name."""
    reasons = []
    for view, (old, new) in facts.columns.items():
        try:
            joint_columns(view, old, new)
        except VersionsDiffer as error:
            reasons.append(str(error))
    return reasons


def _gaps(facts: Facts) -> dict[str, dict[int, int]]:
    """Return by stream the partitions that do not begin at offset zero, and where they do."""
    gaps = {
        stream: {part: first for part, first in begin.items() if first > 0}
        for stream, begin in facts.begin.items()
    }
    return {stream: lost for stream, lost in gaps.items() if lost}


def _counted_twice(facts: Facts) -> dict[str, list[tuple[int, int]]]:
    """Return by stream the letters that the rebuild reads and counts beside what was sent."""
    found = {
        stream: sorted(
            (part, offset)
            for part, offset in places
            if facts.archive or offset >= facts.begin[stream].get(part, 0)
        )
        for stream, places in facts.doubled.items()
    }
    return {stream: places for stream, places in found.items() if places}


def _twice_reason(topic: str, places: Sequence[tuple[int, int]]) -> str:
    part, offset = places[0]
    return (
        f"{topic}: the rules of now take dead letters as they were that were mended and sent "
        f"again ({len(places):,}, the first in partition {part} at offset {offset}), and a rebuild "
        "would count both. Keep a rule that refuses them, or accept that with --count-twice."
    )


def _from_zero(begin: Offsets) -> Offsets:
    return {stream: dict.fromkeys(parts, 0) for stream, parts in begin.items()}


def _gap_reason(topic: str, gaps: Mapping[int, int]) -> str:
    lost = ", ".join(f"partition {p} lacks offsets 0 to {n - 1}" for p, n in gaps.items())
    return (
        f"{topic} does not begin at offset zero: {lost}. A rebuild would miss these events; "
        "--from-archive takes them from the archive, --from-earliest accepts that and records it."
    )


def _archive_reasons(facts: Facts, gaps: Offsets) -> list[str]:
    if len(facts.topics) > 1:
        return [
            f"{', '.join(facts.topics[stream] for stream in gaps)} lacks its first events, and "
            f"--from-archive can't help job {facts.job}, which reads several streams: it restores "
            "one stream alone. Accept the gap with --from-earliest."
        ]
    if facts.queries:
        return [
            f"{', '.join(facts.queries)}: --from-archive rebuilds no views in SQL, as no state "
            "of SQL goes over from the archive's events to the topic's. Name the other views, or "
            "accept the gap with --from-earliest."
        ]
    ((stream, begin),) = gaps.items()
    short = {part: facts.archived.get(part, 0) for part in begin}
    return [
        f"{facts.topics[stream]}: partition {part} begins at offset {begin[part]}, and the archive "
        f"at {facts.archive} holds every event up to offset {reached} only; see `kappa archive "
        "verify`, or accept the gap with --from-earliest."
        for part, reached in short.items()
        if reached < begin[part]
    ]
