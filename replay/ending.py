"""End a replay: retire the version that nobody sees any more, or abort the one being built."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Mapping
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any

from confluent_kafka.admin import AdminClient

from deploy.settings import Settings
from jobs.catalogue import JOBS, job_named
from jobs.cluster import Cluster
from jobs.plan import JobPlan, plan
from jobs.state import state_folders
from jobs.submit import end_for_good, flink_name
from jobs.views.base import view_topic
from replay import names
from replay.build import output_topics, rebuilt_plan
from replay.handover import drop_copy, reading_copy
from replay.plan import accounting_of
from replay.quota import clear_groups
from replay.records import ReplayRecord, ReplayState, VersionState
from replay.steps import Work
from replay.switch import PREPARE, NotAllowed, instead
from schemas.topics import again, delete_consumer_groups, delete_topics, explained
from sinks.clickhouse import ClickHouse
from sinks.dead_letters import DEAD_LETTERS, LATE_EVENTS
from sinks.loader import group_of
from sinks.queries import public_versions
from sinks.sql import identifier, literal
from sinks.topics import ViewTopic

_LOADER_SECONDS = 60.0
_ANSWER_SECONDS = 10.0


class LoaderHolds(Exception):
    """A loader does not let go of topics that were dropped."""


def retire(work: Work, replay: ReplayRecord, *, now: datetime, grace: timedelta) -> ReplayRecord:
    """Drop the versions that a promotion replaced, `grace` after it; never one that is shown.

    A version in which people see other views of the job goes on, and is dropped when the last of
    these was replaced and retired.
    """
    _require_retirable(replay, now, grace)
    old = sorted(set(replay.from_versions.values()))
    with closing(ClickHouse(work.settings)) as clickhouse:
        _refuse_live(_shown(clickhouse, replay), replay.views, old)
        states = dict.fromkeys(replay.from_versions.items(), VersionState.RETIRING)
        replay = _begin_end(work, replay, ReplayState.RETIRING, states)
        shown = dict.fromkeys(replay.views, replay.to_version)
        _settle_names(work, replay, clickhouse, "retire", shown)
        seen = _seen(clickhouse, replay)
        for version in old:
            if views := seen.get(version):
                work.say(
                    f"Version {version} goes on, as people see {', '.join(views)} in it; it is "
                    "dropped when these are replayed and retired too."
                )
            else:
                replay = _retire_undeclared(work, replay, version)
                _remove_version(work, replay, clickhouse, "retire", version)
    states = dict.fromkeys(replay.from_versions.items(), VersionState.RETIRED)
    with work.step(replay, "retire: record"):
        return work.control.change(replay, ReplayState.RETIRED, states)


def undeclared_too(work: Work, replay: ReplayRecord) -> list[str]:
    """Return the views that go with the old versions of `replay` though it did not replace them.

    Nobody declares them any more.
    """
    with closing(ClickHouse(work.settings)) as clickhouse:
        ending = set(replay.from_versions.values()) - _seen(clickhouse, replay).keys()
    found = {view for version in ending for view in _undeclared(work.settings, replay, version)}
    return sorted(found - set(replay.views))


def _seen(clickhouse: ClickHouse, replay: ReplayRecord) -> dict[int, list[str]]:
    """Return the views of the job that people see, by version."""
    found: dict[int, set[str]] = defaultdict(set)
    for view, version in _shown(clickhouse, replay):
        found[version].add(view)
    return {version: sorted(views) for version, views in found.items()}


def _undeclared(settings: Settings, replay: ReplayRecord, version: int) -> list[str]:
    """Return the views of the job at `version` that no job declares any more.

    What it wrote stands beside its state, as long as there is that.
    """
    name = flink_name(settings, replay.job, version)
    folders = state_folders(Cluster(*settings.flink_clusters), name)[:1]
    written = {view for folder in folders for view in folder.layout() or ()}
    return sorted(written - {view.name for job in JOBS.values() for view in plan(job, 1).views})


def _retire_undeclared(work: Work, replay: ReplayRecord, version: int) -> ReplayRecord:
    """Record that views which nobody declares any more end with `version`, and show no other."""
    if views := _undeclared(work.settings, replay, version):
        work.say(f"No job declares {', '.join(views)} any more: that goes with version {version}.")
        states = {(view, version): VersionState.RETIRED for view in views}
        with work.step(replay, "retire: record undeclared views", views=views):
            return work.control.change(replay, replay.state, states)
    return replay


def _require_retirable(replay: ReplayRecord, now: datetime, grace: timedelta) -> None:
    if replay.state is ReplayState.RETIRING:
        return
    if replay.state is not ReplayState.PROMOTED:
        raise NotAllowed(
            f"replay {replay.id} of {replay.job} is {replay.state.words}; only what a promotion "
            "replaced can be retired."
        )
    due = replay.changed_at + grace
    if now < due:
        raise NotAllowed(
            f"replay {replay.id} was promoted at {replay.changed_at:%Y-%m-%d %H:%M:%S}; its old "
            f"version can be retired from {due:%Y-%m-%d %H:%M:%S} on. --now retires it at once, "
            "and then there is no way back."
        )


def abort(work: Work, replay: ReplayRecord) -> ReplayRecord:
    """Give up a replay that is not promoted: drop its new version, keep the old as it is."""
    if replay.state in (ReplayState.PROMOTED, ReplayState.RETIRING) or not replay.state.open:
        raise NotAllowed(
            f"replay {replay.id} of {replay.job} is {replay.state.words} and can't be aborted; "
            f"{instead(replay)}"
        )
    with closing(ClickHouse(work.settings)) as clickhouse:
        shown = _shown(clickhouse, replay)
        # Of a stream that was new, nobody saw an accounting before.
        begun = accounting_of(replay) - set(replay.views)
        _refuse_live(shown, {view for view, _ in shown} - begun, [replay.to_version])
        states = dict.fromkeys(
            ((view, replay.to_version) for view in replay.views), VersionState.RETIRING
        )
        replay = _begin_end(work, replay, ReplayState.ABORTING, states)
        if any(entry.step == PREPARE for entry in work.control.journal(replay.id)):
            _settle_names(work, replay, clickhouse, "abort", replay.from_versions)
        _remove_copy(work, replay)
        _remove_version(work, replay, clickhouse, "abort", replay.to_version)
        if begun:
            with work.step(replay, "abort: drop names", views=sorted(begun)):
                _drop_names(clickhouse, begun, replay.to_version)
    states = {(view, replay.to_version): VersionState.ABORTED for view in replay.views}
    states |= dict.fromkeys(replay.from_versions.items(), VersionState.LIVE)
    with work.step(replay, "abort: record"):
        return work.control.change(replay, ReplayState.ABORTED, states)


def _begin_end(
    work: Work,
    replay: ReplayRecord,
    state: ReplayState,
    versions: Mapping[tuple[str, int], VersionState],
) -> ReplayRecord:
    """Record that there is no way back from here, so that no other command builds or switches."""
    return replay if replay.state is state else work.control.change(replay, state, versions)


def _shown(clickhouse: ClickHouse, replay: ReplayRecord) -> list[tuple[str, int]]:
    """Return which versions of the job's views people see, by ClickHouse's own word."""
    of_job = {view.name for view in plan(job_named(replay.job), 1).views}
    shown = [*public_versions(clickhouse).items(), *names.announced(clickhouse).items()]
    return [(view, version) for view, version in shown if view in of_job]


def _refuse_live(
    shown: Collection[tuple[str, int]], views: Collection[str], versions: Collection[int]
) -> None:
    """Refuse to drop what is shown of `views`."""
    live = {view: n for view, n in shown if view in views and n in versions}
    if live:
        listed = ", ".join(f"{view} (version {version})" for view, version in live.items())
        raise NotAllowed(
            f"{listed} is what people see, and stays; `kappa replay rollback` shows an older "
            "version again."
        )


def _settle_names(
    work: Work,
    replay: ReplayRecord,
    clickhouse: ClickHouse,
    verb: str,
    versions: Mapping[str, int],
) -> None:
    with work.step(replay, f"{verb}: settle names"):
        for view, version in versions.items():
            names.settle(clickhouse, view, version)


def _remove_version(
    work: Work, replay: ReplayRecord, clickhouse: ClickHouse, verb: str, version: int
) -> None:
    """Stop the job at `version` and drop all that it wrote; each step may find its work done."""
    settings = work.settings
    job_plan = plan(job_named(replay.job).within(settings.namespace), version)
    undeclared = _undeclared(settings, replay, version)
    topics = [
        *output_topics(job_plan),
        *(f"{settings.topic_prefix}{view_topic(view, version)}" for view in undeclared),
    ]
    with work.step(replay, f"{verb}: stop job", job=job_plan.name):
        end_for_good(settings, job_plan.name)
    with work.step(replay, f"{verb}: drop topics", topics=topics):
        delete_topics(settings.kafka_client, topics)
        delete_consumer_groups(settings.kafka_client, job_plan.groups)
        clear_groups(settings, job_plan.groups, work.say)
        await_loader_gone(settings, topics)
    with work.step(replay, f"{verb}: drop tables"):
        _drop_names(clickhouse, undeclared, version)
        for view in undeclared:
            table = identifier(ViewTopic(view, version).table)
            clickhouse.command(f"DROP TABLE IF EXISTS {table} SYNC")
        _drop_tables(clickhouse, job_plan)
    with work.step(replay, f"{verb}: drop state"):
        for folder in state_folders(Cluster(*settings.flink_clusters), job_plan.name):
            folder.drop()


def _remove_copy(work: Work, replay: ReplayRecord) -> None:
    if replay.plan.archive:
        first = reading_copy(rebuilt_plan(work.settings, replay))
        with work.step(replay, "abort: drop copy", job=first.name):
            drop_copy(work, first)


def _drop_names(clickhouse: ClickHouse, views: Collection[str], version: int) -> None:
    """Drop the public names of `views` that show `version`, whose tables go."""
    shown = public_versions(clickhouse)
    for view in sorted(view for view in views if shown.get(view) == version):
        clickhouse.command(f"DROP VIEW IF EXISTS {identifier(view)}")


def await_loader_gone(
    settings: Settings, topics: Collection[str], seconds: float = _LOADER_SECONDS
) -> None:
    """Wait until no loader reads `topics`: one with a batch in hand would create a table anew."""
    admin = AdminClient(settings.kafka_client)
    group = group_of(settings)
    deadline = time.monotonic() + seconds
    while True:
        assigned = again(lambda: _assigned(admin, group), _ANSWER_SECONDS)
        held = sorted(assigned & set(topics))
        if not held:
            return
        if time.monotonic() > deadline:
            raise LoaderHolds(
                f"a loader reads {held[0]} still, {seconds:g} s after it was dropped; see "
                "`kappa logs loader`, start the loader anew, and run the same command again."
            )
        time.sleep(0.2)


def _assigned(admin: AdminClient, group: str) -> set[str]:
    with explained(f"tell what consumers in {group} read", _ANSWER_SECONDS):
        answer = admin.describe_consumer_groups([group])[group]
        found: Any = answer.result(timeout=_ANSWER_SECONDS)
    return {place.topic for one in found.members for place in one.assignment.topic_partitions}


def _drop_tables(clickhouse: ClickHouse, job_plan: JobPlan) -> None:
    for view in job_plan.views:
        table = identifier(view.table(job_plan.version))
        clickhouse.command(f"DROP TABLE IF EXISTS {table} SYNC")
    present = clickhouse.table_ids()
    streams = ", ".join(literal(stream.name) for stream in job_plan.job.streams)
    for raw in (DEAD_LETTERS, LATE_EVENTS):
        if raw.table in present:
            clickhouse.command(
                f"ALTER TABLE {identifier(raw.table)} DELETE"
                f" WHERE stream IN ({streams}) AND version = {job_plan.version}"
                " SETTINGS mutations_sync = 2"
            )
