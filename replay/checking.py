"""Hold a replay's new version against the old one, over the input that both have read."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from deploy.settings import Settings
from jobs.catalogue import job_named
from jobs.cluster import DOWN_STATES, Cluster, RunningJob
from jobs.plan import JobPlan, plan
from jobs.status import job_offsets, watermarks
from jobs.views import QueryView
from replay.build import await_checkpoints, await_emitted, await_rows, old_plan
from replay.differences import Cut, cut_at
from replay.offsets import Offsets, read_by_any, read_by_both
from replay.records import ReplayRecord, ReplayState
from replay.report import VerifyReport, save_report
from replay.steps import Work
from replay.switch import NotAllowed, instead
from replay.verify import verify
from schemas.reading import event_ends
from schemas.topics import end_offsets
from sinks.lag import LagReader

VERIFY_STEP = "verify"

_POLL_SECONDS = 0.5
_CATCH_UP_SECONDS = 300.0
_ASKED_ANEW_SECONDS = 1.5

_GONE = "does not run"
_CHECKABLE = (ReplayState.BUILT, ReplayState.PROMOTED, ReplayState.ROLLED_BACK)


def check(
    work: Work, replay: ReplayRecord, progress: Callable[[str], None] = lambda view: None
) -> list[VerifyReport]:
    """Return what the comparison found, a report for each old version; they are journalled."""
    if replay.state not in _CHECKABLE:
        raise NotAllowed(
            f"replay {replay.id} of {replay.job} is {replay.state.words} and has nothing to "
            f"verify; {instead(replay)}"
        )
    with work.step(replay, VERIFY_STEP) as outcome:
        reports = [_compare(work.settings, replay, old, progress) for old in _replaced(replay)]
        reports = _without_used(reports)
        outcome["unexplained"] = sum(report.unexplained for report in reports)
        outcome["files"] = _saved(work, reports)
        outcome["reports"] = [report.sentence for report in reports]
    return reports


def _saved(work: Work, reports: list[VerifyReport]) -> list[str]:
    """Save each report as a page where that can be done; return the pages."""
    pages = []
    for report in reports:
        try:
            pages.append(str(save_report(work.settings, report)))
        except OSError as error:
            work.say(f"The comparison could not be saved as a page: {error}")
        else:
            work.say(f"The comparison as a page: {pages[-1]}")
    return pages


def _without_used(reports: list[VerifyReport]) -> list[VerifyReport]:
    """Return the reports so that none calls unused what a difference in another needed."""
    used = {
        one
        for report in reports
        for one in (*report.expected.columns, *report.expected.conditions)
        if one not in report.unused
    }
    return [replace(r, unused=tuple(one for one in r.unused if one not in used)) for r in reports]


def _replaced(replay: ReplayRecord) -> list[int]:
    """Return the old versions of the views that people declared; usually one."""
    return sorted({replay.from_versions[view] for view in _declared(replay)})


def _declared(replay: ReplayRecord) -> tuple[str, ...]:
    """Return the views that people declared.

    The accounting of offsets differs by the very events that explain what else differs.
    """
    known = {view.name for view in job_named(replay.job).views}
    return tuple(view for view in replay.views if view in known)


def _compare(
    settings: Settings, replay: ReplayRecord, old: int, progress: Callable[[str], None]
) -> VerifyReport:
    job = job_named(replay.job).within(settings.namespace)
    chosen = tuple(v for v in _declared(replay) if replay.from_versions[v] == old)
    before = old_plan(settings, replay, old)
    after = plan(job, replay.to_version, replay.views)
    several = len(_replaced(replay)) > 1
    name = f"{settings.topic_prefix}replay-{replay.id}"
    _refuse_stopped(settings, before, after)
    compare = partial(
        verify,
        settings,
        views=[view for view in job.views if view.name in chosen],
        old_version=old,
        new_version=replay.to_version,
        expected=replay.plan.expected,
        partial=several,
        replay=f"{name}-v{old}" if several else name,
        progress=progress,
        read_on=partial(_read_on, settings, before, after),
    )
    cut = _cut(settings, before, after)
    report = compare(cut=replace(cut, begin=replay.plan.begin))
    if report.unexplained and cut.drained and _has_read_on(settings, before, after, cut):
        # Of what came meanwhile a row may have been in one version's table and not in the other's.
        cut = _cut(settings, before, after, all_rows=False)
        report = compare(cut=replace(cut, begin=replay.plan.begin))
    return report


def _refuse_stopped(settings: Settings, *versions: JobPlan) -> None:
    """Raise `NotAllowed` where one of `versions` does not run, or fails again and again."""
    cluster = Cluster(*settings.flink_clusters)
    for one in versions:
        how = stands_still(cluster, one.name)
        if how is None:
            continue
        remedy = "start it with `kappa submit`" if how == _GONE else "verify again once it runs"
        raise NotAllowed(
            f"{one.name} {how}, so its rows stand still and can't be compared; {remedy}, or "
            "promote with --force and a reason."
        )


def stands_still(cluster: Cluster, name: str) -> str | None:
    """Return what the job called `name` does where its rows stand still, None where it runs."""
    job = cluster.live_job(name)
    if job is None:
        return _GONE
    if job.state in DOWN_STATES and _fails_again(cluster, job):
        return f"fails again and again ({cluster.failure(job.id)})"
    return None


def _fails_again(cluster: Cluster, job: RunningJob) -> bool:
    """Tell whether a job that is down has completed no checkpoint since it was restored last."""
    newest, restored = cluster.newest_checkpoint(job.id)
    return newest == restored


def _has_read_on(settings: Settings, before: JobPlan, after: JobPlan, cut: Cut) -> bool:
    """Tell whether either version has read beyond the offsets of `cut`, which both were at."""
    read = _read_so_far(LagReader(settings.kafka_client), before, after)
    return read_by_any(*read) != cut.offsets


def _read_on(settings: Settings, before: JobPlan, after: JobPlan) -> None:
    """Wait until each version has read all that is in the other's rows, and its own are loaded."""
    # What is in rows may not be in a checkpoint yet, which tells how far a job has read.
    await_checkpoints(settings, before, after)
    _await_both_read(settings, before, after)
    _await_both_loaded(settings, before, after)


def _cut(settings: Settings, before: JobPlan, after: JobPlan, *, all_rows: bool = True) -> Cut:
    """Return the input that stands in the tables of both versions, once it does.

    Without `all_rows` open windows don't count, even where both versions have read the same.

    While events come, the two jobs are never at the same offset. What has a time of its own counts
    up to where the watermarks of its streams close it in both. Other rows, of SQL or of totals, and
    those that answer an event as it arrives, count where neither version writes them while both
    read on: from what was written by now follow offsets that both then pass, so a row that stays as
    it is stems from the same events in both.
    """
    kafka = settings.kafka_client
    emitted = {
        view.table(one.version): end_offsets(kafka, one.topics[view.name], read_committed=True)
        for one in (before, after)
        for view in one.views
        if isinstance(view, QueryView) or view.time_columns is None
    }
    passed: dict[str, datetime] = {}
    if emitted:
        # Flink answers with what it knew when it was last asked, and only then asks its tasks anew.
        passed_by_all(settings, before, after)
        time.sleep(_ASKED_ANEW_SECONDS)
        passed = passed_by_all(settings, before, after)
        await_checkpoints(settings, before, after)
    old, new = _await_both_read(settings, before, after)
    _await_both_loaded(settings, before, after)
    reader = LagReader(kafka)
    still = all_rows and _read_so_far(reader, before, after) == (old, new)
    lesser = read_by_both(old, new)
    streams = {stream.name: stream for stream in before.job.streams}
    marks = {
        name: {
            part: datetime.fromtimestamp(at / 1000, UTC)
            for part, at in watermarks(settings, stream, lesser[name]).items()
        }
        for name, stream in streams.items()
    }
    lateness = {name: stream.allowed_lateness for name, stream in streams.items()}
    cut = cut_at(
        old,
        new,
        marks,
        lateness,
        drained=still,
        ends={name: event_ends(kafka, stream.topic) for name, stream in streams.items()},
        idle_timeout={name: stream.idle_timeout for name, stream in streams.items()},
    )
    if cut is None:
        raise NotAllowed(
            f"{', '.join(stream.topic for stream in streams.values())}: no window is closed in "
            "both versions yet, so there is nothing to compare; try again when both jobs have "
            "read on."
        )
    return replace(cut, emitted=emitted, passed=passed)


def passed_by_all(settings: Settings, *versions: JobPlan) -> dict[str, datetime]:
    """Return by query view the watermark that its operators have got in all of `versions`."""
    cluster = Cluster(*settings.flink_clusters)
    found: dict[str, list[int]] = defaultdict(list)
    for one in versions:
        job = cluster.live_job(one.name)
        marks = cluster.watermarks(job.id) if job else {}
        for view in one.queries:
            own = [at for name, at in marks.items() if re.search(rf"\b{view.sink}\b", name)]
            found[view.name] += [min(own)] if own else []
    return {
        view: datetime.fromtimestamp(min(marks) / 1000, UTC)
        for view, marks in found.items()
        if len(marks) == len(versions)
    }


def _await_both_read(
    settings: Settings, before: JobPlan, after: JobPlan
) -> tuple[Offsets, Offsets]:
    """Return how far both versions are once each has passed where the other was."""
    reader = LagReader(settings.kafka_client)
    old, new = _read_so_far(reader, before, after)
    most = read_by_any(old, new)
    # How far a job has read is known at each of its checkpoints.
    patience = max(_CATCH_UP_SECONDS, 3 * settings.checkpoint_seconds)
    deadline = time.monotonic() + patience
    while read_by_both(most, read_by_both(old, new)) != most:
        if time.monotonic() > deadline:
            raise NotAllowed(
                f"{before.name} and {after.name} are not where the other was "
                f"{patience:.0f} s ago; verify again when both have caught up, see "
                "`kappa status`."
            )
        time.sleep(_POLL_SECONDS)
        old, new = _read_so_far(reader, before, after)
    return old, new


def _read_so_far(reader: LagReader, before: JobPlan, after: JobPlan) -> tuple[Offsets, Offsets]:
    """Return how far each has read the streams of both; the old one may lack some of the new."""
    old, new = job_offsets(reader, before), job_offsets(reader, after)
    return old, {stream: parts for stream, parts in new.items() if stream in old}


def _await_both_loaded(settings: Settings, before: JobPlan, after: JobPlan) -> None:
    await_emitted(settings, before, after)
    for one in (before, after):
        await_rows(settings, one, lambda progress: None)
