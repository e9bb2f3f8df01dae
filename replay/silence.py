"""How long a rebuild waits for partitions without events before it shows what is over by then.

A job's watermark is the least of all partitions, those apart that are idle. Each job finds out by
itself which are: a partition counts as idle once nothing came from it for its stream's timeout. So
a rebuild holds back what the live job has shown long since, and would be incomplete if it counted
as built before. That goes for rows that come when time has passed them: those of queries, sessions,
milestones, ranks, anomalies, and events of a join left alone.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from deploy.settings import Settings
from jobs.desired import idle_timeout_of
from jobs.plan import JobPlan
from jobs.status import job_offsets, watermarks
from schemas.topics import partition_count
from sinks.lag import LagReader


@dataclass(frozen=True)
class Newest:
    """A partition: its watermark where it has events, and when it counts as idle."""

    watermark: datetime | None
    idle_timeout: timedelta


def silence(partitions: Collection[Newest], now: datetime) -> timedelta:
    """Return how long to wait for partitions that others have left behind; zero for none.

    Those with events of now leave behind those without, and any with events those that are empty.
    Where all events are of long ago, no partition's end is known from a pause.
    """
    empty = [one for one in partitions if one.watermark is None]
    stale = [one for one in partitions if one.watermark and one.watermark < now - one.idle_timeout]
    lively = len(empty) + len(stale) < len(partitions)
    behind = [*(stale if lively else ()), *(empty if len(empty) < len(partitions) else ())]
    return max((one.idle_timeout for one in behind), default=timedelta())


def silence_of(settings: Settings, job_plan: JobPlan) -> timedelta:
    """Return how long the job of `job_plan`, which has read its streams, may hold results back."""
    read = job_offsets(LagReader(settings.kafka_client), job_plan)
    chosen = idle_timeout_of(settings, job_plan.name)
    found = []
    for source in job_plan.inputs:
        if not source.shows_when_over:
            continue
        stream = source.stream
        marks = watermarks(settings, stream, read[stream.name])
        instants = {part: datetime.fromtimestamp(at / 1000, UTC) for part, at in marks.items()}
        timeout = stream.idle_timeout if chosen is None else timedelta(seconds=chosen)
        # The topic may have got more partitions than its stream declares.
        partitions = range(partition_count(settings.kafka_client, source.topic))
        found += [Newest(instants.get(part), timeout) for part in partitions]
    return silence(found, datetime.now(UTC))
