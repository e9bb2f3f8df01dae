"""Lead a rebuild from the copy of its events to the stream's own topic, at the pinned offsets.

Two jobs do it, one after the other, so that what runs says how far it is: the first reads the copy
under a name of its own; the second has the rebuild's name and begins with the first one's panes.
"""

from __future__ import annotations

from dataclasses import replace

from deploy.settings import Settings
from jobs.cluster import Cluster
from jobs.plan import JobPlan
from jobs.start import Start
from jobs.state import latest_state, state_folders
from jobs.submit import end_for_good, take_savepoint
from replay.quota import clear_groups
from replay.records import ReplayRecord
from replay.restored import copy_topic
from replay.steps import Work
from schemas.topics import delete_consumer_groups, delete_topics
from udfs.kafka_time import NewestBefore

HAND_OVER = "hand over"


def reading_copy(job_plan: JobPlan) -> JobPlan:
    """Return the plan of the job that reads the copy for the rebuild `job_plan`."""
    return replace(job_plan, copy=copy_topic(job_plan.job.stream, job_plan.version))


def handed_over(work: Work, replay: ReplayRecord) -> dict[str, str | float] | None:
    """Return the options of a rebuild that goes on from the copy; None before it does."""
    done = [
        dict(entry.detail["options"])
        for entry in work.control.journal(replay.id)
        if entry.step == HAND_OVER and entry.state == "done"
    ]
    return done[-1] if done else None


def begin_after(settings: Settings, replay: ReplayRecord, first: JobPlan) -> Start:
    """Return where the rebuild goes on once `first` has read the copy."""
    newest = NewestBefore(settings.kafka_client, first.events_topic)
    pinned = replay.plan.pinned[first.job.stream.name]
    found = {part: newest(part, offset) for part, offset in pinned.items()}
    return Start(pinned, {part: at for part, at in found.items() if at is not None})


def panes_of_stopped(settings: Settings, first: JobPlan, second: JobPlan) -> str | None:
    """Return the state with which `second` can go on, None while `first` must run to give one.

    A job that has finished has committed its results; of one that is gone nobody knows.
    """
    cluster = Cluster(*settings.flink_clusters)
    ended = next((job for job in cluster.jobs() if job.name == first.name), None)
    if ended is None or ended.state != "FINISHED":
        return None
    return latest_state(cluster, second.name)


def stop_with_panes(settings: Settings, first: JobPlan, second: JobPlan) -> str:
    """Stop the job that reads the copy, its results committed; return the savepoint's location."""
    _, location = take_savepoint(settings, first.name, stop=True, owner=second.name)
    return location


def carry_layout(settings: Settings, first: JobPlan, second: JobPlan) -> None:
    """Note beside the state of `second`, which is that of `first`, what it is of."""
    cluster = Cluster(*settings.flink_clusters)
    for old, new in zip(
        state_folders(cluster, first.name)[:1],
        state_folders(cluster, second.name)[:1],
        strict=True,
    ):
        if layout := old.layout():
            new.keep_layout(layout)


def drop_copy(work: Work, first: JobPlan) -> None:
    """Drop the copy and all that the job which read it left; some of it may be gone already."""
    settings = work.settings
    # Whoever was killed while it stopped left it to be resumed.
    end_for_good(settings, first.name)
    delete_topics(settings.kafka_client, [first.events_topic])
    delete_consumer_groups(settings.kafka_client, first.groups)
    clear_groups(settings, first.groups, work.say)
    for folder in state_folders(Cluster(*settings.flink_clusters), first.name):
        folder.drop()
