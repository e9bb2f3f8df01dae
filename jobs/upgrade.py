"""Put new code in the place of a running job: savepoint, stop, and start from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deploy.settings import Settings
from jobs.cluster import Cluster, ClusterError, ClusterUnavailable
from jobs.desired import desired_jobs
from jobs.state import StateUnavailable
from jobs.submit import (
    SubmissionFailed,
    Submitted,
    check_layout,
    check_place,
    flink_name,
    submit,
    submit_command,
    take_savepoint,
)


@dataclass(frozen=True)
class Upgraded:
    """What an upgrade did: the job it stopped, where its state is, the job that goes on."""

    stopped_job_id: str
    savepoint: str
    started: Submitted


def upgrade(
    settings: Settings, job_name: str, *, version: int = 1, parallelism: int | None = None
) -> Upgraded:
    """Stop a job with a savepoint and go on from there with the code as it is now.

    A job whose state does not fit the new code is refused before it is stopped, and so is one in
    another cluster than that which new jobs go to: who keeps it there would start it again. Views
    and options stay as they were submitted; `parallelism` changes. Where the new job does not
    start, nothing is lost: the `SubmissionFailed` names the savepoint and how to go back, or says
    that it is there and slow to start.
    """
    cluster = Cluster(*settings.flink_clusters)
    name = flink_name(settings, job_name, version)
    kept = next((d for d in desired_jobs(settings) if d.name == name), None)
    views = kept.views if kept else ()
    options: Mapping[str, str | float] = kept.options if kept else {}
    if parallelism is not None:
        options = {**options, "parallelism": parallelism}
    check_place(settings, cluster, name)
    # So that what is submitted is what was upgraded, and fits the state.
    again = submit_command(job_name, version, views, options)
    if kept and cluster.live_job(name) is None:
        raise SubmissionFailed(
            f"{name} does not run, so there is nothing to stop: `{again}` goes on from its newest "
            "state with the code as it is."
        )
    check_layout(settings, cluster, job_name, version, views)
    stopped, location = take_savepoint(settings, name, stop=True, wanted=True)
    try:
        started = submit(
            settings, job_name, version=version, views=views, restore=location, options=options
        )
    except (SubmissionFailed, ClusterError, ClusterUnavailable, StateUnavailable) as error:
        # One that is refused is cancelled; of the others Flink may have got the job.
        if not isinstance(error, SubmissionFailed) and _is_live(cluster, name):
            raise SubmissionFailed(
                f"{error} {name} is there with the code as it is, and may only be slow to start: "
                "see `kappa status`."
            ) from error
        raise SubmissionFailed(
            f"{error} Its state is in {location}: put the former code back and run "
            f"`{again} --from {location}`."
        ) from error
    return Upgraded(stopped.id, location, started)


def _is_live(cluster: Cluster, name: str) -> bool:
    """Whether Flink says that the job called `name` is live."""
    try:
        return cluster.live_job(name) is not None
    except (ClusterError, ClusterUnavailable):
        return False
