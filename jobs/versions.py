"""Which version of a job's views is the oldest that is there: the one meant when none is named."""

from __future__ import annotations

from deploy.settings import Settings
from jobs.plan import plan
from jobs.views import Job
from schemas.topics import topic_names


def usual_version(settings: Settings, job: Job) -> int:
    """Return the lowest version that `job` has topics of, or 1.

    While a rebuild runs that is the version it is to replace, and after its end the only one.
    """
    return lowest_version(job.within(settings.namespace), topic_names(settings.kafka_client))


def lowest_version(job: Job, topics: frozenset[str]) -> int:
    """Return the lowest version whose accounting is among `topics`, or 1. No I/O."""
    accounting = plan(job, 1).inputs[0].accounting
    start = accounting.topic(1).removesuffix("1")
    found = [topic.removeprefix(start) for topic in topics if topic.startswith(start)]
    return min((int(number) for number in found if number.isdigit()), default=1)
