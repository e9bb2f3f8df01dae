"""Hold a replay's new version against the old one, over the input that both have read."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from deploy.settings import Settings
from jobs.catalogue import job_named
from jobs.plan import JobPlan, plan
from jobs.status import read_offsets, watermarks
from replay.build import await_loaded
from replay.differences import Cut, cut_at
from replay.records import ReplayRecord, ReplayState
from replay.report import VerifyReport, save_report
from replay.steps import Work
from replay.switch import NotAllowed, instead
from replay.verify import verify

VERIFY_STEP = "verify"

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
        versions = sorted({replay.from_versions[view] for view in _declared(replay)})
        reports = [_compare(work.settings, replay, old, progress) for old in versions]
        outcome["unexplained"] = sum(report.unexplained for report in reports)
        outcome["files"] = [str(save_report(work.settings, report)) for report in reports]
        outcome["reports"] = [report.sentence for report in reports]
    return reports


def _declared(replay: ReplayRecord) -> tuple[str, ...]:
    """Return the views that people declared; the accounting follows from what a job aggregates."""
    known = {view.name for view in job_named(replay.job).views}
    return tuple(view for view in replay.views if view in known)


def _compare(
    settings: Settings, replay: ReplayRecord, old: int, progress: Callable[[str], None]
) -> VerifyReport:
    job = job_named(replay.job).within(settings.namespace)
    chosen = tuple(v for v in _declared(replay) if replay.from_versions[v] == old)
    before = plan(job, old, chosen)
    after = plan(job, replay.to_version, replay.views)
    return verify(
        settings,
        views=[view for view in job.views if view.name in chosen],
        old_version=old,
        new_version=replay.to_version,
        cut=_cut(settings, before, after),
        expected=replay.plan.expected,
        replay=f"{settings.topic_prefix}replay-{replay.id}",
        progress=progress,
    )


def _cut(settings: Settings, before: JobPlan, after: JobPlan) -> Cut:
    """Return the input that stands in the tables of both versions, once it does."""
    stream = before.job.stream
    old, new = _read(settings, before), _read(settings, after)
    for one in (before, after):
        await_loaded(settings, one, lambda progress: None)
    still = (_read(settings, before), _read(settings, after)) == (old, new)
    lesser = {p: min(old.get(p, 0), new.get(p, 0)) for p in {*old, *new}}
    marks = {
        part: datetime.fromtimestamp(at / 1000, UTC)
        for part, at in watermarks(settings, stream, lesser).items()
    }
    cut = cut_at(old, new, marks, stream.allowed_lateness, drained=still)
    if cut is None:
        raise NotAllowed(
            f"{stream.topic}: no window is closed in both versions yet, so there is nothing to "
            "compare; try again when both jobs have read on."
        )
    return cut


def _read(settings: Settings, job_plan: JobPlan) -> dict[int, int]:
    return read_offsets(settings, f"kappa-{job_plan.name}", job_plan.job.stream.topic)
