"""This project: its job for the question, watched until its views count every event."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

from bench.answers import Follower
from bench.peers.growth import Growth
from bench.peers.protocol import Contender, Task
from bench.questions import QUESTIONS
from bench.throughput import OPTIONS, source_position
from deploy.settings import Settings
from jobs.cluster import Cluster
from jobs.submit import cancel, flink_name, submit

_STILL_SECONDS = 60.0
"""Who has read everything and written nothing for so long has lost some of it."""
CONTENDERS = {
    "kappa_views": Contender(
        "kappa-views",
        "none of these",
        "two slots, RocksDB, checkpoints every {checkpoint_seconds:g} s, batches of at most "
        "{batch_events:,} events or {bundle_ms} ms".format(**OPTIONS),
        answers=tuple(QUESTIONS),
        notes={"W7": "all ten views; two are not compared: an estimate and a moving average"},
        on_flink=True,
    )
}


def main(task: Task) -> None:
    """Run the job until its rows count every event of the topics."""
    settings, question = Settings(), QUESTIONS[task.question]
    cluster, name = Cluster(settings.flink), flink_name(settings, question.job.name)
    require_live = partial(_require_live, cluster, name)
    try:
        submit(
            settings,
            job_name=question.job.name,
            views=question.views,
            restore="none",
            options=OPTIONS,
            script=question.script,
        )
        _follow(settings, task, require_live)
        followers = [
            Follower(settings, question.view(table.view, settings.namespace), table)
            for table in task.tables
        ]
        with Growth(task.bootstrap, [one.view.topic(1) for one in followers]) as growth:
            _await_rows(task, followers, growth, require_live)
            task.complete(growth.last())
    finally:
        if cluster.live_job(name):
            cancel(settings, name)
    for one in followers:
        task.write_rows((key + cells for key, cells in one.rows.items()), table=one.table)


def _require_live(cluster: Cluster, name: str) -> None:
    if not cluster.live_job(name):
        raise RuntimeError(f"job {name} has ended before its rows were complete")


def _follow(settings: Settings, task: Task, require_live: Callable[[], None]) -> None:
    read, topics = 0, [one.topic for one in task.sources]
    while read < task.events:
        require_live()
        if read := round(source_position(settings, topics)):
            task.report(read)
        time.sleep(0.5)


def _await_rows(
    task: Task, followers: Sequence[Follower], growth: Growth, require_live: Callable[[], None]
) -> None:
    """Read rows until they count every event, or until there have been no more for a while."""
    left = list(followers)
    while left and time.monotonic() < growth.changed + _STILL_SECONDS:
        require_live()
        for one in left:
            one.read()
        left = [one for one in left if one.table.weigh(task.asked_for(one.rows)) < one.table.total]
        time.sleep(1)


if __name__ == "__main__":
    main(Task.given())
