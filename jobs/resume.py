"""Submit again, from their newest state, the jobs that a restarted Flink cluster forgot.

Each with the code that it ran: what changed since comes with an upgrade or a rebuild.
"""

from __future__ import annotations

import logging
import sys

from deploy.settings import Settings
from jobs.catalogue import UnknownJob
from jobs.cluster import Cluster, ClusterError, ClusterUnavailable
from jobs.desired import DesiredJob, desired_jobs, is_desired
from jobs.state import StateUnavailable, latest_state, state_folders
from jobs.submit import SubmissionFailed, Submitted, committed_by, submit, submit_command
from schemas.topics import KafkaUnavailable

log = logging.getLogger("kappa.resume")
FAILURES = (
    ClusterError,
    ClusterUnavailable,
    KafkaUnavailable,
    StateUnavailable,
    SubmissionFailed,
    UnknownJob,
)
"""What keeps one job from being submitted again, and no other."""


def resume(settings: Settings) -> int:
    """Submit every desired job that is not live; return how many could not be."""
    cluster = Cluster(*settings.flink_clusters)
    failures = 0
    for desired in desired_jobs(settings):
        try:
            # Those before it took their time, in which it may have been cancelled.
            if cluster.live_job(desired.name) or not is_desired(settings, desired.name):
                continue
            submitted = submit_again(settings, desired)
        except FAILURES as error:
            log.error("%s", error)
            failures += 1
            continue
        log.info("%s runs again from %s", submitted.name, submitted.restored_from)
    return failures


def submit_again(settings: Settings, desired: DesiredJob) -> Submitted:
    """Submit `desired` as it was submitted before, from its newest state since then.

    Without one it begins as it did: other states may be there that it was not to go on from.
    Raises `SubmissionFailed` where it has had state that is gone.
    """
    cluster = Cluster(*settings.flink_clusters)
    newest = latest_state(cluster, desired.name)
    if newest is None:
        _refuse_gone(settings, cluster, desired)
    return submit(
        settings.model_copy(update={"namespace": desired.namespace}),
        desired.job,
        version=desired.version,
        views=desired.views,
        restore=desired.restore if newest == desired.before else "latest",
        options=desired.options,
        code=desired.code,
        only_kept=True,
    )


def _refuse_gone(settings: Settings, cluster: Cluster, desired: DesiredJob) -> None:
    """Refuse to begin at offset zero, unasked, a job whose checkpoints covered more.

    What a checkpoint covers, its consumer group has committed: while that is what stood there when
    the job began, no checkpoint of its own is known.
    """
    folders = state_folders(cluster, desired.name)
    if desired.restore not in ("latest", "none") or not folders:
        return
    went_on = desired.restore == "latest" and desired.before is not None
    if went_on or _has_read(settings, desired):
        again = submit_command(desired.job, desired.version, desired.views, desired.options)
        raise SubmissionFailed(
            f"{desired.name} has read on, and its state is gone from "
            f"{' and '.join(folder.location for folder in folders)}: bring that back, or begin at "
            f"offset zero with `{again} --from none`."
        )


def _has_read(settings: Settings, desired: DesiredJob) -> bool:
    committed = committed_by(settings, desired.name)
    return any(committed.values()) and committed != desired.committed


def main() -> None:
    """Resume everything; exit with 1 where a job could not be."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    # Five questions a second would hide what this log is read for.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    sys.exit(1 if resume(Settings()) else 0)


if __name__ == "__main__":
    main()
