"""Keep all jobs running on a cluster that forgets them with its JobManager: `-m jobs.keeping FILE`.

Each job of the catalogue is begun once, and what the cluster forgets is resumed. A job that people
cancelled, or retired for a later version, stays so. FILE exists while all that should live does.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from deploy.settings import Settings
from jobs.catalogue import JOBS
from jobs.cluster import (
    CANCELLING,
    FINISHED,
    LIVE_STATES,
    Cluster,
    RunningJob,
)
from jobs.desired import begun, desired_jobs, is_desired, mark_begun
from jobs.resume import FAILURES, submit_again
from jobs.submit import submit
from jobs.versions import usual_version
from jobs.views import Job
from schemas.topics import KafkaUnavailable
from sinks.loader import stop_signal

log = logging.getLogger("kappa.keeping")
_EVERY_SECONDS = 5.0
_NOT_FORGOTTEN = (*LIVE_STATES, CANCELLING, FINISHED)
_FAILURES = (*FAILURES, KafkaUnavailable)


class Keeper:
    """Looks after the jobs of one namespace; `jobs` are those to begin.

    `ill` is called as soon as one that should live is found not to.
    """

    def __init__(
        self,
        settings: Settings,
        cluster: Cluster,
        jobs: Mapping[str, Job] = JOBS,
        ill: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._cluster = cluster
        self._jobs = jobs
        self._ill = ill
        self._forgotten: set[str] | None = None
        self._live: set[str] = set()

    def look(self) -> bool:
        """Do what is missing now; return whether every job that should live does."""
        try:
            found = self._cluster.jobs()
            self._note_forgotten(found)
            if not self._all_live(found):
                # Each takes its time to resume.
                self._ill()
            well = self._resume() and self._begin()
            return well and self._all_live(self._cluster.jobs())
        except _FAILURES as error:
            log.warning("%s", error)
            return False

    def _all_live(self, found: list[RunningJob]) -> bool:
        live = {job.name for job in found if job.state in LIVE_STATES}
        return live >= {desired.name for desired in desired_jobs(self._settings)}

    def _note_forgotten(self, found: list[RunningJob]) -> None:
        """Note which jobs are to be resumed: a cluster that lists others may be about to get one.

        Somebody may be submitting or upgrading a job, which is then desired and not yet listed.
        """
        names = {job.name for job in found}
        desired = {d.name for d in desired_jobs(self._settings)}
        if self._forgotten is None or not found:
            self._forgotten = desired
        # Of those that ran at the last look one may be back before the next.
        self._forgotten |= (desired & self._live) - names
        # One that took too long to start was given up, and may run all the same. One that failed
        # to start is listed, too, and still to be resumed.
        self._forgotten -= {job.name for job in found if job.state in _NOT_FORGOTTEN}
        self._live = {job.name for job in found if job.state in LIVE_STATES}

    def _resume(self) -> bool:
        assert self._forgotten is not None
        for desired in desired_jobs(self._settings):
            # Those before it took their time, in which it may have been cancelled.
            if not is_desired(self._settings, desired.name):
                continue
            if desired.name in self._forgotten and _done(
                desired.name, partial(submit_again, self._settings, desired)
            ):
                self._forgotten.discard(desired.name)
        return self._forgotten.isdisjoint({d.name for d in desired_jobs(self._settings)})

    def _begin(self) -> bool:
        well = True
        for name, job in self._jobs.items():
            if begun(self._settings, name):
                continue
            known = any(desired.job == name for desired in desired_jobs(self._settings))
            if known or _done(name, partial(self._submit, job)):
                mark_begun(self._settings, name)
            else:
                well = False
        return well

    def _submit(self, job: Job) -> None:
        submit(self._settings, job.name, version=usual_version(self._settings, job))


def _done(name: str, act: Callable[[], object]) -> bool:
    try:
        act()
    except _FAILURES as error:
        log.error("%s", error)
        return False
    log.info("%s runs", name)
    return True


def main() -> int:
    """Look every few seconds until told to stop."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    healthy, settings = Path(sys.argv[1]), Settings()

    def ill() -> None:
        healthy.unlink(missing_ok=True)

    # A container that starts again has the file of before.
    ill()
    keeper = Keeper(settings, Cluster(*settings.flink_clusters), ill=ill)
    stop, pause = stop_signal(), threading.Event()
    while not stop():
        if keeper.look():
            healthy.touch()
        else:
            ill()
        # A signal ends the wait early only on the main thread: this is it.
        pause.wait(_EVERY_SECONDS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
