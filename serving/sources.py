"""What Kafka, Flink and the control plane say of the stack: sources of the dashboard."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from deploy.settings import Settings
from jobs.catalogue import JOBS
from jobs.cluster import LIVE_STATES, Cluster, ClusterUnavailable, RunningJob
from replay.control import Control
from replay.records import ReplayRecord, ReplayState, events_before
from sinks.lag import LagReader, PartitionLag
from sinks.loader import group_of
from sinks.topics import UnknownTopicName, ViewTopic, parse_topic

_ENDED_SECONDS = 600.0
_REPLAYS, _JOURNAL = 3, 6
# Asking after a job takes several requests, and every server asks.
_DETAIL_SECONDS = 5.0


class KafkaSource:
    """Ends of the events topics, and lags of jobs and loader."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lags = LagReader(settings.kafka_client)
        self._events = f"{settings.topic_prefix}events."

    def ends(self) -> dict[str, int]:
        """Return how many events each stream's topic has."""
        found: dict[str, int] = defaultdict(int)
        for (topic, _), end in self._lags.ends(self._events).items():
            found[topic.removeprefix(self._events)] += end
        return dict(found)

    def lags(self) -> dict[str, Any]:
        """Return the lag of each job and of the loader by view, and each stream's newest time."""
        group = group_of(self._settings)
        readers = self._lags.readers(self._events, but=group)
        views: dict[str, int] = defaultdict(int)
        for one in self._lags.loader(group, self._settings.topic_prefix):
            views[self._loaded_name(one)] += one.lag
        newest = self._lags.newest(self._events)
        return {
            "jobs": self._by_job(readers),
            "views": dict(views),
            "newest": {topic.removeprefix(self._events): ms for topic, ms in newest.items()},
        }

    def _by_job(self, readers: list[PartitionLag]) -> dict[str, dict[str, Any]]:
        """Return by job its lag, and by stream the offset up to which it read each partition."""
        jobs: dict[str, dict[str, Any]] = {}
        for one in readers:
            job = jobs.setdefault(one.group.removeprefix("kappa-"), {"lag": 0, "streams": {}})
            job["lag"] += one.lag
            stream = one.topic.removeprefix(self._events)
            job["streams"].setdefault(stream, {})[one.partition] = one.committed
        return jobs

    def _loaded_name(self, one: PartitionLag) -> str:
        try:
            source = parse_topic(one.topic, self._settings.topic_prefix)
        except UnknownTopicName:
            return one.topic
        if isinstance(source, ViewTopic):
            return f"{source.view}.v{source.version}"
        return source.table.removesuffix("_loaded")


class FlinkSource:
    """The namespace's jobs as Flink's REST API tells of them."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._cluster = Cluster(*settings.flink_clusters, timeout=5)
        self._clock = clock
        self._details: dict[tuple[str, str], tuple[float, dict[str, Any]]] = {}
        prefix = re.escape(settings.topic_prefix)
        self._ours = re.compile(rf"{prefix}([a-z0-9_]+)(?:\.v([0-9]+))?(?:\.archive)?")

    def __call__(self) -> list[dict[str, Any]]:
        """Return one entry for each job that lives, failed, or ended a short while ago.

        A cluster that does not answer is an entry too; where none does, that is raised.
        """
        jobs, silent = self._cluster.look()
        if silent and not jobs:
            raise silent[0]
        newest: dict[str, RunningJob] = {}
        for job in jobs:
            if self._ours.fullmatch(job.name):
                newest.setdefault(job.name, job)
        shown = [job for _, job in sorted(newest.items()) if self._shown(job)]
        now = self._clock()
        self._details = {(job.id, job.state): self._details_of(job, now) for job in shown}
        found = [self._details[job.id, job.state][1] for job in shown]
        return found + [_silent(error) for error in silent]

    def _details_of(self, job: RunningJob, now: float) -> tuple[float, dict[str, Any]]:
        """Return when `job` was asked after, and the answer: the last one while it is young."""
        known = self._details.get((job.id, job.state))
        return known if known and now - known[0] < _DETAIL_SECONDS else (now, self._job(job))

    def _shown(self, job: RunningJob) -> bool:
        if job.state in LIVE_STATES or job.state == "FAILED":
            return True
        return time.time() - job.started_ms / 1000 < _ENDED_SECONDS

    def _job(self, job: RunningJob) -> dict[str, Any]:
        checkpoints = self._cluster.checkpoints(job.id)
        live = job.state in LIVE_STATES
        return {
            "name": job.name,
            **self._accounted(job.name),
            "state": job.state,
            "failure": "" if job.state == "RUNNING" else self._cluster.failure(job.id),
            "started": job.started_ms,
            "checkpoint": checkpoints.completed_ms,
            "checkpoints_failed": checkpoints.failed,
            "watermark": self._watermark(job.id) if live else None,
        }

    def _accounted(self, name: str) -> dict[str, Any]:
        """Return the version of the job `name`, and the streams of its accounts where declared."""
        found = self._ours.fullmatch(name)
        declared = JOBS.get(found[1]) if found else None
        return {
            "version": int(found[2] or 1) if found else None,
            "accounts": [stream.name for stream in declared.streams] if declared else None,
        }

    def _watermark(self, job_id: str) -> int | None:
        """Return the watermark, epoch ms, of the operator furthest along; None before the first."""
        return max(self._cluster.watermarks(job_id).values(), default=None)


def _silent(error: ClusterUnavailable) -> dict[str, Any]:
    """Return the entry of a cluster that does not answer, in the form of a job's."""
    names = ("version", "accounts", "started", "checkpoint", "checkpoints_failed", "watermark")
    unknown = dict.fromkeys(names)
    return {"name": "a Flink cluster", "state": "SILENT", "failure": str(error), **unknown}


class ReplaySource:
    """Replays of the namespace; `lags` returns what `KafkaSource.lags` read last, or None."""

    def __init__(self, settings: Settings, lags: Callable[[], dict[str, Any] | None]) -> None:
        self._control = Control(settings.postgres, settings.namespace, "kappa serve")
        self._prefix = settings.topic_prefix
        self._lags = lags

    def __call__(self) -> list[dict[str, Any]]:
        """Return the newest replays, each with how far it is and its last steps."""
        states = self._control.version_states()
        return [
            {
                "id": one.id,
                "job": one.job,
                "views": one.views,
                "from_versions": one.from_versions,
                "to_version": one.to_version,
                "state": one.state.value,
                "open": one.state.open,
                "changed": round(one.changed_at.timestamp() * 1000),
                "events": one.plan.events,
                "read": self._read(one),
                "versions": [
                    {"view": view, "version": version, "state": state.value}
                    for (view, version), state in states.items()
                    if view in one.views
                ],
                "journal": self._journal(one),
            }
            for one in self._control.replays()[:_REPLAYS]
        ]

    def _read(self, replay: ReplayRecord) -> int:
        if replay.state is not ReplayState.BUILDING:
            return replay.plan.events
        jobs = (self._lags() or {}).get("jobs", {})
        job = jobs.get(f"{self._prefix}{replay.job}.v{replay.to_version}", {})
        return events_before(job.get("streams", {}), replay.plan)

    def _journal(self, replay: ReplayRecord) -> list[dict[str, Any]]:
        return [
            {"step": one.step, "state": one.state, "at": round(one.at.timestamp() * 1000)}
            for one in self._control.journal(replay.id)[-_JOURNAL:]
        ]
