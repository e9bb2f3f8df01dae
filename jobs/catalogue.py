"""All declared jobs and views, found by name. No I/O."""

from __future__ import annotations

import difflib

from jobs import (
    bidding,
    categories,
    devices,
    experiments,
    orders,
    page_views,
    playbacks,
    posts,
    recommendations,
    transactions,
    words,
)
from jobs.views import Job, View
from jobs.views.names import check_once


class UnknownView(LookupError):
    """A view name that no job declares."""


class UnknownJob(LookupError):
    """A job name that no module in jobs/ declares."""


JOBS: dict[str, Job] = {
    job.name: job
    for job in (
        page_views.JOB,
        categories.JOB,
        transactions.JOB,
        devices.JOB,
        orders.JOB,
        playbacks.JOB,
        bidding.JOB,
        experiments.JOB,
        recommendations.JOB,
        posts.JOB,
        words.JOB,
    )
}
check_once((view.name for job in JOBS.values() for view in job.views), "the jobs have")
VIEWS: dict[str, View] = {view.name: view for job in JOBS.values() for view in job.views}


def job_named(name: str) -> Job:
    """Return the declared job, or raise `UnknownJob` naming the nearest one."""
    if name in JOBS:
        return JOBS[name]
    raise UnknownJob(f'"{name}" is no job; {_hint(name, JOBS)}')


def view_named(name: str) -> View:
    """Return the declared view, or raise `UnknownView` naming the nearest one."""
    if name in VIEWS:
        return VIEWS[name]
    raise UnknownView(f'"{name}" is no view; {_hint(name, VIEWS)}')


def job_of(view: View) -> Job:
    """Return the job that writes `view`."""
    return next(job for job in JOBS.values() if view in job.views)


def _hint(name: str, known: dict[str, Job] | dict[str, View]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f'did you mean "{near[0]}"?' if near else f"there are: {', '.join(known)}."
