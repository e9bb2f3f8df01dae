"""Which version of a job's views is meant when none is named: the one that people see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import closing

from deploy.settings import Settings
from jobs.plan import plan
from jobs.views import Job
from schemas.topics import topic_names
from sinks.clickhouse import ClickHouse, ClickHouseFailed
from sinks.queries import public_versions

_ASK_SECONDS = 5.0


def usual_version(settings: Settings, job: Job) -> int:
    """Return the version in which people see most views of `job`.

    Where they see none, or ClickHouse does not say, it is the lowest that there are topics of, or
    1: beside that one a rebuild runs until it is promoted.
    """
    if seen := seen_version(job, _shown(settings)):
        return seen
    return lowest_version(job.within(settings.namespace), topic_names(settings.kafka_client))


def seen_version(job: Job, shown: Mapping[str, int]) -> int | None:
    """Return the version of most views of `job` among those `shown`, the lower of two. No I/O."""
    counts = Counter(shown[view.name] for view in job.views if view.name in shown)
    return max(counts, key=lambda version: (counts[version], -version), default=None)


def lowest_version(job: Job, topics: frozenset[str]) -> int:
    """Return the lowest version whose accounting is among `topics`, or 1. No I/O."""
    accounting = plan(job, 1).inputs[0].accounting
    start = accounting.topic(1).removesuffix("1")
    found = [topic.removeprefix(start) for topic in topics if topic.startswith(start)]
    return min((int(number) for number in found if number.isdigit()), default=1)


def _shown(settings: Settings) -> dict[str, int]:
    with closing(ClickHouse(settings, reader=True, timeout=_ASK_SECONDS)) as clickhouse:
        try:
            return public_versions(clickhouse)
        except ClickHouseFailed:
            return {}
