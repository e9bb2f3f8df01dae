"""This project: its job for the question, watched until its view counts every event."""

from __future__ import annotations

import time

from bench.answers import newest_rows
from bench.peers.protocol import Contender, Task
from bench.throughput import CASES, source_position
from deploy.settings import Settings
from jobs.cluster import Cluster
from jobs.submit import cancel, flink_name, submit

CONTENDERS = {
    "kappa_views": Contender(
        "kappa-views", "leaves out none of these", answers=("W1", "W2", "W3"), on_flink=True
    )
}
_OPTIONS = {"checkpoint_seconds": 5.0, "batch_events": 100_000, "bundle_ms": 200}


def main(task: Task) -> None:
    """Run the job until its rows count every event of the topic."""
    settings, case = Settings(), CASES[task.view]
    try:
        submit(
            settings,
            job_name=case.job.name,
            views=(case.view.name,),
            restore="none",
            options=_OPTIONS,
            script=case.script,
        )
        _follow(settings, task)
        view = case.view_in(settings.namespace)
        rows = newest_rows(settings, view)
        # Each event counts in every window that it is in.
        counted = task.events * task.size_ms // task.slide_ms
        while sum(row["views"] for row in rows.values()) < counted:
            time.sleep(1)
            rows = newest_rows(settings, view)
    finally:
        name = flink_name(settings, case.job.name)
        if Cluster(settings.flink).live_job(name):
            cancel(settings, name)
    task.write_rows(
        (*key, *(row[measure] for measure in task.measures)) for key, row in rows.items()
    )


def _follow(settings: Settings, task: Task) -> None:
    read = 0
    while read < task.events:
        if read := round(source_position(settings, task.topic)):
            task.report(read)
        # Asking for metrics costs the TaskManager a few milliseconds.
        time.sleep(0.5)


if __name__ == "__main__":
    main(Task.given())
