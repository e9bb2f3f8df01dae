"""Submit, stop and resume jobs on the configured Flink cluster."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from deploy.flink import client, client_environment
from deploy.processes import die_with_parent
from deploy.settings import PROJECT_ROOT, Settings
from jobs.catalogue import JOBS, job_named
from jobs.cluster import CANCELLING, LIVE_STATES, Cluster, ClusterError, RunningJob
from jobs.code import code_folder, drop_code, keep_code
from jobs.desired import (
    DesiredJob,
    Kept,
    alone,
    desired_jobs,
    forget,
    is_desired,
    remembered,
)
from jobs.plan import LATE, plan, reading_copy, versioned
from jobs.state import (
    CHECKPOINT_DIR,
    SAVEPOINT_DIR,
    Loss,
    StateFolder,
    StateUnavailable,
    accept_loss,
    checkpoint_folder,
    latest_state,
    loss_of,
    state_folders,
)
from sinks.lag import LagReader

log = logging.getLogger("kappa.submit")

_SUBMITTED = re.compile(r"JobID ([0-9a-f]{32})")
_START_SECONDS = 120.0
_CLIENT_SECONDS = 300.0
_CANCEL_SECONDS = _STOP_SECONDS = 60.0
_ENDED = ("CANCELED", "FAILED", "FINISHED")

T = TypeVar("T")


class SubmissionFailed(Exception):
    """The job did not start; the message names the job and the cause."""


@dataclass(frozen=True)
class Submitted:
    """A job that runs; `restored_from` is the savepoint or checkpoint it continues, or None.

    `code` is the copy of the code that it runs.
    """

    job_id: str
    name: str
    restored_from: str | None
    code: str


def submit(
    settings: Settings,
    job_name: str,
    *,
    version: int = 1,
    views: tuple[str, ...] = (),
    restore: str = "latest",
    options: Mapping[str, str | float] | None = None,
    script: Path | None = None,
    code: str = "",
    lost_rows_accepted: bool = False,
    only_kept: bool = False,
) -> Submitted:
    """Start a job and wait until all its tasks run.

    `restore` is "latest" (the newest savepoint or checkpoint, if there is one), "none", or the
    location of one. A job of that name that is live already is refused, and so is one whose
    state does not fit: it is cancelled and its reason raised as `SubmissionFailed`. `script` is
    the job's module; by default that in jobs/ with the job's name. `code` is the copy of the code
    with which its state was written; without one it runs the code as it is now, from a copy. A job
    that lost rows goes on only once that is accepted, or from another state than its newest. With
    `only_kept` one that was cancelled meanwhile stays so.
    """
    cluster = Cluster(*settings.flink_clusters)
    name = flink_name(settings, job_name, version)
    if (options or {}).get("copy"):
        name = reading_copy(name)
    if not (script or code):
        job_named(job_name)
    with alone(settings, name):
        if only_kept and not is_desired(settings, name):
            raise SubmissionFailed(f"{name} was cancelled meanwhile.")
        if live := cluster.live_job(name):
            raise SubmissionFailed(
                f"{name} runs already as {live.id} ({live.state}); `kappa cancel {job_name}` first."
            )
        check_place(settings, cluster, name)
        # One that is just being cancelled may complete a checkpoint still.
        leaving = [job for job in cluster.unended(name) if job.state == CANCELLING]
        _await_ended(cluster, leaving, name)
        if restore == "latest" and not lost_rows_accepted:
            _check_loss(cluster, name, job_name)
        newest = latest_state(cluster, name)
        location = {"latest": newest, "none": None}.get(restore, restore)
        home = settings.home.expanduser().resolve()
        layout: Mapping[str, str] = {}
        if not code or not code_folder(home, code).is_dir():
            code = keep_code(home, PROJECT_ROOT)
            layout = _declared_layout(settings, job_name, version, views)
            if location and layout:
                _check_layout(cluster, name, layout)
        folder = code_folder(home, code)
        desired = DesiredJob(
            name=name,
            job=job_name,
            version=version,
            views=views,
            namespace=settings.namespace,
            options=dict(options or {}),
            code=code,
            restore=restore,
            before=newest,
            committed=committed_by(settings, name) if _begins_anew(cluster, name, location) else {},
        )
        module = script or folder / "jobs" / f"{job_name}.py"
        job_id = _start(settings, cluster, desired, module, location, layout)
        drop_code(home, {one.code for one in desired_jobs(settings)})
    return Submitted(job_id, name, location, code)


def committed_by(settings: Settings, name: str) -> dict[str, int]:
    """Return what job `name` has committed, by topic:partition; `KafkaUnavailable`."""
    found = LagReader(settings.kafka_client).committed(f"kappa-{name}")
    return {f"{topic}:{partition}": offset for (topic, partition), offset in found.items()}


def _begins_anew(cluster: Cluster, name: str, location: str | None) -> bool:
    """Whether job `name` is to have state, and none yet."""
    return location is None and bool(state_folders(cluster, name))


def _start(
    settings: Settings,
    cluster: Cluster,
    desired: DesiredJob,
    module: Path,
    location: str | None,
    layout: Mapping[str, str],
) -> str:
    """Have Flink run `desired` from the state at `location`; return the job's id once it runs.

    A `layout` is noted beside its state, whether or not somebody waits for it to run.
    """
    name = desired.name
    arguments = {"version": desired.version, "views": ",".join(desired.views), **desired.options}
    folder = code_folder(settings.home.expanduser().resolve(), desired.code)
    with remembered(settings, desired) as kept, _notes(cluster, name, kept) as folders:
        # Before it runs: one whose loss is not accepted is stopped as soon as it is seen.
        accept_loss(cluster, name)
        checkpoints = checkpoint_folder(cluster, name)
        job_id = _run_client(settings, module, location, arguments, folder, checkpoints)
        if not is_desired(settings, name):
            # Whoever cancelled it found no job to cancel yet.
            cluster.cancel(job_id)
            raise SubmissionFailed(f"{name} was cancelled while it was being submitted.")
        # Whoever gives up waiting from here on leaves a job that a restart must not forget.
        kept.runs = True
        for noted in folders:
            if layout:
                noted.keep_layout(layout)
            if location is None:
                # It reads again what it was that its views lack. Of a view that is no more the
                # transactions stay aborted, and would be taken for a new loss.
                if loss := noted.loss():
                    noted.keep_passed(noted.passed() | set(loss.transactions))
                noted.keep_loss(None)
        try:
            _await_running(cluster, name, job_id)
        except SubmissionFailed:
            kept.runs = False
            raise
    return job_id


@contextmanager
def _notes(cluster: Cluster, name: str, kept: Kept) -> Iterator[list[StateFolder]]:
    """Give where it is noted what state job `name` has; what stood there is back if none runs.

    A job that was refused has written no state, so what there is is that of the job before it.
    """
    folders = state_folders(cluster, name)[:1]
    before = [(folder.loss(), folder.passed(), folder.layout()) for folder in folders]
    try:
        yield folders
    except BaseException:
        if not kept.runs:
            for folder, noted in zip(folders, before, strict=True):
                _put_back(name, folder, *noted)
        raise


def _put_back(
    name: str,
    folder: StateFolder,
    loss: Loss | None,
    passed: set[str],
    layout: Mapping[str, str] | None,
) -> None:
    with _or_logged(name):
        now = folder.loss()
        # One that is not accepted was found since, and is why there is no job.
        if now != loss and (now is None or now.accepted):
            folder.keep_loss(loss)
    with _or_logged(name):
        if folder.passed() != passed:
            folder.keep_passed(passed)
    with _or_logged(name):
        if folder.layout() != layout:
            folder.keep_layout(layout)


@contextmanager
def _or_logged(name: str) -> Iterator[None]:
    """Log that the store fails: what is raised is why the job does not run."""
    try:
        yield
    except StateUnavailable as error:
        log.error("%s: what was noted beside its state could not be put back: %s", name, error)


def flink_name(settings: Settings, job_name: str, version: int = 1) -> str:
    """Return Flink's name of a job at `version` in the namespace."""
    return versioned(f"{settings.topic_prefix}{job_name}", version)


def submit_command(
    job_name: str, version: int, views: Sequence[str], options: Mapping[str, str | float]
) -> str:
    """Return the command with which people submit a job as it was submitted."""
    words = ["kappa submit", job_name, f"--version {version}", *(f"--view {one}" for one in views)]
    words += [f"--parallelism {given}" for key, given in options.items() if key == "parallelism"]
    return " ".join(words)


def _declared_layout(
    settings: Settings, job_name: str, version: int, views: tuple[str, ...]
) -> dict[str, str]:
    if job_name not in JOBS:
        return {}
    return plan(JOBS[job_name].within(settings.namespace), version, views).layout


def check_layout(
    settings: Settings, cluster: Cluster, job_name: str, version: int, views: tuple[str, ...]
) -> None:
    """Raise `SubmissionFailed` where the job's newest state does not fit the code as it is."""
    layout = _declared_layout(settings, job_name, version, views)
    _check_layout(cluster, flink_name(settings, job_name, version), layout)


def _check_layout(cluster: Cluster, name: str, layout: Mapping[str, str]) -> None:
    """Refuse a view that the state knows nothing of, or that computed something else so far.

    And one that is missing: its timers would be restored, and nobody could answer them.
    """
    for folder in state_folders(cluster, name):
        before = folder.layout() or layout
        if added := sorted(layout.keys() - before.keys()):
            raise SubmissionFailed(
                f"{name} can't continue with {', '.join(added)}, which its state knows nothing of; "
                f"run that beside it: `kappa submit JOB --view {added[0]} --version N`, N being "
                "a version not used yet; `kappa replay run` then makes one job of both."
            )
        if gone := sorted(before.keys() - layout.keys()):
            raise SubmissionFailed(
                f"{name} can't continue without {', '.join(gone)}, which is in its state; rebuild "
                "with `kappa replay run`, or start anew with `--from none`."
            )
        changed = sorted(view for view in layout if not _is_same(before[view], layout[view]))
        if changed:
            raise SubmissionFailed(
                f"{name} can't continue: its state is from before {', '.join(changed)} changed; "
                "rebuild with `kappa replay run`, or start anew with `--from none`."
            )


def _is_same(before: str, now: str) -> bool:
    """Whether two layouts of a view are one; older ones do not tell how late events may come."""
    return before == now or before == now.partition(LATE)[0]


def _check_loss(cluster: Cluster, name: str, job_name: str) -> None:
    """Refuse a job whose newest state is past rows that its views never got."""
    loss = loss_of(cluster, name)
    if loss is not None and not loss.accepted:
        raise SubmissionFailed(
            f"{loss.told_of(name)}; rebuild its views with `kappa replay run --job {job_name} "
            '--force "rows were lost"`, or let it go on without these rows meanwhile: '
            f"`kappa submit {job_name} --accept-lost-rows`."
        )


def cancel(settings: Settings, name: str) -> RunningJob:
    """Cancel the live job called `name` and wait until it has ended; return it."""
    cluster = Cluster(*settings.flink_clusters)
    forget(settings, name)
    job = _live(cluster, name)
    end_all(cluster, name)
    return job


def end_all(cluster: Cluster, name: str) -> None:
    """Cancel every job called `name`, if any, and wait until they have ended.

    There may be two after a crash, and one that is cancelled already writes until it has ended.
    """
    jobs = cluster.unended(name)
    for job in jobs:
        if job.state in LIVE_STATES:
            cluster.cancel(job.id)
    _await_ended(cluster, jobs, name)


def end_for_good(settings: Settings, name: str) -> None:
    """Have no job called `name` run or be resumed any more, not one that is being submitted either.

    There may be none.
    """
    cluster = Cluster(*settings.flink_clusters)
    forget(settings, name)
    # Whoever waits for it to run gives up once it is cancelled.
    end_all(cluster, name)
    with alone(settings, name):
        # It may have been noted as kept just after it was forgotten.
        forget(settings, name)
        end_all(cluster, name)


def _await_ended(cluster: Cluster, jobs: Sequence[RunningJob], name: str) -> None:
    _until(lambda: all(cluster.state(job.id) in _ENDED for job in jobs), _CANCEL_SECONDS, name)


def take_savepoint(
    settings: Settings,
    name: str,
    *,
    stop: bool,
    owner: str = "",
    wanted: bool = False,
) -> tuple[RunningJob, str]:
    """Take a savepoint of the live job called `name`, stopping it after if so wished.

    `owner` is the job among whose savepoints it is kept, if that is another. One that is `wanted`
    still, though it is stopped, is resumed by a restart.
    """
    cluster = Cluster(*settings.flink_clusters)
    job = _live(cluster, name)
    base = cluster.configuration().get(SAVEPOINT_DIR)
    folder = f"{base.rstrip('/')}/{owner or name}" if base else None
    request = cluster.trigger_savepoint(job.id, stop=stop, folder=folder)
    # Given up sooner, a job would still stop once its savepoint is complete, and nobody go on.
    seconds = cluster.checkpoint_timeout(job.id) + _STOP_SECONDS
    location = _until(lambda: cluster.savepoint(job.id, request), seconds, f"savepoint of {name}")
    if stop and not wanted:
        forget(settings, name)
    return job, location


def _live(cluster: Cluster, name: str) -> RunningJob:
    job = cluster.live_job(name)
    if job is None:
        live = [j.name for j in cluster.jobs() if j.state == "RUNNING"]
        raise ClusterError(f"no job {name} runs; running: {', '.join(live) or 'none'}.")
    return job


def check_place(settings: Settings, cluster: Cluster, name: str) -> None:
    """Raise `SubmissionFailed` where another cluster than that of new jobs has run `name` last.

    In application mode it would start its job again, and two would write the same topics.
    """
    last = next((job for job in cluster.jobs() if job.name == name), None)
    if last is None or (address := cluster.elsewhere(last.id)) is None:
        return
    raise SubmissionFailed(
        f"{name} belongs to the cluster at {address} and new jobs go to {settings.flink}: change "
        "its FlinkDeployment instead, such as spec.image for new code, spec.job.state, or "
        "spec.job.parallelism and --parallelism in spec.job.args, and with upgradeMode savepoint "
        "the operator does the rest."
    )


def _run_client(
    settings: Settings,
    script: Path,
    location: str | None,
    arguments: Mapping[str, str | float],
    code: Path,
    checkpoints: str | None,
) -> str:
    address = settings.flink.split("//", 1)[-1]
    command = [*client(settings), "run", "--detached", "-m", address]
    if checkpoints:
        # The client may stand on a machine whose Flink is not configured as the cluster is.
        command += ["-D", f"{CHECKPOINT_DIR}={checkpoints}"]
    if location:
        command += ["--fromSavepoint", location]
        if arguments.get("start"):
            # The panes of a job that read a copy of the topic; where it stood there is of no use.
            command.append("--allowNonRestoredState")
    # Workers on other machines have no such folder, and import what is installed there.
    command += ["-pypath", str(code), "-py", str(script)]
    for key, value in arguments.items():
        if value != "":
            command += [f"--{key.replace('_', '-')}", str(value)]
    environment = os.environ | client_environment(settings) | settings.environment()
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(code), os.environ.get("PYTHONPATH")])
    )
    try:
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_CLIENT_SECONDS,
            # A client that outlives us would submit the job beside that of whoever tries again.
            preexec_fn=die_with_parent,
        )
    except subprocess.TimeoutExpired as error:
        raise SubmissionFailed(
            f"{script.stem}: Flink's client did not submit it in {_CLIENT_SECONDS:.0f} s; is the "
            "machine busy, or Flink's REST API out of reach? Try again."
        ) from error
    found = _SUBMITTED.search(done.stdout)
    if done.returncode or not found:
        raise SubmissionFailed(f"{script.stem}: {_last_words(done.stdout + done.stderr)}")
    return found[1]


def _last_words(output: str) -> str:
    """Return the line of a client's output that says what went wrong."""
    telling = [
        line.strip()
        for line in output.splitlines()
        if re.match(r"^(\w+\.)*\w*(Error|Exception|Unavailable|Mismatch|Schema)\b.*:", line.strip())
        or line.startswith("Caused by: ")
    ]
    telling = [line for line in telling if "Python process exits" not in line] or telling
    return telling[-1] if telling else output.strip()[-500:]


def _await_running(cluster: Cluster, name: str, job_id: str) -> None:
    def started() -> bool:
        job = cluster.get(f"/jobs/{job_id}")
        failed = job["state"] in ("FAILED", "FAILING", "RESTARTING", "CANCELED")
        if failed and (reason := cluster.failure(job_id)):
            if job["state"] not in ("FAILED", "CANCELED"):
                cluster.cancel(job_id)
            # A cluster that has been up for minutes does not wait for more slots than it has.
            if "NoResourceAvailableException" in reason:
                raise _without_slots(name)
            raise SubmissionFailed(f"{name} does not start: {reason}")
        if job["state"] == "CANCELED":
            raise SubmissionFailed(f"{name} was cancelled before all of it ran.")
        return bool(job["vertices"]) and all(v["status"] == "RUNNING" for v in job["vertices"])

    try:
        _until(started, _START_SECONDS, name)
    except _TookTooLong:
        vertices = cluster.get(f"/jobs/{job_id}")["vertices"]
        # Of a vertex whose tasks wait for slots Flink says that it is created.
        if not any(vertex["tasks"]["SCHEDULED"] for vertex in vertices):
            raise
        cluster.cancel(job_id)
        raise _without_slots(name) from None


def _without_slots(name: str) -> SubmissionFailed:
    return SubmissionFailed(
        f"{name} does not start: no slots came free for all of it; cancel a job, add a "
        "TaskManager, or lower KAPPA_PARALLELISM."
    )


class _TookTooLong(ClusterError):
    """What was waited for did not come."""


def _until(condition: Callable[[], T | None], seconds: float, name: str) -> T:
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise _TookTooLong(f"{name}: nothing came of it within {seconds:.0f} s.")
        time.sleep(0.2)
    return result
