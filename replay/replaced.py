"""Plan the job of an old version, whose code may have known fewer views and streams. No I/O."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from jobs.plan import JobPlan, accounting_view
from jobs.views import Job
from replay.records import ReplayRecord


def replaced_plan(job: Job, replay: ReplayRecord, version: int, topics: Collection[str]) -> JobPlan:
    """Return the plan of `job` at `version`, with the views that `replay` replaces there.

    A job accounts for every stream that it reads: one whose accounting is not among `topics` came
    to the job later, and the old version will never read it.
    """
    streams = tuple(one for one in job.streams if accounting_view(one).topic(version) in topics)
    readable = tuple(view for view in job.views if set(view.streams) <= set(streams))
    chosen = (view for view in job.views if replay.from_versions.get(view.name) == version)
    accounting = (accounting_view(stream) for stream in streams)
    over = replace(job, streams=streams, views=readable)
    return JobPlan(over, version, (*chosen, *accounting))
