"""`kappa replay …`: rebuild views beside the live ones, compare, switch, and go back."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.console import ERR, CommandError, print_json
from replay.late_commands import add_late
from replay.opening import confirm, opened, say
from replay.options import AsJson, Force, Manner, OfJob, Pace, Wish, spread
from replay.printing import (
    build_bar,
    print_plan,
    print_replay,
    print_status,
    replaced,
    status_json,
)

if TYPE_CHECKING:
    from replay.records import ReplayPlan, ReplayRecord, ReplayState
    from replay.report import VerifyReport
    from replay.steps import Work

_group = typer.Typer(
    no_args_is_help=True,
    help="Rebuild views from offset zero beside the live ones, compare, switch, go back.",
)


def register(app: typer.Typer) -> None:
    """Add the commands of this room to `app`."""
    add_late(_group)
    app.add_typer(_group, name="replay")


@_group.command("plan")
@spread
def plan_command(*, wish: Wish, as_json: AsJson = False) -> None:
    """Show what a replay would do, and check that it can; nothing is changed.

    Example: kappa replay plan page_views_per_minute --expect-column errors
    """
    with opened() as work:
        planned = _planned(work, wish)
    if as_json:
        print_json(planned.as_json())
    else:
        print_plan(planned)


@_group.command("build")
@spread
def build_command(*, wish: Wish, pace: Pace, manner: Manner) -> None:
    """Build the views' next version beside the live one; goes on with one that was begun.

    Example: kappa replay build --expect-column errors --max-rate 20000 --yes
    """
    with opened(manner.wait) as work:
        replay = _build(work, _begun(work, wish, manner.yes), pace)
        print_replay(work, replay, manner.as_json)


@_group.command("run")
@spread
def run_command(
    *,
    wish: Wish,
    pace: Pace,
    force: Force = "",
    again: Annotated[
        bool,
        typer.Option("--again", help="Rebuild even what was built with the same code."),
    ] = False,
    manner: Manner,
) -> None:
    """Plan, build, verify and promote in one go; the old version stays until it is retired.

    Run again after that, it does nothing, unless the code has changed or with --again.

    Example: kappa replay run --job orders --expect-column daily_sales.sales_cents
    """
    with opened(manner.wait) as work:
        if not again and (done := _done(work, wish)):
            say(
                f"Replay {done.id} built this with the same code and is {done.state.words}: "
                "nothing is left to do. --again builds it once more."
            )
            print_replay(work, done, manner.as_json)
            return
        replay = _build(work, _begun(work, wish, manner.yes), pace)
        replay = _promote(work, replay, force, manner.yes)
        print_replay(work, replay, manner.as_json)


@_group.command("status")
def status_command(as_json: AsJson = False) -> None:
    """Show replays, the versions of views, who holds them, and the newest replay's journal.

    Example: kappa replay status
    """
    with opened() as work:
        replays = work.control.replays()
        versions = work.control.version_states()
        leases = work.control.leases()
        journals = {one.id: work.control.journal(one.id) for one in replays[:5]}
    if as_json:
        print_json(status_json(replays, versions, leases, journals))
    else:
        print_status(replays, versions, leases, journals)


@_group.command("verify")
def verify_command(job: OfJob = "", as_json: AsJson = False) -> None:
    """Compare the new version with the old one, and class every difference.

    Exits with 1 where a difference is unexplained.

    Example: kappa replay verify --json
    """
    from replay.report import print_reports

    with opened() as work:
        reports = _checked(work, _locked(work, _current(work, job)))
    print_reports(reports, as_json)
    if any(report.unexplained for report in reports):
        raise typer.Exit(1)


@_group.command("promote")
@spread
def promote_command(*, job: OfJob = "", force: Force = "", manner: Manner) -> None:
    """Verify, then let people see the new version, in all views at one instant.

    Example: kappa replay promote --yes
    """
    with opened(manner.wait) as work:
        replay = _promote(work, _locked(work, _current(work, job)), force, manner.yes)
        print_replay(work, replay, manner.as_json)


@_group.command("rollback")
@spread
def rollback_command(
    *,
    job: OfJob = "",
    reason: Annotated[str, typer.Option(help="Why; kept in the journal.")] = "",
    manner: Manner,
) -> None:
    """Let people see the old version again; both go on being written.

    Example: kappa replay rollback --reason "the errors look wrong" --yes
    """
    from replay.switch import roll_back

    with opened(manner.wait) as work:
        replay = _locked(work, _current(work, job))
        for version in sorted(set(replay.from_versions.values())):
            if behind := _behind(work, replay, version):
                say(behind)
        confirm(manner.yes, f"Show {replaced(replay)} again?")
        print_replay(work, roll_back(work, replay, reason), manner.as_json)


@_group.command("retire")
@spread
def retire_command(
    *,
    job: OfJob = "",
    grace: Annotated[float, typer.Option(min=0, help="Hours that must have passed.")] = 1.0,
    now: Annotated[bool, typer.Option("--now", help="Whatever the grace; needs --yes.")] = False,
    manner: Manner,
) -> None:
    """Drop the version that a promotion replaced: job, topics, tables and state.

    Example: kappa replay retire --grace 24 --yes
    """
    from replay.ending import retire, undeclared_too
    from replay.records import ReplayState

    if now and not manner.yes:
        raise CommandError("--now leaves no time to go back; say --yes too if that is meant.")
    with opened(manner.wait) as work:
        replay = _locked(work, _current(work, job, ReplayState.RETIRED))
        if _ended(work, replay, manner):
            return
        also = undeclared_too(work, replay)
        too = f", and with it {', '.join(also)}, which no job declares any more," if also else ""
        confirm(manner.yes, f"Drop {replaced(replay)}{too} for good?")
        hours = timedelta() if now else timedelta(hours=grace)
        ended = retire(work, replay, now=datetime.now(UTC), grace=hours)
        print_replay(work, ended, manner.as_json)


@_group.command("abort")
@spread
def abort_command(*, job: OfJob = "", manner: Manner) -> None:
    """Give up a replay that is not promoted, and drop what it built.

    Example: kappa replay abort --yes
    """
    from replay.ending import abort
    from replay.records import ReplayState

    with opened(manner.wait) as work:
        replay = _locked(work, _current(work, job, ReplayState.ABORTED))
        if _ended(work, replay, manner):
            return
        confirm(manner.yes, f"Drop version {replay.to_version} of {', '.join(replay.views)}?")
        print_replay(work, abort(work, replay), manner.as_json)


@_group.command("repoint")
@spread
def repoint_command(*, manner: Manner) -> None:
    """Let public names show the live versions again, where `kappa status` says that one does not.

    It happens when ClickHouse lost its data while an older version had topics still. The rows
    shown are those that the loader has brought back by then; see `kappa lag`.

    Example: kappa replay repoint --yes
    """
    from replay.astray import by_replay
    from replay.repoint import names_astray, repoint

    with opened(manner.wait) as work:
        found = names_astray(work.settings, work.control)
        for replay, _ in by_replay(work.control.replays(), found):
            work.control.lock(replay.job)
        if found:
            # Another process may have switched until the locks were ours.
            found = names_astray(work.settings, work.control)
        for one in found:
            say(one.sentence)
        if found:
            listed = ", ".join(f"version {one.live} of {one.view}" for one in found)
            confirm(manner.yes, f"Show {listed} now?")
            repoint(work, found)
        if manner.as_json:
            print_json({"repointed": [one.as_json() for one in found]})
        elif not found:
            say("Every public name shows its live version; nothing is left to do.")


def _planned(work: Work, wish: Wish) -> ReplayPlan:
    from replay.facts import chosen_job, gather
    from replay.plan import plan_replay

    job, chosen = chosen_job(work.settings, wish.views or (), wish.job)
    facts = gather(work.settings, work.control, job, chosen, from_archive=wish.from_archive)
    return plan_replay(
        facts, wish.expected, from_earliest=wish.from_earliest, count_twice=wish.count_twice
    )


def _done(work: Work, wish: Wish) -> ReplayRecord | None:
    """Return the replay that has built, with the code as it is, what people see and wish for.

    None where its job has lost rows since, which only another rebuild brings back.
    """
    from deploy.settings import PROJECT_ROOT
    from jobs.cluster import Cluster
    from jobs.code import code_name
    from jobs.state import loss_of
    from jobs.submit import flink_name
    from replay.build import code_of
    from replay.facts import chosen_job
    from replay.plan import is_done

    job, chosen = chosen_job(work.settings, wish.views or (), wish.job)
    states, code = work.control.version_states(), code_name(PROJECT_ROOT)
    of_job = (one for one in work.control.replays() if one.job == job)
    done = (one for one in of_job if is_done(one, chosen, wish.expected, states))
    found = next((one for one in done if code_of(work, one) == code), None)
    if found is None:
        return None
    name = flink_name(work.settings, job, found.to_version)
    return None if loss_of(Cluster(*work.settings.flink_clusters), name) else found


def _ended(work: Work, replay: ReplayRecord, manner: Manner) -> bool:
    """Tell whether the replay has ended already, and if so say it."""
    if replay.state.open:
        return False
    say(f"Replay {replay.id} is {replay.state.words} already; nothing is left to do.")
    print_replay(work, replay, manner.as_json)
    return True


def _begun(work: Work, wish: Wish, yes: bool) -> ReplayRecord:
    """Return the replay of these views that is being built, begun now where there is none."""
    from deploy.settings import PROJECT_ROOT
    from jobs.code import code_name
    from replay.build import code_of
    from replay.control import taken
    from replay.facts import chosen_job
    from replay.plan import goes_on

    job, chosen = chosen_job(work.settings, wish.views or (), wish.job)
    work.control.lock(job)
    current = work.control.current(job)
    if current is not None:
        if not goes_on(current, chosen, wish.expected):
            raise taken(current, work.control.leases())
        say(f"Replay {current.id} goes on where it stopped.")
        built_with = code_of(work, current)
        if built_with and built_with != code_name(PROJECT_ROOT):
            say(
                "The code has changed since it began, and it goes on with the code of then; "
                "`kappa replay abort` and a new replay take that of now."
            )
        return current
    planned = _planned(work, wish)
    print_plan(planned, to_error=True)
    confirm(yes, f"Build version {planned.to_version} now?")
    return work.control.begin(planned)


def _build(work: Work, replay: ReplayRecord, pace: Pace) -> ReplayRecord:
    from replay.build import build

    with build_bar() as show:
        return build(work, replay, show, pace.limits)


def _checked(work: Work, replay: ReplayRecord) -> list[VerifyReport]:
    from replay.checking import check

    with ERR.status("Comparing …"):
        return check(work, replay)


def _promote(work: Work, replay: ReplayRecord, force: str, yes: bool) -> ReplayRecord:
    from jobs.cluster import ClusterError, ClusterUnavailable
    from replay.comparison import CannotVerify
    from replay.records import ReplayState
    from replay.switch import NotAllowed, promote
    from schemas.topics import KafkaUnavailable
    from sinks.clickhouse import ClickHouseFailed

    if replay.state in (ReplayState.BUILT, ReplayState.ROLLED_BACK):
        try:
            reports = _checked(work, replay)
        except (
            CannotVerify,
            ClickHouseFailed,
            ClusterError,
            ClusterUnavailable,
            KafkaUnavailable,
            NotAllowed,
        ) as error:
            if not force:
                raise
            say(f"{error} It is promoted without a comparison, for the reason given.")
            reports = []
        unexplained = sum(report.unexplained for report in reports)
        for report in reports:
            say(report.sentence)
        if unexplained and not force:
            raise CommandError(
                f"{unexplained:,} differences are unexplained, so nothing is promoted: see "
                '`kappa replay verify`; --force "reason" promotes all the same.'
            )
    confirm(yes, f"Show version {replay.to_version} of {', '.join(replay.views)} from now on?")
    return promote(work, replay, force)


def _behind(work: Work, replay: ReplayRecord, version: int) -> str:
    """Return what the rows of an old version lack, as far as Flink and Kafka tell, or nothing."""
    from jobs.cluster import Cluster, ClusterError, ClusterUnavailable
    from jobs.submit import flink_name
    from replay.build import events_behind, old_plan
    from replay.checking import stands_still
    from replay.pace import Limits
    from schemas.topics import KafkaUnavailable, UnknownTopic
    from sinks.lag import LagReader

    settings, name = work.settings, flink_name(work.settings, replay.job, version)
    # To go back takes no more than ClickHouse and the journal.
    with suppress(ClusterError, ClusterUnavailable):
        if how := stands_still(Cluster(*settings.flink_clusters), name):
            return f"{name} {how}, so the rows to be shown end where it stopped."
    with suppress(KafkaUnavailable, UnknownTopic):
        old = old_plan(settings, replay, version)
        lag = events_behind(settings, LagReader(settings.kafka_client), old)
        if lag > Limits().live_lag:
            return f"{name} is {lag:,} events behind, which the rows to be shown lack yet."
    return ""


def _current(work: Work, job: str, end: ReplayState | None = None) -> ReplayRecord:
    """Return the open replay, or where none is and the last came to `end`, that one."""
    from jobs.catalogue import job_named

    if job:
        job_named(job)
    found = [one for one in work.control.replays() if not job or one.job == job]
    still = [one for one in found if one.state.open]
    if len(still) == 1:
        return still[0]
    if still:
        jobs = ", ".join(one.job for one in still)
        raise CommandError(f"replays of several jobs are open ({jobs}); name one with --job.")
    if found and found[0].state is end:
        return found[0]
    last = f"; the last, {found[0].id}, is {found[0].state.words}" if found else ""
    raise CommandError(f"no replay is open{last}. `kappa replay build` begins one.")


def _locked(work: Work, replay: ReplayRecord) -> ReplayRecord:
    """Return the replay as it is once no other process changes it."""
    work.control.lock(replay.job)
    return next(one for one in work.control.replays() if one.id == replay.id)
