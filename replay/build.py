"""Rebuild views beside the live ones: submit the job at its new version, wait until it is there."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from deploy.settings import Settings
from jobs.catalogue import job_named
from jobs.cluster import LIVE_STATES, Cluster, ClusterError, RunningJob
from jobs.desired import desired_jobs, idle_timeout_of
from jobs.options import JobOptions
from jobs.plan import JobPlan, plan
from jobs.plan import reading_copy as name_of_copy
from jobs.start import accepted_option
from jobs.state import latest_state, loss_of
from jobs.status import job_offsets
from jobs.submit import SubmissionFailed, flink_name, submit
from replay.archive_files import Archive
from replay.facts import BUILT_STEP
from replay.handover import (
    HAND_OVER,
    begin_after,
    carry_layout,
    drop_copy,
    handed_over,
    panes_of_stopped,
    reading_copy,
    stop_with_panes,
)
from replay.offsets import Offsets
from replay.pace import Limits
from replay.plan import accounting_of, refuse_lost
from replay.records import ReplayRecord, ReplayState, events_before
from replay.replaced import replaced_plan
from replay.restored import restore
from replay.silence import silence_of
from replay.steps import Work
from replay.throttle import Throttle, spared_job
from schemas.topics import begin_offsets, end_offsets, topic_names
from sinks.clickhouse import ClickHouse
from sinks.lag import LagReader
from sinks.loader import group_of
from udfs.pace import LONGEST_PAUSE_MS

_POLL_SECONDS = 0.5
# A job that restarts this long after its last progress will not come back by itself.
_STUCK_SECONDS = 300.0


PHASES = ("restore", "read", "load")


@dataclass(frozen=True)
class BuildProgress:
    """How far a phase of a rebuild is: events restored, events read, or records loaded.

    `rate` is how many there were a second lately, `seconds_left` the time that remains at it.
    While events are read, `live_lag` is how many the live job is behind, and `limit` how many a
    second may be read, None for any.
    """

    phase: str
    done: int
    total: int
    rate: float
    seconds_left: float | None
    live_lag: int | None = None
    limit: float | None = None


Progress = Callable[[BuildProgress], None]


def build(
    work: Work, replay: ReplayRecord, progress: Progress, limits: Limits | None = None
) -> ReplayRecord:
    """Run a replay until its versions hold all that was pinned; goes on where it stopped."""
    if replay.state is not ReplayState.BUILDING:
        return replay
    job_plan = rebuilt_plan(work.settings, replay)
    limits = limits or Limits()
    options: Mapping[str, str | float] = {}
    if replay.plan.archive:
        options = handed_over(work, replay) or _read_copy(work, replay, progress, limits)
        with work.step(replay, "drop copy"):
            drop_copy(work, reading_copy(job_plan))
    rate = _read(work, replay, job_plan, options, progress, limits)["rate"]
    with work.step(replay, "load") as outcome:
        outcome["idle_seconds"] = _await_silence(work, job_plan)
        outcome.update(await_loaded(work.settings, job_plan, progress))
    with work.step(replay, BUILT_STEP) as outcome:
        built = work.control.change(replay, ReplayState.BUILT, {})
        outcome.update({"rate": rate, "events": replay.plan.events})
    return built


def _read(
    work: Work,
    replay: ReplayRecord,
    job_plan: JobPlan,
    options: Mapping[str, str | float],
    progress: Progress,
    limits: Limits,
) -> dict[str, float]:
    """Run the job of `job_plan` until it has read all that was pinned."""
    live_name = flink_name(work.settings, replay.job, live_version(replay))
    topics = [source.topic for source in job_plan.inputs]
    throttle = Throttle(work.settings, job_plan.groups, live_name, topics, limits)
    again = any(entry.step == "submit" for entry in work.control.journal(replay.id))
    with work.step(replay, "submit", job=job_plan.name) as outcome:
        # From here on a killed build may leave a limit.
        throttle.begin(again=again, say=work.say)
        outcome.update(_ensure_running(work, replay, job_plan, options))
    with work.step(replay, "read", pinned=replay.plan.pinned) as outcome:
        outcome.update(_await_read(work, replay, job_plan, progress, throttle))
    return outcome


def _read_copy(
    work: Work, replay: ReplayRecord, progress: Progress, limits: Limits
) -> Mapping[str, str | float]:
    """Restore the topic's events, read them, and hand over; return the options to go on with."""
    settings = work.settings
    second = rebuilt_plan(settings, replay)
    first = reading_copy(second)
    with work.step(replay, "restore", archive=replay.plan.archive, copy=first.copy) as outcome:
        outcome["records"] = _restore(settings, replay, first, progress)
    goes_on = Cluster(*settings.flink_clusters).live_job(second.name) is not None
    panes = panes_of_stopped(settings, first, second)
    if not goes_on and panes is None:
        # The copy never grows, so its shorter partitions end early: none may be called idle, lest
        # the others come late.
        alone: dict[str, str | float] = {"copy": first.copy, "idle_timeout_seconds": 0}
        _read(work, replay, first, alone, progress, limits)
        # The job that goes on knows no watermark: what was due by the last one must be written.
        await_emitted(settings, first)
    with work.step(replay, HAND_OVER, pinned=replay.plan.pinned) as outcome:
        options = begin_after(settings, replay, first).as_options()
        if not goes_on:
            refuse_lost(replay.plan, *_begin(settings, second), {})
            panes = panes or stop_with_panes(settings, first, second)
            carry_layout(settings, first, second)
            outcome.update(_submit(work, replay, panes, options))
        outcome["options"] = options
    return options


def _restore(settings: Settings, replay: ReplayRecord, first: JobPlan, progress: Progress) -> int:
    stream, pace = first.job.stream, _Pace()

    def report(records: int) -> None:
        rate = pace.rate(records)
        left = (replay.plan.events - records) / rate if rate else None
        progress(BuildProgress("restore", records, replay.plan.events, rate, left))

    archive = Archive(replay.plan.archive, stream.topic)
    pinned = replay.plan.pinned[stream.name]
    return restore(settings.kafka_client, stream.topic, archive, first.copy, pinned, report)


def rebuilt_plan(settings: Settings, replay: ReplayRecord) -> JobPlan:
    """Return the plan of the job at the replay's new version."""
    return plan(job_named(replay.job).within(settings.namespace), replay.to_version, replay.views)


def code_of(work: Work, replay: ReplayRecord) -> str:
    """Return the copy of the code that builds the replay's version, or nothing before it began."""
    journal = work.control.journal(replay.id)
    return next((str(one.detail["code"]) for one in journal if one.detail.get("code")), "")


def _ensure_running(
    work: Work, replay: ReplayRecord, job_plan: JobPlan, options: Mapping[str, str | float]
) -> dict[str, object]:
    settings = work.settings
    cluster = Cluster(*settings.flink_clusters)
    if live := _only_live_job(cluster, job_plan.name):
        # A killed build may have submitted it without a word of its code.
        kept = next((one for one in desired_jobs(settings) if one.name == job_plan.name), None)
        return {"job_id": live.id, "found": True, "code": kept.code if kept else ""}
    # A job that read a copy may have stopped without a word of it; its panes are its successor's.
    successor = rebuilt_plan(settings, replay).name
    state = latest_state(cluster, job_plan.name) or latest_state(cluster, successor)
    read = job_offsets(LagReader(settings.kafka_client), job_plan) if state else {}
    _refuse_dropped(settings, replay, job_plan, read)
    return _submit(work, replay, state or "none", options)


def _begin(settings: Settings, job_plan: JobPlan) -> tuple[dict[str, str], Offsets]:
    """Return the topic of each stream of a job, and its first offsets now, by stream."""
    topics = {source.stream.name: source.topic for source in job_plan.inputs}
    kafka = settings.kafka_client
    return topics, {name: begin_offsets(kafka, topic) for name, topic in topics.items()}


def _submit(
    work: Work, replay: ReplayRecord, restore_from: str, options: Mapping[str, str | float]
) -> dict[str, object]:
    settings = work.settings
    _refuse_lost_rows(settings, rebuilt_plan(settings, replay))
    # What counts as idle decides what is late: both versions must see it alike.
    idle = idle_timeout_of(settings, flink_name(settings, replay.job, live_version(replay)))
    inherited: dict[str, str | float] = {} if idle is None else {"idle_timeout_seconds": idle}
    # However many dead letters the live job let pass, they pass again.
    inherited |= accepted_option(replay.plan.pinned)
    declared = {view.name for view in job_named(replay.job).views}
    chosen = tuple(view for view in replay.views if view in declared)
    submitted = submit(
        settings,
        replay.job,
        version=replay.to_version,
        views=() if set(chosen) == declared else chosen,
        restore=restore_from,
        options={**inherited, **options},
        # One version is of one code, whatever changed while its job was down.
        code=code_of(work, replay),
    )
    return {
        "job_id": submitted.job_id,
        "restored_from": submitted.restored_from,
        "code": submitted.code,
    }


def _refuse_lost_rows(settings: Settings, job_plan: JobPlan) -> None:
    """Raise `SubmissionFailed` where a rebuild lost rows that its state is past.

    It may have while it read a copy of its topic, under another name.
    """
    cluster, name = Cluster(*settings.flink_clusters), replace(job_plan, copy="").name
    for one in (name_of_copy(name), name):
        loss = loss_of(cluster, one)
        if loss is not None and not loss.accepted:
            raise SubmissionFailed(
                f"{loss.told_of(one)}; a rebuild that goes on would lack them: "
                "`kappa replay abort`, then build anew."
            )


def _only_live_job(cluster: Cluster, name: str) -> RunningJob | None:
    """Return the live job called `name`, the newest if a crash left two, which ends the others."""
    live = [job for job in cluster.jobs() if job.name == name and job.state in LIVE_STATES]
    for older in live[1:]:
        cluster.cancel(older.id)
    return live[0] if live else None


def _await_read(
    work: Work, replay: ReplayRecord, job_plan: JobPlan, progress: Progress, throttle: Throttle
) -> dict[str, float]:
    """Wait until the checkpoints of the rebuild cover every pinned offset, at its pace."""
    settings, pace = work.settings, _Pace()
    reader = LagReader(settings.kafka_client)
    live = old_plan(settings, replay, live_version(replay))
    most_lag = 0
    read = job_offsets(reader, job_plan)
    while True:
        # What is there now was there when the job was at the offsets seen before: it missed none.
        _refuse_dropped(settings, replay, job_plan, read)
        read = job_offsets(reader, job_plan)
        done = events_before(read, replay.plan)
        spared = spared_job(Cluster(*settings.flink_clusters), live.name)
        lag = events_behind(settings, reader, live) if spared else 0
        most_lag = max(most_lag, lag)
        rate = pace.rate(done)
        left = (replay.plan.events - done) / rate if rate else None
        progress(BuildProgress("read", done, replay.plan.events, rate, left, lag, throttle.limit))
        if done >= replay.plan.events:
            throttle.end()
            rate = pace.overall(done) or replay.plan.rate
            return {"rate": rate, "most_live_lag": most_lag, "slowed": throttle.slowed}
        if changed := throttle.look(done, lag):
            work.control.write(replay.id, "pace", "done", changed)
        _check_alive(settings, job_plan, pace)
        time.sleep(_POLL_SECONDS)


def _refuse_dropped(
    settings: Settings, replay: ReplayRecord, job_plan: JobPlan, read: Offsets
) -> None:
    """Raise `Refused` where a topic has dropped events that the job had not read by `read`."""
    # Nothing but the replay itself drops its copy of an archive.
    if not job_plan.copy:
        refuse_lost(replay.plan, *_begin(settings, job_plan), read)


def live_version(replay: ReplayRecord) -> int:
    """Return the version of the job that writes what the replay is to replace, or most of it.

    What accounts for its streams, of which there may be more than of its views, counts only where
    it writes nothing else.
    """
    own = replay.from_versions.keys() - accounting_of(replay)
    versions = Counter(replay.from_versions[view] for view in own or replay.from_versions)
    return max(versions, key=lambda one: (versions[one], -one))


def old_plan(settings: Settings, replay: ReplayRecord, version: int) -> JobPlan:
    """Return the plan of the job at a version that the replay is to replace."""
    job = job_named(replay.job).within(settings.namespace)
    return replaced_plan(job, replay, version, topic_names(settings.kafka_client))


def events_behind(settings: Settings, reader: LagReader, job_plan: JobPlan) -> int:
    """Return how many events of all its streams a job is behind."""
    read = job_offsets(reader, job_plan)
    return sum(
        max(0, end - read[source.stream.name].get(part, 0))
        for source in job_plan.inputs
        for part, end in end_offsets(settings.kafka_client, source.topic).items()
    )


def _check_alive(settings: Settings, job_plan: JobPlan, pace: _Pace) -> None:
    cluster = Cluster(*settings.flink_clusters)
    known = next((job for job in cluster.jobs() if job.name == job_plan.name), None)
    # The supervisor submits again what a restarted JobManager forgot.
    may_live = known is None or known.state in LIVE_STATES
    if may_live and not _is_stuck(settings, cluster, known, pace.still):
        return
    _refuse_lost_rows(settings, job_plan)
    why = cluster.failure(known.id) if known is not None else "Flink does not know it any more"
    state = known.state if known is not None else "gone"
    raise SubmissionFailed(
        f"{job_plan.name} is {state} and reads nothing: {why}. Run the same command again to go "
        "on from its last checkpoint, or `kappa replay abort`."
    )


def _is_stuck(settings: Settings, cluster: Cluster, job: RunningJob | None, still: float) -> bool:
    """Tell whether a job that completed no checkpoint for `still` seconds has long been due to."""
    due = max(_STUCK_SECONDS, 3 * settings.checkpoint_seconds)
    if still <= due or job is None:
        return still > due
    ends = due + JobOptions.checkpoint_timeout.total_seconds()
    return still > ends or not cluster.checkpoints(job.id).under_way


class _Pace:
    """Follows a count and tells its rate: lately, and since its first change."""

    def __init__(self) -> None:
        self._began: tuple[float, int] | None = None
        self._points: list[tuple[float, int]] = []
        self._moved = time.monotonic()

    def rate(self, count: int) -> float:
        now = time.monotonic()
        if not self._points or count != self._points[-1][1]:
            self._moved = now
        self._began = self._began or (now, count)
        self._points = [*self._points[-20:], (now, count)]
        (then, first), (at, last) = self._points[0], self._points[-1]
        return (last - first) / (at - then) if at > then else 0.0

    def overall(self, count: int) -> float:
        if self._began is None or count <= self._began[1]:
            return 0.0
        return (count - self._began[1]) / max(time.monotonic() - self._began[0], 0.1)

    @property
    def still(self) -> float:
        """Seconds since the count changed."""
        return time.monotonic() - self._moved


def _await_silence(work: Work, job_plan: JobPlan) -> float:
    """Wait until no partition without events holds results back; return for how many seconds."""
    seconds = silence_of(work.settings, job_plan).total_seconds()
    if seconds:
        work.say(
            f"{job_plan.name} shows its newest results in {seconds:.0f} s, when partitions "
            "without events count as idle."
        )
        time.sleep(seconds)
    return seconds


def await_loaded(settings: Settings, job_plan: JobPlan, progress: Progress) -> dict[str, int]:
    """Wait until every row that follows from the pinned events stands in ClickHouse."""
    await_emitted(settings, job_plan)
    return await_rows(settings, job_plan, progress)


def await_rows(settings: Settings, job_plan: JobPlan, progress: Progress) -> dict[str, int]:
    """Wait until every row that is committed by now stands in ClickHouse."""
    topics = output_topics(job_plan)
    ends = {
        (topic, part): end
        for topic in topics
        for part, end in end_offsets(settings.kafka_client, topic, read_committed=True).items()
    }
    reader, clickhouse = LagReader(settings.kafka_client), ClickHouse(settings)
    total, pace = sum(ends.values()), _Pace()
    try:
        while True:
            tables = clickhouse.table_ids()
            lags = reader.loader(group_of(settings), settings.topic_prefix, tables, topics)
            loaded = {(one.topic, one.partition): one.committed for one in lags}
            missing = sum(max(0, end - loaded.get(place, 0)) for place, end in ends.items())
            rate = pace.rate(total - missing)
            left = missing / rate if rate else None
            progress(BuildProgress("load", total - missing, total, rate, left))
            if not missing:
                return {"records": total}
            if pace.still > _STUCK_SECONDS:
                raise ClusterError(
                    f"the loader left {missing:,} records of {job_plan.name} unread for "
                    f"{_STUCK_SECONDS:.0f} s; see `kappa status` and `kappa logs loader`."
                )
            time.sleep(_POLL_SECONDS)
    finally:
        clickhouse.close()


def await_emitted(settings: Settings, *plans: JobPlan) -> None:
    """Wait until what each has read is in the rows that it has committed.

    Rows follow what they are due to by an early fire, and while a job catches up by a pause.
    """
    time.sleep(2 * settings.early_fire_seconds + LONGEST_PAUSE_MS / 1000)
    await_checkpoints(settings, *plans)


def await_checkpoints(settings: Settings, *plans: JobPlan) -> None:
    """Wait until the checkpoints of each have what it has read and written by now."""
    cluster = Cluster(*settings.flink_clusters)
    first = {one.name: _completed(cluster, cluster.live_job(one.name)) for one in plans}
    for one in plans:
        pace = _Pace()
        while True:
            job = cluster.live_job(one.name)
            completed = _completed(cluster, job)
            # The next one may have begun before.
            if completed >= first[one.name] + 2:
                break
            # A job that was submitted again counts from zero.
            first[one.name] = min(first[one.name], completed)
            pace.rate(completed)
            if _is_stuck(settings, cluster, job, pace.still):
                raise ClusterError(f"{one.name} completes no checkpoint; see `kappa status`.")
            time.sleep(_POLL_SECONDS)


def _completed(cluster: Cluster, job: RunningJob | None) -> int:
    if job is None:
        return 0
    return int(cluster.get(f"/jobs/{job.id}/checkpoints")["counts"]["completed"])


def output_topics(job_plan: JobPlan) -> tuple[str, ...]:
    """Return every topic that the job at its version writes."""
    version = job_plan.version
    raw = (
        topic
        for stream in job_plan.job.streams
        for topic in (stream.dead_letter_topic(version), stream.late_topic(version))
    )
    return (*job_plan.topics.values(), *raw)
