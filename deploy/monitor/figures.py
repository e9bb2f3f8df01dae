"""What the monitor has found at one moment, and what follows from it. No I/O."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from deploy.monitor.arrivals import Arrivals
from jobs.plan import group_of_job
from replay.records import VersionState
from sinks.lag import PartitionLag, StableOffset

_RUNNING = "RUNNING"
JOB, REBUILD, LOADER, OTHER = "job", "rebuild", "loader", "other"
_SHOWN = (VersionState.LIVE, VersionState.STANDBY)

Version = tuple[str, int]
"""A view and one of its versions."""


@dataclass(frozen=True)
class Lag:
    """How far a consumer group is behind in one topic.

    `reader` is "job", "rebuild" (a job whose views nobody sees yet), "loader" or "other": a job
    that is no more, say.
    """

    group: str
    reader: str
    topic: str
    records: int
    seconds: float


@dataclass(frozen=True)
class Freshness:
    """Age of the oldest event that a version of a view may not show yet."""

    view: str
    version: int
    seconds: float


@dataclass(frozen=True)
class OpenTransactions:
    """What readers of committed records can't see of a topic, and for how long at most."""

    topic: str
    records: int
    stuck_seconds: float


@dataclass(frozen=True)
class ReplayProgress:
    """A replay that is not over: events of `streams` it must read, and those it has read."""

    replay: int
    job: str
    version: int
    state: str
    pinned: int
    read: int
    streams: tuple[str, ...] = ()


def job_readers(
    versions: Iterable[Version],
    states: Mapping[Version, VersionState],
    group_of: Callable[[str, int], str],
) -> dict[str, str]:
    """Return what each group is that writes one of `versions`: "job", "rebuild" or "other".

    A version without a state was never rebuilt, and is live.
    """
    found: dict[str, str] = {}
    for version in versions:
        state, group = states.get(version, VersionState.LIVE), group_of(*version)
        if state in _SHOWN:
            found[group] = JOB
        elif state is VersionState.BUILDING:
            found.setdefault(group, REBUILD)
        else:
            found.setdefault(group, OTHER)
    return found


def running(readers: Mapping[str, str], states: Iterable[tuple[str, str]]) -> dict[str, bool]:
    """Return whether each job runs that writes what people see.

    `readers` are those of `job_readers`, `states` Flink's names and states of all jobs.
    """
    found = {name for name, state in states if state == _RUNNING}
    expected = sorted(group.removeprefix("kappa-") for group, is_ in readers.items() if is_ == JOB)
    return {name: name in found for name in expected}


def lags(
    partitions: Iterable[PartitionLag],
    reader: Callable[[str], str],
    arrivals: Arrivals,
    now: float,
) -> list[Lag]:
    """Return the lag of each group in each topic: records in all, seconds of the worst partition.

    `reader` says what a group is. Notes the ends in `arrivals`.
    """
    records: dict[tuple[str, str], int] = defaultdict(int)
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    for one in partitions:
        key, place = (one.group, one.topic), (one.topic, one.partition)
        arrivals.saw(place, one.end, now)
        records[key] += one.lag
        behind = arrivals.behind_seconds(place, one.committed, now)
        seconds[key] = max(seconds[key], behind)
    return [Lag(g, reader(g), t, records[(g, t)], seconds[(g, t)]) for g, t in sorted(records)]


def freshness(
    found: Iterable[Lag],
    versions: Mapping[str, Version],
    group_of: Callable[[str, int], str],
) -> list[Freshness]:
    """Return the freshness of each view version; `versions` is (view, version) by view topic.

    An event that a view lacks was not read by the view's job, or its row was not loaded: so none
    is older than both lags together. A version that is being rebuilt, or whose job never
    committed an offset, has none.
    """
    jobs: dict[str, float] = {}
    loaded: dict[str, float] = {}
    for lag in found:
        by_job = lag.reader == JOB
        target, name = (jobs, group_of_job(lag.group)) if by_job else (loaded, lag.topic)
        target[name] = max(target.get(name, 0.0), lag.seconds)
    return [
        Freshness(view, version, jobs[group_of(view, version)] + loaded[topic])
        for topic, (view, version) in versions.items()
        if topic in loaded and group_of(view, version) in jobs
    ]


class StableOffsets:
    """Notes since when each partition's last stable offset stands before its end."""

    def __init__(self) -> None:
        self._since: dict[tuple[str, int], tuple[int, float]] = {}

    def look(self, offsets: Iterable[StableOffset], now: float) -> list[OpenTransactions]:
        """Return, by topic, what is held back at `now`, in seconds of one clock."""
        records: dict[str, int] = defaultdict(int)
        stuck: dict[str, float] = defaultdict(float)
        since: dict[tuple[str, int], tuple[int, float]] = {}
        for one in offsets:
            place = one.topic, one.partition
            records[one.topic] += one.end - one.stable
            if one.end > one.stable:
                stable, began = self._since.get(place, (one.stable, now))
                since[place] = one.stable, began if stable == one.stable else now
                stuck[one.topic] = max(stuck[one.topic], now - since[place][1])
        self._since = since
        return [OpenTransactions(topic, records[topic], stuck[topic]) for topic in sorted(records)]
