"""Read Kafka and the control plane for the monitor, and remember what was found."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from deploy.monitor.apart import Apart
from deploy.monitor.arrivals import Arrivals
from deploy.monitor.asking import Asking
from deploy.monitor.figures import (
    LOADER,
    OTHER,
    Freshness,
    Lag,
    OpenTransactions,
    ReplayProgress,
    StableOffsets,
    Version,
    freshness,
    job_readers,
    lags,
    running,
)
from deploy.settings import Settings
from jobs.catalogue import JOBS, VIEWS, job_of
from jobs.cluster import Cluster, ClusterError, ClusterUnavailable
from jobs.commits import CommitWatch
from jobs.plan import group_of_job
from jobs.state import StateUnavailable
from jobs.status import job_offsets
from jobs.submit import flink_name
from replay.astray import Astray, astray
from replay.build import rebuilt_plan
from replay.control import Control, ControlUnavailable
from replay.records import ReplayRecord, ReplayState, VersionState, events_before
from schemas.reading import has_events
from schemas.topics import KafkaUnavailable
from sinks.lag import LagReader, PartitionLag
from sinks.loader import group_of
from sinks.topics import ViewTopic, parse_topic

log = logging.getLogger("kappa.monitor")
_EVENTS = "events."
_CONTROL_SECONDS = 5.0
# What a job that goes on reads within this time is not looked at for markers.
_MARKER_SECONDS, _MARKERS = 20.0, 1_000


@dataclass(frozen=True)
class Findings:
    """All that was found at one look; `answers` says by service whether it did answer."""

    answers: dict[str, bool] = field(default_factory=dict)
    lags: list[Lag] = field(default_factory=list)
    freshness: list[Freshness] = field(default_factory=list)
    events: dict[str, int] = field(default_factory=dict)
    """Events that each stream's topic ever got."""
    transactions: list[OpenTransactions] = field(default_factory=list)
    replays: list[ReplayProgress] = field(default_factory=list)
    running: dict[str, bool] = field(default_factory=dict)
    """Whether each job runs that writes a version of a view that people see."""
    lost: dict[str, int] = field(default_factory=dict)
    """Transactions that each job lost and nobody accepted yet."""
    lost_known: bool = True
    astray: tuple[Astray, ...] = ()
    """Views that show another version than the live one."""


class Lookout:
    """Looks at one namespace; `clock` gives seconds."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._reader = LagReader(settings.kafka_client)
        self._flink = Cluster(*settings.flink_clusters, timeout=5)
        self._control = Control(settings.postgres, settings.namespace)
        self._plane = Apart(self._told)
        self._asking = Asking(settings)
        self._commits = CommitWatch(settings)
        self._arrivals = Arrivals()
        self._stable = StableOffsets()
        self._states: dict[Version, VersionState] = {}
        self._marked: dict[tuple[str, str, int], tuple[tuple[int, int], bool]] = {}

    def look(self) -> Findings:
        """Return what there is now; a service that does not answer leaves its figures out."""
        # What was lost is looked for whatever else hangs.
        lost = self._lost()
        answers = {"kafka": True, "postgres": True, **self._asking.answers()}
        found: list[Lag] = []
        versions: dict[str, Version] = {}
        readers: dict[str, str] = {}
        events: dict[str, int] = {}
        transactions: list[OpenTransactions] = []
        replays: list[ReplayProgress] = []
        try:
            # While PostgreSQL is away no version changes its state: those of before hold.
            self._states, open_replays = self._plane.answer(_CONTROL_SECONDS)
            replays = [self._progress(one) for one in open_replays if one.job in JOBS]
        except (ControlUnavailable, TimeoutError):
            answers["postgres"] = False
        except KafkaUnavailable as error:
            log.warning("%s", error)
            answers["kafka"] = False
        try:
            found, versions, readers = self._lags()
            prefix = self._settings.topic_prefix
            events = self._events(prefix)
            transactions = self._stable.look(self._reader.stable_offsets(prefix), self._clock())
        except KafkaUnavailable as error:
            log.warning("%s", error)
            answers["kafka"] = False
        fresh = freshness(found, versions, self._job_group)
        jobs = self._running(readers)
        return Findings(
            answers,
            found,
            fresh,
            events,
            transactions,
            replays,
            jobs,
            lost=lost or {},
            lost_known=lost is not None,
            astray=astray(self._states, self._asking.shown()),
        )

    def close(self) -> None:
        """Give back the connections that last."""
        self._control.close()
        self._asking.close()
        self._commits.close()

    def _lags(self) -> tuple[list[Lag], dict[str, Version], dict[str, str]]:
        """Return all lags, each view topic's view and version, and what each group of a job is."""
        prefix, group = self._settings.topic_prefix, group_of(self._settings)
        now = self._clock()
        readers = [
            self._without_marker(one, now)
            for one in self._reader.readers(f"{prefix}{_EVENTS}", but=group)
        ]
        loader = self._reader.loader(group, prefix)
        versions = self._versions({one.topic for one in loader})
        jobs = job_readers(versions.values(), self._states, self._job_group)
        found = [
            *lags(readers, lambda one: jobs.get(group_of_job(one), OTHER), self._arrivals, now),
            *lags(loader, lambda _: LOADER, self._arrivals, now),
        ]
        return found, versions, jobs

    def _without_marker(self, one: PartitionLag, now: float) -> PartitionLag:
        """Return a lag without the marker of a producer's transaction, which no job ever passes."""
        place = one.topic, one.partition
        waited = self._arrivals.behind_seconds(place, one.committed, now)
        if waited < _MARKER_SECONDS or one.lag > _MARKERS:
            self._marked.pop((one.group, *place), None)
            return one
        known = self._marked.get((one.group, *place))
        if known is None or known[0] != (one.committed, one.end):
            kafka, between = self._settings.kafka_client, (one.committed, one.end)
            try:
                is_behind = has_events(kafka, *place, *between)
            except KafkaUnavailable as error:
                # A group that nobody reads in may stand before a topic's first record.
                log.warning("what %s has left to read is not known: %s", one.group, error)
                is_behind = True
            known = between, is_behind
            self._marked[(one.group, *place)] = known
        return one if known[1] else replace(one, committed=one.end)

    def _running(self, readers: Mapping[str, str]) -> dict[str, bool]:
        try:
            # A job on a cluster that does not answer is as good as one that does not run.
            jobs, _ = self._flink.look()
        except ClusterError:
            jobs = []
        return running(readers, ((job.name, job.state) for job in jobs))

    def _lost(self) -> dict[str, int] | None:
        """Return what each job lost, None where that can't be told."""
        try:
            return self._commits.look()
        except (KafkaUnavailable, ClusterUnavailable, ClusterError, StateUnavailable) as error:
            # What is lost stays so: the next look finds it.
            log.warning("whether jobs lost transactions is not known: %s", error)
            return None

    def _events(self, prefix: str) -> dict[str, int]:
        ends = self._reader.ends(f"{prefix}{_EVENTS}")
        events: dict[str, int] = defaultdict(int)
        for (topic, _), end in ends.items():
            events[topic.removeprefix(f"{prefix}{_EVENTS}")] += end
        return events

    def _versions(self, topics: Collection[str]) -> dict[str, Version]:
        sources = {topic: parse_topic(topic, self._settings.topic_prefix) for topic in topics}
        return {
            topic: (source.view, source.version)
            for topic, source in sources.items()
            if isinstance(source, ViewTopic) and source.view in VIEWS
        }

    def _job_group(self, view: str, version: int) -> str:
        return f"kappa-{flink_name(self._settings, job_of(VIEWS[view]).name, version)}"

    def _told(self) -> tuple[dict[Version, VersionState], list[ReplayRecord]]:
        """Return what the control plane tells: the versions' states, and the open replays."""
        states = self._control.version_states()
        return states, [one for one in self._control.replays() if one.state.open]

    def _progress(self, replay: ReplayRecord) -> ReplayProgress:
        pinned = replay.plan.events
        read = pinned
        if replay.state is ReplayState.BUILDING:
            job_plan = rebuilt_plan(self._settings, replay)
            read = events_before(job_offsets(self._reader, job_plan), replay.plan)
        return ReplayProgress(
            replay.id,
            replay.job,
            replay.to_version,
            replay.state.value,
            pinned,
            read,
            tuple(replay.plan.pinned),
        )
